"""PCA-whitening and L2 normalisation of features (paper, section 4, "Implementation details").

The covariance is summed block by block, so that features can be kept in half precision, and over
all processes, so that each process keeps its own features.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_limits

from cluster.components import PAPER, PCA, Components, auto_dim, check_components, resolve
from cluster.moments import CPU, Moments, add_gram, blocks, check_shape, not_finite, raise_together
from parallel.collectives import all_reduce, gather_rows
from system.device import full_float32

__all__ = ["CPU", "PCA", "Whitening", "auto_dim", "fit_whitening", "preprocess_features"]

Change = Callable[[torch.Tensor], torch.Tensor]

LARGEST_RATIO = 3e3  # of eigenvalues: beyond it, float32 can't tell the small ones apart


@dataclass(frozen=True)
class Normalisation:
    """L2 normalisation of the rows, without a PCA."""

    components = 0

    def on(self, device: torch.device) -> Change:
        """A function of `(n, D) float32` rows on the device, to `(n, D)`."""
        return F.normalize

    def apply(self, features: np.ndarray, device: torch.device = CPU) -> np.ndarray:
        """`(N, D)` features → `(N, D) float32` rows of unit length (zero rows stay zero).

        Raises:
            ValueError: a row is not finite.
        """
        check_shape(features.shape)
        return _by_blocks(self.on(device), features, features.shape[1], device)


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

    @property
    def components(self) -> int:
        """The number of components, d."""
        return self.matrix.shape[1]

    def apply(self, features: np.ndarray, device: torch.device = CPU) -> np.ndarray:
        """`(N, D)` features → `(N, d) float32` rows of unit length (zero rows stay zero).

        Raises:
            ValueError: the features don't have D dimensions, or a row is not finite.
        """
        check_shape(features.shape, len(self.mean))
        return _by_blocks(self.on(device), features, self.components, device)

    def on(self, device: torch.device) -> Change:
        """A function of `(n, D) float32` rows on the device, to `(n, d)`."""
        mean = torch.from_numpy(self.mean).to(device)
        matrix = torch.from_numpy(self.matrix).to(device)

        def whiten(rows: torch.Tensor) -> torch.Tensor:
            with full_float32():
                return F.normalize((rows - mean) @ matrix)

        return whiten


Preparation = Whitening | Normalisation


def prepare(
    features: np.ndarray | Moments, pca: Components, device: torch.device = CPU
) -> Preparation:
    """Fit the whitening of the features of all processes; for `pca` 0, only normalise them.
    Arguments and errors as in `fit_whitening`."""
    check_components(pca)
    if pca != 0:
        return fit_whitening(features, pca, device)
    if isinstance(features, Moments):
        features.reduce()
    else:
        check_shape(features.shape)
        errors = (not_finite(rows, start) for start, rows in blocks(features, device))
        raise_together(next(filter(None, errors), None))
    return Normalisation()


def fit_whitening(
    features: np.ndarray | Moments, pca: Components = PCA, device: torch.device = CPU
) -> Whitening:
    """Fit the PCA-whitening of the features of all processes.

    Args:
        features: `(N, D)` of any floating type, or their moments.
        pca: number of components; "auto": that of `auto_dim`. If the centred features have fewer
            directions (above the rounding error of the covariance), the last components are zero.
        device: where to compute.

    Raises:
        ValueError: fewer than 2 rows, not two-dimensional, a row is not finite, or pca is below 1.
    """
    check_components(pca, least=1)
    if isinstance(features, Moments):
        return _fit_from_moments(features, pca)
    check_shape(features.shape)
    if int(all_reduce(np.array([len(features)]))[0]) <= features.shape[1]:
        return _fit_from_few(gather_rows(features), pca)
    moments = Moments(features.shape[1], device)
    for _, rows in blocks(features, device):
        moments.add(rows)
    return _fit_from_moments(moments, pca)


def preprocess_features(
    features: np.ndarray, pca: Components = PAPER, device: torch.device = CPU
) -> np.ndarray:
    """PCA-reduce, whiten and L2-normalise (paper, section 4, "Implementation details").

    Arguments and errors as in `fit_whitening`, but for `pca=0`: only normalise. Warns if `pca` is
    left out and rows are few.

    Returns:
        `(N, pca) float32` rows of unit length; a row equal to the mean becomes zero.
    """
    return prepare(features, pca, device).apply(features, device)


def _by_blocks(
    change: Change,
    features: np.ndarray,
    width: int,
    device: torch.device,
) -> np.ndarray:
    """Features `(N, D)` changed block by block: `(N, width) float32`."""
    changed = np.empty((len(features), width), np.float32)
    for start, rows in blocks(features, device):
        found = change(rows)
        if error := not_finite(found, start):
            raise error
        changed[start : start + len(rows)] = found.cpu().numpy()
    return changed


def _fit_from_moments(moments: Moments, pca: Components) -> Whitening:
    count, mean, covariance = moments.reduce()
    pca = resolve(pca, count, len(mean))
    variances, axes = _largest_eigenpairs(covariance, pca, mean)
    return _whitening(mean, axes, variances, pca)


def _fit_from_few(features: np.ndarray, pca: Components) -> Whitening:
    """For N ≤ D: the Gram matrix `(N, N)` is smaller than the covariance and has the same non-zero
    eigenvalues."""
    n = len(features)
    pca = resolve(pca, n, features.shape[1])
    rows = torch.from_numpy(features).float()
    if error := not_finite(rows, 0):
        raise error
    mean = rows.double().mean(dim=0)
    centred = rows - mean.float()
    gram = torch.zeros(n, n, dtype=torch.float64)
    add_gram(gram, centred.T)
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
