"""A run of linear probes: its settings, its two data sets, an epoch, and how it resumes."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from checkpoints.checkpoint import digest_of, save_checkpoint
from data.images import NameUnreadable
from data.labelled import Labelled
from data.loading import EpochBatches, ImageDataset, load_in_order, make_loader
from data.transforms import central_crop, ten_crops
from evaluation import linear as probe
from evaluation.linear_recipes import BATCH, RECIPES, Recipe
from models import ConvNet
from models.layers import Layer
from parallel.collectives import rank, shard_of, world_size
from system.device import Compute
from system.kept import check_key, continuing
from system.progress import progress
from system.seeding import derive_seed

History = list[dict[Layer, dict[str, float]]]


@dataclass(frozen=True)
class Settings:
    """How classifiers are trained. `epochs`, `lr`, `wd` and `steps` replace those of the protocol's
    recipe; `size` is the input's side in pixels."""

    protocol: str
    epochs: int
    lr: float
    wd: float | None
    steps: tuple[int, ...] | None
    batch_size: int = BATCH
    momentum: float = 0.9
    tencrops: bool = False
    seed: int = 31
    size: int = 224
    workers: int = 4

    @property
    def recipe(self) -> Recipe:
        """The protocol's recipe."""
        return RECIPES[self.protocol]

    @property
    def cosine(self) -> bool:
        """Whether the rate falls by half a cosine over all epochs."""
        return self.recipe.cosine and self.steps is None

    def optimizer(self, heads: probe.Heads) -> torch.optim.SGD:
        """The optimiser of the classifiers."""
        return torch.optim.SGD(
            heads.parameters(),
            self.lr,
            self.momentum,
            weight_decay=0.0 if self.wd is None else 10**self.wd,
            nesterov=self.recipe.nesterov and self.momentum > 0,  # torch demands a momentum for it
            fused=True,
        )

    def set_rate(self, optimizer: torch.optim.SGD, epoch: int, iteration: int) -> None:
        """Set the learning rate of a step, the `iteration`-th since the run began."""
        if self.cosine:
            rate = self.lr * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
        elif self.steps is None:
            learning_rate_decay(optimizer, iteration, self.lr)
            return
        else:
            rate = self.lr / 10 ** sum(step <= epoch for step in self.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate


class Sets:
    """The two data sets as batches."""

    def __init__(
        self, train: Labelled, val: Labelled, compute: Compute, settings: Settings, verbose: bool
    ) -> None:
        self.train, self.val = train, val
        self.compute, self.settings, self.verbose = compute, settings, verbose
        size, seed = settings.size, settings.seed
        self.draws = EpochBatches(settings.batch_size, rank(), world_size())
        seen = ImageDataset(train.images, settings.recipe.view(size), seed)
        self.to_train = make_loader(seen, self.draws, settings.workers, compute.device)
        view = ten_crops(size) if settings.tencrops else central_crop(size)
        # with ten crops of each image, a tenth of the images fill the memory of a batch
        shown = max(settings.batch_size // 10, 1) if settings.tencrops else settings.batch_size
        self.own = shard_of(len(val.images))
        self.to_validate = load_in_order(
            ImageDataset(val.images, view), shown, settings.workers, compute.device, self.own
        )
        self.train_labels, self.val_labels = (
            torch.from_numpy(each.labels).to(compute.device) for each in (train, val)
        )
        self.name_unreadable = NameUnreadable(train.images), NameUnreadable(val.images)

    def progress(self, name: str, images: int) -> Any:
        return progress(name, images, "images", self.verbose)


def run_epoch(
    epoch: int,
    model: ConvNet,
    heads: probe.Heads,
    optimizer: torch.optim.SGD,
    sets: Sets,
) -> dict[Layer, dict[str, float]]:
    """Train for an epoch, and validate. Returns the results by layer."""
    settings = sets.settings
    random = np.random.default_rng(derive_seed(settings.seed, "probe order", epoch))
    order = random.permutation(len(sets.train.images))
    sets.draws.start_epoch(epoch, order)
    share = -(-len(order) // world_size())
    name_train, name_val = sets.name_unreadable
    with sets.progress(f"epoch {epoch}, training", share) as advance:
        losses = probe.train_epoch(
            model, heads, optimizer, sets.to_train, sets.train_labels, sets.compute,
            set_rate=lambda batch: settings.set_rate(
                optimizer, epoch, epoch * len(sets.draws) + batch
            ),
            on_unreadable=name_train, advance=advance,
        )  # fmt: skip
    with sets.progress(f"epoch {epoch}, val", len(sets.own)) as advance:
        found = probe.validate(
            model, heads, sets.to_validate, sets.val_labels, sets.compute,
            on_unreadable=name_val, advance=advance,
        )  # fmt: skip
    return {layer: {**found[layer], "train_loss": losses[layer]} for layer in found}


def key_of(
    model: ConvNet,
    layers: Sequence[Layer],
    train: Labelled,
    val: Labelled,
    compute: Compute,
    settings: Settings,
) -> dict[str, Any]:
    """The settings and digests that must be the same for a run to resume from a saved file."""
    free = {"workers"} if settings.cosine else {"workers", "epochs"}  # a cosine depends on its end
    kept = {n: v for n, v in dataclasses.asdict(settings).items() if n not in free}
    digests = {"train": train.digest, "val": val.digest, "network": digest_of(model)}
    key = {
        **kept,
        "layers": list(layers),
        "precision": compute.precision,
        **train.images.reading.key,
    }
    return key | {name: digest[:12] for name, digest in digests.items()}


def save(
    path: Path,
    key: dict[str, Any],
    heads: probe.Heads,
    optimizer: torch.optim.SGD,
    history: History,
) -> None:
    """Save the classifiers, the optimiser, and the results of the epochs so far."""
    state = {"heads": heads.state_dict(), "optimizer": optimizer.state_dict()}
    save_checkpoint(path, {**state, "history": history, "settings": key})


def go_on(
    path: Path | None, key: dict[str, Any], heads: probe.Heads, optimizer: torch.optim.SGD
) -> History:
    """Restore the classifiers and the optimiser from `save`'s file, if there is one. Returns the
    results of the epochs that are done.

    Raises:
        InputError: the file is damaged, or has other settings.
    """
    if path is None or not path.exists():
        return []
    with continuing(path, "give another --exp"):
        state = torch.load(path, map_location="cpu", weights_only=True)
        check_key(path, dict(state["settings"]), key, "give another --exp")
        heads.load_state_dict(state["heads"])
        optimizer.load_state_dict(state["optimizer"])
        return list(state["history"])


def learning_rate_decay(optimizer: torch.optim.Optimizer, t: int, lr_0: float) -> None:
    """Set each group's learning rate to lr_0 / √(1 + lr_0·wd·t) after `t` iterations, where wd is
    the group's weight decay (the paper's linear probes)."""
    for group in optimizer.param_groups:
        group["lr"] = lr_0 / (1 + lr_0 * group["weight_decay"] * t) ** 0.5
