"""Losses, gradients, features and weights that are NaN or infinite: found at their step, named with
their images, and never saved.

What a network goes through after such a step is lost with it, and so it costs nothing to look for
them some steps at a time, where each look makes the device wait.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from parallel.collectives import all_reduce, gather_objects, together
from system.errors import InputError
from training.state import State

STEPS_BETWEEN_LOOKS = 20  # on a GPU; on a CPU each step is looked at
# In fp16 a loss scale that is too large makes some steps fail, and is halved by each. After so many
# in a row the scale is not what is wrong with them.
MOST_SKIPPED = 20
NAMED = 3  # images, in a message


class Folder(Protocol):
    """An experiment's folder, as messages about a bad step need it."""

    last_saved: Path | None

    def describe_batch(self, losses: dict[int, float]) -> str: ...


class Step(NamedTuple):
    """A step that was not yet looked at.

    Attributes:
        number: of the epoch's steps, from 0 on.
        images: `(B,) int64`, this process's images of the batch.
        losses: `(B,) float`, of each of them.
        broken: 0-d bool, whether a gradient is NaN or infinite.
    """

    number: int
    images: Tensor
    losses: Tensor
    broken: Tensor


class PendingLosses:
    """Losses on their way into the epoch's mean over all processes. They are fetched from a GPU
    many at a time, since fetching each would make every step wait for it.

    Args:
        parameters: that are trained.
    """

    def __init__(self, state: State, parameters: Iterable[nn.Parameter], folder: Folder) -> None:
        self.state, self.folder, self.parameters = state, folder, list(parameters)
        self.steps: list[Step] = []
        self.skipped = 0  # steps of fp16, in a row

    def add(self, losses: Tensor, images: Tensor) -> None:
        """Take the losses `(B,)` of this process's images of a batch, which may be none, when the
        gradients are there.

        Raises:
            InputError: as `flush`.
        """
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        broken = ~get_total_norm(gradients).isfinite()
        self.steps.append(Step(self.state.step, images, losses.detach(), broken))
        if not losses.is_cuda or len(self.steps) == STEPS_BETWEEN_LOOKS:
            self.flush()

    def flush(self) -> None:
        """Add the losses taken so far to the mean. Nothing is to be saved before that.

        Raises:
            InputError: a loss or a gradient is NaN or infinite; names the step and its images.
        """
        steps, self.steps = self.steps, []
        sizes = [len(step.images) for step in steps]
        means = [step.losses.mean() if len(step.images) else step.losses.sum() for step in steps]
        broken = [step.broken.to(means[0]) for step in steps]
        fetched = torch.stack([*means, *broken]).tolist() if steps else []
        means, broken = fetched[: len(steps)], fetched[len(steps) :]
        sums = np.multiply(means, sizes)
        totals = all_reduce(np.array([sums, sizes, broken], np.float64)).T.tolist()
        for step, (total, size, is_broken) in zip(steps, totals, strict=True):
            mean = total / max(size, 1)
            if not math.isfinite(mean):
                self._stop(step, f"the loss became {mean}")
            self.skipped = self.skipped + 1 if is_broken else 0
            if is_broken and not self.state.scaler.is_enabled():
                self._stop(step, "the gradients became NaN or infinite")
            if self.skipped == MOST_SKIPPED:
                self._stop(
                    step, f"the gradients were NaN or infinite {MOST_SKIPPED} times in a row"
                )
            self.state.convnet_loss.update(mean, int(size))

    def _stop(self, step: Step, what: str) -> None:
        own = dict(zip(step.images.tolist(), step.losses.tolist(), strict=True))
        losses = {image: loss for part in gather_objects(own) for image, loss in part.items()}
        with together():
            raise InputError(
                f"{what} in step {step.number} of epoch {self.state.epoch} (both from 0), on "
                f"{self.folder.describe_batch(losses)}; {_advice(self.folder)}"
            )


def refuse_features(batch: int, images: Sequence[str], epoch: int) -> None:
    """Stop a run whose network gives features that are NaN or infinite. Whatever an image is, its
    pixels are 0 to 255: it is the network that has got out of hand.

    Args:
        images: names of those of the batch that have such features.

    Raises:
        InputError: always.
    """
    raise InputError(
        f"the features became NaN or infinite in batch {batch} of the pass for epoch {epoch} (both "
        f"from 0), of {name_some(images)}; go on from an earlier checkpoint, with a lower --lr"
    )


def check_weights(model: nn.Module, state: State, folder: Folder) -> None:
    """Check, before a network is saved, that it can be used.

    Raises:
        InputError: a weight is NaN or infinite.
    """
    weights = [weight for weight in model.state_dict().values() if weight.is_floating_point()]
    with together():
        if not get_total_norm(weights).isfinite():
            raise InputError(
                f"the weights became NaN or infinite, and are not saved, after {state.step} steps "
                f"of epoch {state.epoch} (from 0); {_advice(folder)}"
            )


def name_some(images: Sequence[str]) -> str:
    """Some images, in words: the first by name, of the others the number."""
    named, others = images[:NAMED], len(images) - NAMED
    return ", ".join(named) + (f" and {others:,} more" if others > 0 else "")


def _advice(folder: Folder) -> str:
    if folder.last_saved is None:
        return "nothing was saved yet; try a lower --lr"
    return f"the last good checkpoint is {folder.last_saved}: try a lower --lr from there"
