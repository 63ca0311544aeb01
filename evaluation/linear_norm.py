"""Batch norm of what a frozen network gives."""

import torch
from torch import Tensor, nn

from parallel.collectives import add_up

MOMENTUM = 0.1  # of the running statistics
EPS = 1e-5


class ChannelNorm(nn.Module):
    """Batch norm with neither scale nor shift, for inputs that want no gradient: those of
    `nn.BatchNorm2d(channels, affine=False)`, but that the statistics of a batch are over the parts
    of it that all processes have, on any device (`SyncBatchNorm` is for GPUs).

    Maps `(N, d)` rows, those of `(N, channels, h, w)` flattened, to the same. In train mode all
    processes call it together; one that has no part of a batch gives `N = 0`.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("var", torch.ones(channels))

    @torch.no_grad()
    def forward(self, rows: Tensor) -> Tensor:
        cells = rows.unflatten(1, (len(self.mean), -1))
        mean, var = self._of_batch(cells) if self.training else (self.mean, self.var)
        scale = (var + EPS).rsqrt()
        return ((cells - mean[:, None]) * scale[:, None]).flatten(1)

    def _of_batch(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel of `(N, channels, h·w)`, which the running ones move
        towards."""
        count = add_up(torch.full((), float(len(cells) * cells.shape[2]), device=cells.device))
        mean = add_up(cells.sum((0, 2))) / count.clamp(min=1)
        squares = add_up((cells - mean[:, None]).square_().sum((0, 2)))
        momentum = MOMENTUM * (count > 1)  # a single value says nothing of the variance
        self.mean.lerp_(mean, momentum)
        self.var.lerp_(squares / (count - 1).clamp(min=1), momentum)
        return mean, squares / count.clamp(min=1)
