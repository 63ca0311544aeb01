"""A run's place: all that a checkpoint keeps beside the network, the optimiser and the method."""

from dataclasses import dataclass, field
from typing import Any

from torch.amp import GradScaler


class AverageMeter:
    """A running mean `avg` = `sum` / `count`, and the last value `val`."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start over at 0."""
        self.val = self.sum = 0.0
        self.count = 0

    def update(self, val: float, n: int = 1) -> None:
        """Add a value with weight `n`."""
        self.val = val
        self.sum += val * n
        self.count += n

    @property
    def avg(self) -> float:
        return self.sum / self.count if self.count else 0.0


@dataclass
class State:
    """The place of a run.

    Attributes:
        epoch: the current epoch, or the next one.
        step: number of batches done in this epoch.
        iteration: number of batches done in all epochs.
        convnet_loss: mean over the samples of this epoch so far.
        knn_top1: accuracy of the nearest-neighbour probe, by number of neighbours, with the network
            before this epoch; None without `--probe`.
        scaler: scales gradients in fp16.
    """

    epoch: int
    step: int = 0
    iteration: int = 0
    convnet_loss: AverageMeter = field(default_factory=AverageMeter)
    knn_top1: dict[str, float] | None = None
    scaler: GradScaler = field(default_factory=lambda: GradScaler(enabled=False))

    def finish_epoch(self) -> None:
        """Move to the start of the next epoch."""
        self.epoch, self.step = self.epoch + 1, 0

    def to_plain(self) -> dict[str, Any]:
        """The state as a checkpoint keeps it."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "iteration": self.iteration,
            "convnet_loss": [self.convnet_loss.sum, self.convnet_loss.count],
            "knn_top1": self.knn_top1,
            "grad_scaler": self.scaler.state_dict(),  # empty unless in fp16
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "State":
        """The state in a checkpoint; a released one has only an epoch. A malformed one can raise
        anything."""
        state = cls(int(plain["epoch"]))
        if "step" in plain:
            state.step, state.iteration = plain["step"], plain["iteration"]
            state.convnet_loss.sum, state.convnet_loss.count = plain["convnet_loss"]
            # between two epochs, it is that of the epoch that has ended
            state.knn_top1 = plain.get("knn_top1") if state.step > 0 else None
        return state
