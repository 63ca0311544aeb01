"""PCA-whitening and L2 normalisation of features (paper, section 4, "Implementation details").

The covariance is summed block by block, so that features can be kept in half precision, and over
all processes, so that each process keeps its own features.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_limits

from parallel.collectives import all_reduce, gather_rows, world_size
from system.device import full_float32

PCA = 256  # components
BLOCK = 4096  # rows converted to float32 at a time
LARGEST_RATIO = 3e3  # of eigenvalues: beyond it, float32 can't tell the small ones apart
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Whitening:
    """A fitted PCA-whitening, followed by L2 normalisation of the rows.

    Attributes:
        mean: `(D,) float32`, subtracted first.
        matrix: `(D, d) float32`, the principal axes, each divided by the standard deviation
            along it; the last columns are zero if the features have fewer than d directions.
    """

    mean: np.ndarray
    matrix: np.ndarray

    def apply(self, features: np.ndarray, device: torch.device = CPU) -> np.ndarray:
        """`(N, D)` features → `(N, d) float32` rows of unit length (zero rows stay zero).

        Raises:
            ValueError: the features don't have D dimensions, or a row is not finite.
        """
        _check_shape(features.shape, len(self.mean))
        reduced = np.empty((len(features), self.matrix.shape[1]), np.float32)
        mean = torch.from_numpy(self.mean).to(device)
        matrix = torch.from_numpy(self.matrix).to(device)
        for start, rows in _blocks(features, device):
            rows -= mean
            with full_float32():
                white = F.normalize(rows @ matrix)
            if error := _not_finite(white, start):
                raise error
            reduced[start : start + len(rows)] = white.cpu().numpy()
        return reduced


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
        self._error: ValueError | None = None

    @torch.inference_mode()
    def add(self, rows: torch.Tensor) -> None:
        """Add `(n, D)` rows of any floating type.

        Raises:
            ValueError: the rows don't have D dimensions.
        """
        _check_shape(rows.shape, len(self._sum))
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
        if all_reduce(np.array([self._error is not None], np.int64))[0]:
            raise self._error or ValueError("features: a row of another process is not finite")
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
            self._shift = torch.where(torch.isfinite(mean), mean, 0)  # keeps the good rows finite
        rows -= self._shift
        sums = rows.sum(dim=0)
        if not torch.isfinite(sums).all() and self._error is None:
            # raised in `reduce`, by all processes together
            self._error = _not_finite(rows, self._count)
        _add_gram(self._scatter, rows)
        self._sum += sums
        self._count += len(rows)


def fit_whitening(
    features: np.ndarray | Moments, pca: int = PCA, device: torch.device = CPU
) -> Whitening:
    """Fit the PCA-whitening of the features of all processes.

    Args:
        features: `(N, D)` of any floating type, or their moments.
        pca: number of components. If the centred features have fewer directions (above the rounding
            error of the covariance), the last components are zero.
        device: where to compute.

    Raises:
        ValueError: fewer than 2 rows, not two-dimensional, a row is not finite, or pca is below 1.
    """
    if pca < 1:
        raise ValueError(f"PCA needs at least 1 component, not pca = {pca}")
    if isinstance(features, Moments):
        return _fit_from_moments(features, pca)
    _check_shape(features.shape)
    if int(all_reduce(np.array([len(features)]))[0]) <= features.shape[1]:
        return _fit_from_few(gather_rows(features), pca)
    moments = Moments(features.shape[1], device)
    for _, rows in _blocks(features, device):
        moments.add(rows)
    return _fit_from_moments(moments, pca)


def preprocess_features(
    features: np.ndarray, pca: int = PCA, device: torch.device = CPU
) -> np.ndarray:
    """PCA-reduce, whiten and L2-normalise (paper, section 4, "Implementation details").

    Arguments and errors as in `fit_whitening`.

    Returns:
        `(N, pca) float32` rows of unit length; a row equal to the mean becomes zero.
    """
    return fit_whitening(features, pca, device).apply(features, device)


def _fit_from_moments(moments: Moments, pca: int) -> Whitening:
    count, mean, covariance = moments.reduce()
    if count < 2:
        raise ValueError(f"PCA needs at least 2 rows, not {count}")
    variances, axes = _largest_eigenpairs(covariance, pca, mean)
    return _whitening(mean, axes, variances, pca)


def _fit_from_few(features: np.ndarray, pca: int) -> Whitening:
    """For N ≤ D: the Gram matrix `(N, N)` is smaller than the covariance and has the same non-zero
    eigenvalues."""
    n = len(features)
    if n < 2:
        raise ValueError(f"PCA needs at least 2 rows, not {n}")
    rows = torch.from_numpy(features).float()
    if error := _not_finite(rows, 0):
        raise error
    mean = rows.double().mean(dim=0)
    centred = rows - mean.float()
    gram = torch.zeros(n, n, dtype=torch.float64)
    _add_gram(gram, centred.T)
    variances, vectors = _largest_eigenpairs(gram / n, pca, mean)
    axes = centred.numpy().T @ (vectors / np.sqrt(n * variances)).astype(np.float32)
    return _whitening(mean, axes, variances, pca)


def _whitening(mean: torch.Tensor, axes: np.ndarray, variances: np.ndarray, pca: int) -> Whitening:
    matrix = np.zeros((len(mean), pca), np.float32)
    matrix[:, : len(variances)] = axes / np.sqrt(variances)
    return Whitening(mean.float().cpu().numpy(), matrix)


def _largest_eigenpairs(
    matrix: torch.Tensor, count: int, mean: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues `(c,) float64`, descending, and eigenvectors `(n, c)`, c ≤ count, of
    the covariance or Gram matrix (float64) of features with this mean.

    Leaves out eigenvalues below the rounding error of the float32 products and of the features:
    whitening would blow this noise up to the size of the signal.
    """
    if not torch.isfinite(matrix.diagonal()).all():
        raise ValueError("features: too large for products in float32; scale them down")
    count = min(count, len(matrix))
    if matrix.device.type == "cuda":
        values, vectors = (a[..., -count:].cpu().numpy() for a in torch.linalg.eigh(matrix))
    else:
        values, vectors = _eigh(matrix.numpy(), count)
    values, vectors = values[::-1], vectors[:, ::-1]
    eps = float(np.finfo(np.float32).eps)
    floor = max(eps * values[0], eps**2 * float(mean @ mean))
    above = int((values > floor).sum())
    return values[:above], vectors[:, :above]


def _eigh(matrix: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` largest eigenpairs, ascending. They are found in float32, which takes half the
    time, and refined in float64 (a power iteration and Rayleigh–Ritz). If the largest eigenvalue
    dwarfs the others, all is in float64."""
    values, basis = _lapack_eigh(matrix.astype(np.float32), count)
    if values[-1] > LARGEST_RATIO * values[0]:
        return _lapack_eigh(matrix, count)
    basis, _ = np.linalg.qr(matrix @ basis)
    values, rotation = np.linalg.eigh(basis.T @ matrix @ basis)
    return values, basis @ rotation


def _lapack_eigh(matrix: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    n = len(matrix)
    # One thread: the reduction to tridiagonal form has thousands of barriers. Two threads are 1.5
    # times faster on an idle machine, but ten times slower beside another busy program. The
    # transpose is the same matrix in LAPACK's memory order.
    with threadpool_limits(1):
        return scipy.linalg.eigh(
            matrix.T, subset_by_index=[n - count, n - 1], overwrite_a=True, check_finite=False
        )


def _add_gram(total: torch.Tensor, rows: torch.Tensor) -> None:
    """Add `rows.T @ rows`, `(D, D) float32`, to a float64 total. On a CPU, NumPy uses the product's
    symmetry (half the work) and adds without a float64 copy."""
    if rows.device.type == "cpu":
        sums, factor = total.numpy(), rows.numpy()
        with np.errstate(over="ignore", invalid="ignore"):  # checked later
            sums += factor.T @ factor
    else:
        with full_float32():
            total += rows.T @ rows


def _blocks(features: np.ndarray, device: torch.device) -> Iterator[tuple[int, torch.Tensor]]:
    """Blocks of rows in float32 on the device, each with the number of its first row. All blocks
    share the same memory."""
    block = torch.empty(min(BLOCK, len(features)), features.shape[1], device=device)
    for start in range(0, len(features), BLOCK):
        part = torch.from_numpy(features[start : start + BLOCK])
        yield start, block[: len(part)].copy_(part)


def _check_shape(shape: tuple[int, ...], dim: int | None = None) -> None:
    if len(shape) != 2 or shape[1] < 1 or (dim is not None and shape[1] != dim):
        wanted = "D" if dim is None else dim
        raise ValueError(f"PCA needs an (N, {wanted}) array, not one of shape {tuple(shape)}")


def _not_finite(rows: torch.Tensor, start: int) -> ValueError | None:
    """The error that names the first row with NaN or infinity, counting from `start`, if any."""
    finite = torch.isfinite(rows.sum(dim=1))
    if finite.all():
        return None
    first = start + int(torch.nonzero(~finite)[0, 0])
    return ValueError(f"features: row {first} is not finite (NaN, infinite or too large)")
