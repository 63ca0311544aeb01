"""NaN and infinity in losses, gradients, features and weights stop a run, and are never saved.

All that comes after such a step is lost with it. So on a GPU, where each look makes the device
wait, some steps are looked at together.
"""

import math
from collections.abc import Iterable
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from parallel.collectives import all_reduce, together
from system.errors import InputError
from training.experiment import Bystander, Experiment
from training.state import State

STEPS_BETWEEN_LOOKS = 20  # on a GPU; on a CPU each step is looked at
# In fp16 a step fails where the loss scale is too large, which halves the scale. After so many in a
# row the scale is not the cause.
MOST_SKIPPED = 20


class PendingLosses:
    """Losses on their way into the epoch's mean over all processes.

    Args:
        parameters: that are trained.
        folder: knows the last good checkpoint.

    Attributes:
        steps: not yet looked at: the number in the epoch, from 0 on; the number of images; `(2,)
            float`, the mean of their losses, and 1 if a gradient is NaN or infinite, else 0.
        skipped: steps of fp16, in a row.
    """

    def __init__(
        self, state: State, parameters: Iterable[nn.Parameter], folder: Experiment | Bystander
    ) -> None:
        self.state, self.folder, self.parameters = state, folder, list(parameters)
        self.steps: list[tuple[int, int, Tensor]] = []
        self.skipped = 0

    def add(self, losses: Tensor) -> None:
        """Take the losses `(B,)` of this process's images of a batch, which may be none, when the
        gradients are there.

        Raises:
            InputError: as `flush`.
        """
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        broken = ~get_total_norm(gradients).isfinite()
        mean = losses.detach().mean() if len(losses) else losses.detach().sum()
        self.steps.append((self.state.step, len(losses), torch.stack([mean, broken.to(mean)])))
        if not losses.is_cuda or len(self.steps) == STEPS_BETWEEN_LOOKS:
            self.flush()

    def flush(self) -> None:
        """Add the losses taken so far to the mean. Call it before a checkpoint is saved.

        Raises:
            InputError: a loss or a gradient is NaN or infinite; names the step.
        """
        if not self.steps:  # as in every process
            return
        numbers, sizes, values = zip(*self.steps, strict=True)
        self.steps = []
        means, broken = torch.stack(values).T.tolist()
        sums = np.multiply(means, sizes)
        totals = all_reduce(np.array([sums, sizes, broken], np.float64)).T.tolist()
        most = MOST_SKIPPED if self.state.scaler.is_enabled() else 1
        for number, (total, size, is_broken) in zip(numbers, totals, strict=True):
            place = f"in step {number} of epoch {self.state.epoch} (both from 0)"
            mean = total / max(size, 1)
            if not math.isfinite(mean):
                stop(f"the loss became {mean} {place}", self.folder)
            self.skipped = self.skipped + 1 if is_broken else 0
            if self.skipped == most:
                in_a_row = f", {most} times in a row, the last" if most > 1 else ""
                stop(f"the gradients became NaN or infinite{in_a_row} {place}", self.folder)
            self.state.convnet_loss.update(mean, int(size))


def check_weights(model: nn.Module, state: State, folder: Experiment | Bystander) -> None:
    """Check a network before it is saved.

    Raises:
        InputError: a weight is NaN or infinite.
    """
    weights = [weight for weight in model.state_dict().values() if weight.is_floating_point()]
    with together():
        if not get_total_norm(weights).isfinite():
            place = f"after {state.step} steps of epoch {state.epoch} (from 0)"
            stop(f"the weights became NaN or infinite, and are not saved, {place}", folder)


def stop(reason: str, folder: Experiment | Bystander) -> NoReturn:
    """Stop the run, and name the last good checkpoint.

    Raises:
        InputError: always.
    """
    saved = folder.last_saved
    advice = f"the last good checkpoint is {saved}: try a lower --lr from there"
    raise InputError(f"{reason}; {advice if saved else 'nothing was saved yet; try a lower --lr'}")
