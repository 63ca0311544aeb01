"""The protocols of fine-tuning on all labels or some of them, and their settings.
`eval_semisup.py` describes them."""

import argparse
import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from data.transforms import random_crop
from evaluation import linear as probe
from evaluation.linear_recipes import Recipe
from evaluation.linear_run import Settings


@dataclass(frozen=True)
class FineTuningRecipe(Recipe):
    """A protocol.

    Attributes:
        gamma: learning rates are multiplied by it after each of `steps`.
        rates_of: in place of `lr`, by the percentage of the labels: the learning rates at the start
            of the trunk and of the top layer.
        sync_bn: default of the flag.
        whole_batches: percentages of the labels with which an epoch's last images are left out, if
            they are less than a batch.
        new_hidden: reset the hidden layers of the network's classifier.
    """

    normalised: bool = False
    nesterov: bool = False
    gamma: float = 0.1
    rates_of: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    sync_bn: str = "none"
    whole_batches: tuple[int, ...] = ()
    new_hidden: bool = False

    def flags(self, batch: int) -> dict[str, Any]:
        found = super().flags(batch)
        del found["conv"]
        return {**found, "gamma": self.gamma, "sync_bn": self.sync_bn}


# by the names of `--protocol`
PROTOCOLS = {
    "swav": FineTuningRecipe(
        random_crop, epochs=20, lr=None, rates_of={1: (0.02, 5.0), 10: (0.01, 0.2)}, wd=None,
        steps=(12, 16), gamma=0.2, sync_bn="pytorch",
    ),
    "vissl": FineTuningRecipe(
        random_crop, nesterov=True, epochs=70, lr=0.05, scaled=True, wd=None, steps=(30,),
        whole_batches=(1,),
    ),
    "deepercluster": FineTuningRecipe(
        random_crop, epochs=100, lr=0.1, steps=(30, 60, 90), new_hidden=True
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FineTuning(Settings):
    """How a network is fine-tuned. `lr` is the trunk's learning rate at the start, `lr_last_layer`
    that of the top layer. `gamma` and `sync_bn` replace those of the protocol's recipe. With
    `whole_batches`, an epoch's last images are left out, if they are less than a batch."""

    lr: float
    lr_last_layer: float
    steps: tuple[int, ...]
    gamma: float
    sync_bn: str
    whole_batches: bool

    @property
    def recipe(self) -> FineTuningRecipe:
        """The protocol's recipe."""
        return PROTOCOLS[self.protocol]

    def groups(self, heads: probe.Heads) -> list[dict[str, Any]]:
        """The parameters that train, in two groups: the trunk and the top layer."""
        trunk: list[nn.Parameter] = []
        top: list[nn.Parameter] = []
        for name, parameter in heads.named_parameters():
            if parameter.requires_grad:
                (top if ".top_layer." in name else trunk).append(parameter)
        return [
            {"params": trunk, "start": self.lr},
            {"params": top, "start": self.lr_last_layer},
        ]

    def set_rate(self, optimizer: torch.optim.SGD, epoch: int, iteration: int) -> None:
        """Set the learning rates of a step; they are the same in all iterations of an epoch."""
        falls = sum(step <= epoch for step in self.steps)
        for group in optimizer.param_groups:
            group["lr"] = group["start"] / (1 / self.gamma) ** falls  # 0.1 / 10 is 0.01, 0.1² isn't

    def order(self, epoch: int, images: int) -> np.ndarray:
        """As in `Settings`, but perhaps without the rest of a division into batches."""
        rest = images % self.batch_size if self.whole_batches else 0
        return super().order(epoch, images)[: images - rest or images]


def settings_of(args: argparse.Namespace, percent: float) -> tuple[FineTuning, str]:
    """The settings that the flags give, and a note; it is empty if all of them are published.

    Args:
        percent: percentage of the labels, which some protocols depend on.
    """
    recipe, percentage = PROTOCOLS[args.protocol], round(percent)
    rates_of, usual = recipe.rates_of, _nearest(recipe.rates_of, percent)
    rates = rates_of[usual] if rates_of else (args.lr, args.lr)
    chosen = dict(zip(("lr", "lr_last_layer"), rates, strict=True))
    chosen = {name: rate for name, rate in chosen.items() if getattr(args, name) is None}
    names = {each.name for each in dataclasses.fields(FineTuning)}
    given = {name: value for name, value in vars(args).items() if name in names}
    note = ""
    if chosen and rates_of and percentage not in rates_of:
        words = " ".join(f"--{name} {rate:g}" for name, rate in chosen.items())
        note = (
            f"{words}: as for {usual} % of the labels, because --protocol {args.protocol} has no "
            f"rates for {percent:.3g} %"
        )
    whole_batches = percentage in recipe.whole_batches
    return FineTuning(**given | chosen, whole_batches=whole_batches), note


def _nearest(published: Iterable[int], percent: float) -> int:
    """The published percentage whose ratio to another is nearest to 1; 0 if there is none."""
    return min(published, key=lambda each: abs(math.log(each / percent)), default=0)
