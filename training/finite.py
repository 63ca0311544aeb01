"""NaN and infinity in losses, gradients, features and weights stop a run, and are never saved."""

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

STEPS_BETWEEN_LOOKS = 20  # on a GPU, where each look waits for the device; 1 on a CPU
# In fp16 a step overflows if the loss scale is too large: the step is skipped and the scale is
# halved. After so many skipped steps in a row, the scale isn't the cause.
MOST_SKIPPED = 20


class PendingLosses:
    """Losses that are not yet in the epoch's mean over all processes.

    Args:
        parameters: the trained ones, whose gradients are checked.
        folder: has the path of the last good checkpoint, for messages.

    Attributes:
        steps: for each pending step its number in the epoch, the number of images, and `(2,)
            float`: their mean loss, and 1 if a gradient is NaN or infinite, else 0.
        skipped: number of fp16 steps skipped in a row.
    """

    def __init__(
        self, state: State, parameters: Iterable[nn.Parameter], folder: Experiment | Bystander
    ) -> None:
        self.state, self.folder, self.parameters = state, folder, list(parameters)
        self.steps: list[tuple[int, int, Tensor]] = []
        self.skipped = 0

    def add(self, losses: Tensor) -> None:
        """Add the losses `(B,)` of this process's share of a batch, which may be empty. Call it
        after the backward pass.

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
        """Check the pending losses and add them to the mean. Call it before each save.

        Raises:
            InputError: a loss or a gradient is NaN or infinite; names the step.
        """
        if not self.steps:  # all processes have the same number of pending steps
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
    """Raise InputError if a weight is NaN or infinite. Call it before each save."""
    weights = [weight for weight in model.state_dict().values() if weight.is_floating_point()]
    with together():
        if not get_total_norm(weights).isfinite():
            place = f"after {state.step} steps of epoch {state.epoch} (from 0)"
            stop(f"the weights became NaN or infinite, and are not saved, {place}", folder)


def stop(reason: str, folder: Experiment | Bystander) -> NoReturn:
    """Raise InputError with a reason and the last good checkpoint."""
    saved = folder.last_saved
    advice = f"the last good checkpoint is {saved}: try a lower --lr from there"
    raise InputError(f"{reason}; {advice if saved else 'nothing was saved yet; try a lower --lr'}")
