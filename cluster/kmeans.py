"""k-means in one process or several: the loop of `faiss.contrib.clustering` over the rows of all
processes."""

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import scipy.sparse
import torch
from faiss.contrib import clustering as faiss_clustering

from cluster.nearest import CPU, NearestCentroid
from parallel.collectives import all_reduce, gather_rows, rank, together
from system.device import select_compute

ITERATIONS = 20
SAMPLE = 20  # points per cluster that k-means++ and AFK-MC² choose from
BLOCK = 16384  # points that are in float64 at a time
CACHED = 2**18  # values in float64 that stay in a CPU's cache

INITIALISATIONS = {
    "random": None,
    "kmeans++": faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
    "afkmc2": faiss.ClusteringInitMethod_AFK_MC2,
}

Advance = Callable[[int], None]


@dataclass(frozen=True)
class KmeansOptions:
    """Variants of k-means that Faiss offers.

    Attributes:
        init: the first centroids: `random` points (as in the paper), `kmeans++`, or its fast
            approximation `afkmc2`; the latter two choose from a random sample of 20 points per
            cluster.
        spherical: keep the centroids at unit length.
        float16, scratch_mib: as in `NearestCentroid`.
    """

    init: str = "random"
    spherical: bool = False
    float16: bool = False
    scratch_mib: int | None = None


PLAIN = KmeansOptions()


@dataclass(frozen=True)
class KmeansResult:
    """The clusters of the points of all processes, in the order of the ranks."""

    assignment: np.ndarray  # (N,) int64; a cluster may be empty
    loss: float  # sum of squared distances to the centroids in the last iteration
    centroids: np.ndarray  # (k, d) float32


def run_kmeans(
    x: np.ndarray, nmb_clusters: int, verbose: bool = False, seed: int = 0
) -> tuple[np.ndarray, float]:
    """Faiss k-means, 20 iterations on every point, on the CPU or all visible GPUs.

    Args:
        x: `(N, d) float32`; under torchrun the points of this process.
        nmb_clusters: k, at most N.
        verbose: print each iteration.
        seed: of the initial centroids.

    Returns:
        `assignment` and `loss`, as in `KmeansResult`.

    Raises:
        ValueError: k is not in 2..N, x is not two-dimensional or not finite.
    """
    result = train_kmeans(x, nmb_clusters, verbose=verbose, seed=seed)
    return result.assignment, result.loss


def train_kmeans(
    x: np.ndarray,
    k: int,
    *,
    verbose: bool = False,
    seed: int = 0,
    options: KmeansOptions = PLAIN,
    device: torch.device | None = None,
    advance: Advance | None = None,
) -> KmeansResult:
    """`run_kmeans` with all its settings.

    Args:
        device: where to find the nearest centroids; None takes a GPU if there is one. In a single
            process, `cuda` without a number means all visible GPUs.
        advance: called with 1 after each iteration.

    Raises:
        ValueError: as `run_kmeans`, or an unknown `options.init`.
    """
    points = _Points(x, k, seed, options, device or select_compute().device, advance)
    # Faiss prints a line even if it is not verbose
    quiet = contextlib.nullcontext() if verbose else contextlib.redirect_stdout(io.StringIO())
    with quiet:
        centroids, stats = faiss_clustering.kmeans(
            k, points, niter=ITERATIONS, seed=seed % 2**32, verbose=verbose, return_stats=True
        )
    centroids = points.placed(centroids)
    nearest, _ = points.search(centroids)
    return KmeansResult(gather_rows(nearest), float(stats[-1]["obj"]), centroids)


class _Points:
    """The points of all processes, with the `DatasetAssign` interface of `faiss.contrib`. Each
    process searches its own points and exchanges only sums and counts."""

    def __init__(
        self,
        x: np.ndarray,
        k: int,
        seed: int,
        options: KmeansOptions,
        device: torch.device,
        advance: Advance | None,
    ) -> None:
        if x.ndim != 2:
            raise ValueError(f"k-means needs an (N, d) array, not one of shape {x.shape}")
        self.x = np.ascontiguousarray(x, np.float32)
        self.lengths = gather_rows(np.array([len(x)]))
        if not 2 <= k <= self.count():
            raise ValueError(
                f"k-means needs 2 <= k <= N, not k = {k} for N = {self.count()} points"
            )
        if all_reduce(np.array([not np.isfinite(self.x).all()], np.int64))[0]:
            raise ValueError("k-means needs finite points: NaN or infinity among them")
        if options.init not in INITIALISATIONS:
            raise ValueError(f"init {options.init!r}: give one of {', '.join(INITIALISATIONS)}")
        self.seed, self.options, self.advance = seed, options, advance
        self.search = NearestCentroid(self.x, device, options.float16, options.scratch_mib)

    def count(self) -> int:
        return int(self.lengths.sum())

    def dim(self) -> int:
        return self.x.shape[1]

    def get_subset(self, indices: np.ndarray) -> np.ndarray:
        """The initial centroids: the randomly drawn points, or as many of a better choice."""
        method = INITIALISATIONS[self.options.init]
        if method is None:
            return rows_by_number(self.x, self.lengths, indices)
        k, n = len(indices), self.count()
        rng = np.random.default_rng(self.seed)
        chosen = rng.choice(n, min(n, SAMPLE * k), replace=False)
        sample = rows_by_number(self.x, self.lengths, chosen)
        chooser: Any = faiss.ClusteringInitialization(self.dim(), k)  # type: ignore[attr-defined]
        chooser.method, chooser.seed = method, self.seed % 2**31
        centroids = np.empty((k, self.dim()), np.float32)
        chooser.init_centroids(len(sample), faiss.swig_ptr(sample), faiss.swig_ptr(centroids))
        return centroids

    def assign_to(
        self, centroids: np.ndarray, weights: None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        nearest, distances = self.search(self.placed(centroids))
        sums = sum_by_cluster(self.x, nearest, len(centroids), self.search.device)
        counts = all_reduce(np.bincount(nearest, minlength=len(centroids)))
        loss = all_reduce(np.array([distances.sum(dtype=np.float64)]))
        if self.advance is not None:
            with together():  # `advance` may raise Stopped in one process
                self.advance(1)
        # Faiss only counts the members and sums the distances, so any assignment with the counts of
        # all processes will do
        return np.repeat(np.arange(len(centroids)), counts), loss, all_reduce(sums)

    def placed(self, centroids: np.ndarray) -> np.ndarray:
        """The centroids, at unit length if `spherical`."""
        centroids = np.ascontiguousarray(centroids, np.float32)
        if self.options.spherical:
            faiss.normalize_L2(centroids)
        return centroids


def rows_by_number(x: np.ndarray, lengths: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Rows by their number among those of all processes, the same in every process.

    Args:
        x: `(n, d)`, this process's rows.
        lengths: `(W,) int64`, the number of rows of each process.
        numbers: `(k,) int64`.

    Returns:
        `(k, d) float32`.
    """
    local = numbers - lengths[: rank()].sum()
    here = (local >= 0) & (local < len(x))
    rows = np.zeros((len(numbers), x.shape[1]), np.float32)
    rows[here] = x[local[here]]
    return all_reduce(rows)


def sum_by_cluster(
    x: np.ndarray, assignment: np.ndarray, k: int, device: torch.device = CPU
) -> np.ndarray:
    """The sum `(k, d) float64` of the points `(N, d)` of each cluster. In float64 it hardly depends
    on the order, and so on how the points are spread over processes."""
    add = _add_with_torch if device.type == "cuda" else _add_with_scipy
    on = device if device.type == "cuda" else CPU  # MPS has no float64
    # With more sums than that, adding those of a small block would cost more than its rows
    small = on.type == "cpu" and k * x.shape[1] <= CACHED
    block = min(BLOCK, max(1, CACHED // x.shape[1])) if small else BLOCK
    sums = torch.zeros(k, x.shape[1], dtype=torch.float64, device=on)
    for start in range(0, len(x), block):
        rows = slice(start, start + block)
        add(sums, torch.from_numpy(x[rows]), torch.from_numpy(assignment[rows]))
    return sums.cpu().numpy()


def _add_with_torch(sums: torch.Tensor, x: torch.Tensor, assignment: torch.Tensor) -> None:
    sums.index_add_(0, assignment.to(sums.device), x.to(sums.device).double())


def _add_with_scipy(sums: torch.Tensor, x: torch.Tensor, assignment: torch.Tensor) -> None:
    """Ten times faster than torch on a CPU."""
    columns, ones = np.arange(len(x) + 1), np.ones(len(x))
    members = scipy.sparse.csc_matrix((ones, assignment.numpy(), columns), (len(sums), len(x)))
    sums += torch.from_numpy(members @ x.double().numpy())
