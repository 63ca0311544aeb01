"""Batch norm for the activations of a frozen network."""

import torch
from torch import Tensor, nn

from parallel.collectives import add_up

MOMENTUM = 0.1  # of the running statistics
EPS = 1e-5


class ChannelNorm(nn.Module):
    """`nn.BatchNorm2d(channels, affine=False)` for inputs without gradients, with statistics over
    the parts of a batch in all processes, on any device (`SyncBatchNorm` needs GPUs).

    Maps rows `(N, d)`, flattened from `(N, channels, h, w)`, to rows. In train mode all processes
    call it together, with `N = 0` where a process has no part of the batch.
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
        """Mean and variance of each channel of `(N, channels, h·w)`; updates the running ones."""
        count = add_up(torch.full((), float(len(cells) * cells.shape[2]), device=cells.device))
        mean = add_up(cells.sum((0, 2))) / count.clamp(min=1)
        squares = add_up((cells - mean[:, None]).square_().sum((0, 2)))
        momentum = MOMENTUM * (count > 1)  # a single value has no variance
        self.mean.lerp_(mean, momentum)
        self.var.lerp_(squares / (count - 1).clamp(min=1), momentum)
        return mean, squares / count.clamp(min=1)
