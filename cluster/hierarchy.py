"""Two-level k-means, of DeeperCluster: super-clusters, and k-means in each of them."""

from collections.abc import Sequence
from numbers import Integral
from typing import NamedTuple

import numpy as np
import torch

from cluster.kmeans import Advance, rows_by_number, sum_by_cluster
from cluster.nearest import CPU, NearestCentroid
from cluster.spherical import split_largest
from parallel.collectives import all_reduce, gather_rows, together
from system.seeding import derive_seed

ITERATIONS = 10


class Hierarchy(NamedTuple):
    """The clusters of this process's n rows.

    Attributes:
        super: `(n,) int64`, the super-cluster of each row.
        sub: `(n,) int64`, its sub-cluster within the super-cluster.
        super_centroids: `(m, d) float32`.
        sub_centroids: for each super-cluster `(k_c, d) float32`.
    """

    super: np.ndarray
    sub: np.ndarray
    super_centroids: np.ndarray
    sub_centroids: list[np.ndarray]


def hierarchical_kmeans(
    rows: np.ndarray,
    first: np.ndarray | int,
    sub_first: Sequence[np.ndarray] | int,
    iterations: int = ITERATIONS,
    seed: int = 0,
    *,
    device: torch.device = CPU,
    advance: Advance | None = None,
) -> Hierarchy:
    """Cluster rows into super-clusters, then the rows of each super-cluster (DeeperCluster, arXiv
    1905.01278).

    Both levels are Lloyd's k-means by Euclidean distance, with a last assignment after the updates.
    Under torchrun each process keeps its rows; only sums and counts travel.

    Args:
        rows: `(n, d)` float32 or float16, the rows of this process.
        first: `(m, d)` first centroids, or their number m: then m random rows of all N.
        sub_first: for each super-cluster `(k_c, d)` first centroids, or their number K: then K
            random rows of the super-cluster, or all of them if it has fewer.
        iterations: updates of the centroids. After each, an empty cluster takes half of the largest
            one; it may be empty after the last assignment.
        seed: of random first centroids.
        device: where to find the nearest centroids.
        advance: called with 1 after each update, `iterations` · (m + 1) times in all.

    Raises:
        ValueError: rows are not finite or not `(n, d)`, first centroids are not finite or not
            `(k, d)`, m is not in 1..N, K is below 1, or there are no m arrays in `sub_first`.
    """
    first = int(first) if isinstance(first, Integral) else first  # NumPy's integers, too
    sub_first = int(sub_first) if isinstance(sub_first, Integral) else sub_first
    _check(rows, first, sub_first)
    start = _first(rows, first, derive_seed(seed, "super-clusters"))
    settings = iterations, device, advance
    found, centroids = lloyd(rows, start, *settings)
    within, sub_centroids = np.zeros(len(rows), np.int64), []
    for number in range(len(centroids)):
        members = np.flatnonzero(found == number)
        own = rows[members]
        wanted = sub_first if isinstance(sub_first, int) else sub_first[number]
        start = _first(own, wanted, derive_seed(seed, "sub-clusters", number))
        within[members], moved = lloyd(own, start, *settings)
        sub_centroids.append(moved)
    return Hierarchy(found, within, centroids, sub_centroids)


def lloyd(
    rows: np.ndarray,
    first: np.ndarray,
    iterations: int,
    device: torch.device = CPU,
    advance: Advance | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """One level of `hierarchical_kmeans`: the nearest centroid of each row, `(n,) int64`, and the
    centroids `(k, d) float32`, the same in every process. k is 0 only if no process has a row."""
    search = NearestCentroid(np.ascontiguousarray(rows, np.float32), device)
    centroids = np.array(first, np.float32)
    for _ in range(iterations):
        if len(centroids) > 0:
            centroids = _updated(rows, search(centroids)[0], centroids, search.device)
        if advance is not None:
            with together():  # `advance` may raise Stopped in one process
                advance(1)
    nearest = search(centroids)[0] if len(centroids) > 0 else np.zeros(0, np.int64)
    return nearest, centroids


def _updated(
    rows: np.ndarray, nearest: np.ndarray, centroids: np.ndarray, device: torch.device
) -> np.ndarray:
    """The means of the rows of all processes by cluster, empty clusters split from the largest."""
    counts = all_reduce(np.bincount(nearest, minlength=len(centroids)))
    if not counts.any():
        return centroids
    sums = all_reduce(sum_by_cluster(rows, nearest, len(centroids), device))
    means = sums / np.maximum(counts, 1)[:, None]
    split_largest(means, counts)
    return means.astype(np.float32)


def _first(rows: np.ndarray, wanted: np.ndarray | int, seed: int) -> np.ndarray:
    """First centroids: those that are given, or so many random rows of all processes."""
    if not isinstance(wanted, int):
        return wanted
    lengths = gather_rows(np.array([len(rows)]))
    count = int(lengths.sum())
    chosen = np.random.default_rng(seed).choice(count, min(wanted, count), replace=False)
    return rows_by_number(rows, lengths, chosen)


def _check(
    rows: np.ndarray, first: np.ndarray | int, sub_first: Sequence[np.ndarray] | int
) -> None:
    if rows.ndim != 2:
        raise ValueError(f"k-means needs an (N, d) array, not one of shape {rows.shape}")
    m, count = first if isinstance(first, int) else len(first), len(rows)
    if isinstance(sub_first, int):
        if sub_first < 1:
            raise ValueError(f"k-means needs K >= 1, not K = {sub_first}")
    elif len(sub_first) != m:
        raise ValueError(f"first sub-centroids of {len(sub_first)} of {m} super-clusters")
    for given in (first, *([] if isinstance(sub_first, int) else sub_first)):
        if not isinstance(given, int):
            _check_given(given, rows.shape[1])
    total, infinite = all_reduce(np.array([count, not np.isfinite(rows).all()], np.int64))
    if not 1 <= m <= total:
        raise ValueError(f"k-means needs 1 <= m <= N, not m = {m} for N = {total} rows")
    if infinite:
        raise ValueError("k-means needs finite rows: NaN or infinity among them")


def _check_given(first: np.ndarray, dim: int) -> None:
    if first.ndim != 2 or len(first) < 1 or first.shape[1] != dim:
        raise ValueError(f"first centroids have to be (k, {dim}), not of shape {first.shape}")
    if not np.isfinite(first).all():
        raise ValueError("k-means needs finite first centroids: NaN or infinity among them")
