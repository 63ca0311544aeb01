"""The mean and covariance of features that arrive in blocks, over all processes."""

from collections.abc import Iterator

import numpy as np
import torch

from parallel.collectives import all_reduce, world_size
from system.device import full_float32

BLOCK = 4096  # rows converted to float32 at a time
CPU = torch.device("cpu")


class Moments:
    """The mean and covariance of feature rows that arrive in blocks.

    Products are in float32, sums in float64. To keep precision where the mean is large, the mean of
    the first block is subtracted from all rows.

    Args:
        dim: D.
        device: where to compute.
    """

    def __init__(self, dim: int, device: torch.device = CPU) -> None:
        self._device = CPU if device.type == "mps" else device  # MPS has no float64
        self._count = 0
        self._shift = torch.zeros(dim, device=self._device)
        self._sum = torch.zeros(dim, dtype=torch.float64, device=self._device)
        self._scatter = torch.zeros(dim, dim, dtype=torch.float64, device=self._device)
        self._block = torch.empty(BLOCK, dim, device=self._device)
        self._waiting = 0  # rows in the block
        self._bad = torch.tensor(-1, device=self._device)  # the first row that is not finite

    @torch.inference_mode()
    def add(self, rows: torch.Tensor) -> None:
        """Add `(n, D)` rows of any floating type.

        Raises:
            ValueError: the rows don't have D dimensions.
        """
        check_shape(rows.shape, len(self._sum))
        for part in rows.split(BLOCK):
            if self._waiting + len(part) > BLOCK:
                self._flush()
            self._block[self._waiting : self._waiting + len(part)] = part
            self._waiting += len(part)

    @torch.inference_mode()
    def reduce(self) -> tuple[int, torch.Tensor, torch.Tensor]:
        """The number of rows, their mean `(D,) float64` and covariance `(D, D) float64`, over all
        processes. Call it once only: it works in place.

        Raises:
            ValueError: a row of any process is not finite.
        """
        self._flush()
        bad = int(self._bad)
        raise_together(_row_error(bad) if bad >= 0 else None)
        count = int(all_reduce(np.array([self._count]))[0])
        offset = self._sum / max(self._count, 1)
        own_mean = self._shift.double() + offset
        mean = torch.from_numpy(all_reduce((self._count * own_mean).cpu().numpy())) / max(count, 1)
        mean = mean.to(self._device)
        self._scatter.addr_(offset, offset, alpha=-self._count)
        if world_size() > 1:
            self._scatter.addr_(own_mean - mean, own_mean - mean, alpha=self._count)
            total = torch.from_numpy(all_reduce(self._scatter.cpu().numpy()))
            self._scatter = total.to(self._device)
        return count, mean, self._scatter.div_(max(count, 1))

    def _flush(self) -> None:
        if self._waiting == 0:
            return
        rows = self._block[: self._waiting]
        self._waiting = 0
        if self._count == 0:
            mean = rows.mean(dim=0)
            zero = torch.zeros_like(mean)
            self._shift = torch.where(torch.isfinite(mean), mean, zero)  # keeps good rows finite
        rows -= self._shift
        # raised in `reduce`, by all processes together; here the host would wait for the device
        bad = ~torch.isfinite(rows.sum(dim=1))
        first = self._count + bad.int().argmax()
        self._bad = torch.where(bad.any() & (self._bad < 0), first, self._bad)
        add_gram(self._scatter, rows)
        self._sum += rows.sum(dim=0)
        self._count += len(rows)


def add_gram(total: torch.Tensor, rows: torch.Tensor) -> None:
    """Add `rows.T @ rows`, `(D, D) float32`, to a float64 total. On a CPU, NumPy uses the product's
    symmetry (half the work) and adds without a float64 copy."""
    if rows.device.type == "cpu":
        sums, factor = total.numpy(), rows.numpy()
        with np.errstate(over="ignore", invalid="ignore"):  # checked later
            sums += factor.T @ factor
    else:
        with full_float32():
            total += rows.T @ rows


def blocks(features: np.ndarray, device: torch.device) -> Iterator[tuple[int, torch.Tensor]]:
    """Blocks of rows in float32 on the device, each with the number of its first row. All blocks
    share the same memory."""
    block = torch.empty(min(BLOCK, len(features)), features.shape[1], device=device)
    for start in range(0, len(features), BLOCK):
        part = torch.from_numpy(features[start : start + BLOCK])
        # converted on the device: half precision is half of what travels
        yield start, block[: len(part)].copy_(part.to(device))


def check_shape(shape: tuple[int, ...], dim: int | None = None) -> None:
    if len(shape) != 2 or shape[1] < 1 or (dim is not None and shape[1] != dim):
        wanted = "D" if dim is None else dim
        raise ValueError(f"PCA needs an (N, {wanted}) array, not one of shape {tuple(shape)}")


def not_finite(rows: torch.Tensor, start: int) -> ValueError | None:
    """The error that names the first row with NaN or infinity, counting from `start`, if any."""
    finite = torch.isfinite(rows.sum(dim=1))
    if finite.all():
        return None
    return _row_error(start + int(torch.nonzero(~finite)[0, 0]))


def _row_error(row: int) -> ValueError:
    return ValueError(f"features: row {row} is not finite (NaN, infinite or too large)")


def raise_together(error: ValueError | None) -> None:
    """Raise a ValueError in every process if one of them has an error."""
    if all_reduce(np.array([error is not None], np.int64))[0]:
        raise error or ValueError("features: a row of another process is not finite")
