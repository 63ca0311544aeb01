"""How much nearer rows are to their own cluster than to the next one."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.metrics import euclidean_distances

from cluster.kmeans import rows_by_number
from parallel.collectives import all_reduce, gather_rows, rank

SAMPLE = 1000  # rows whose silhouette is measured
BLOCK = 4096  # rows that they are compared with at a time


def silhouette(
    rows: np.ndarray, clusters: np.ndarray, sample: int = SAMPLE, seed: int = 0
) -> float:
    """Mean silhouette coefficient of a random sample of the rows (Rousseeuw, 1987), −1..1: how much
    nearer a row is to its own cluster than to the next one, by its mean Euclidean distance to
    *all* rows of each. 0 for fewer than two clusters.

    Args:
        rows: `(n, d) float32`; under torchrun the rows of this process.
        clusters: `(N,) int64`, the cluster (≥ 0) of each row of all processes.
        sample: number of rows that are drawn; all, if there are fewer.
        seed: of the sample.
    """
    return silhouettes(rows, [clusters], sample, seed)[0]


def silhouettes(
    rows: np.ndarray, clusterings: Sequence[np.ndarray], sample: int = SAMPLE, seed: int = 0
) -> list[float]:
    """The `silhouette` of each of several clusterings, all by the same sample, whose distances are
    computed once."""
    count = len(clusterings[0])
    rng = np.random.default_rng(seed)
    chosen = rng.choice(count, min(sample, count), replace=False)
    lengths = gather_rows(np.array([len(rows)]))
    first = lengths[: rank()].sum()
    points = rows_by_number(rows, lengths, chosen)
    coded = [np.unique(each, return_inverse=True, return_counts=True)[1:] for each in clusterings]
    here = [(numbers[first : first + len(rows)], len(sizes)) for numbers, sizes in coded]
    sums = _sum_distances(points, rows, here)
    return [
        _mean(all_reduce(own), numbers[chosen], sizes)
        for own, (numbers, sizes) in zip(sums, coded, strict=True)
    ]


def _mean(sums: np.ndarray, clusters: np.ndarray, sizes: np.ndarray) -> float:
    """The mean silhouette of m points.

    Args:
        sums: `(m, k) float64`, of the distances to the rows of each cluster.
        clusters: `(m,) int64`. `sizes`: `(k,) int64`.
    """
    if len(sizes) < 2:
        return 0.0
    own = np.arange(len(clusters)), clusters
    size = sizes[clusters]
    within = sums[own] / np.maximum(size - 1, 1)
    means = sums / sizes
    means[own] = np.inf
    next_one = means.min(axis=1)
    larger = np.maximum(within, next_one)
    defined = (size > 1) & (larger > 0)  # 0 for a row alone in its cluster
    return float(np.where(defined, (next_one - within) / np.where(defined, larger, 1), 0).mean())


def _sum_distances(
    points: np.ndarray, rows: np.ndarray, clusterings: Sequence[tuple[np.ndarray, int]]
) -> list[np.ndarray]:
    """The sums `(m, k) float64` of the distances of each of m points to the rows of each cluster,
    for each clustering: the clusters of the rows, and k."""
    sums = [np.zeros((len(points), k)) for _, k in clusterings]
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        distances = euclidean_distances(points, block)
        ones, ends = np.ones(len(block)), np.arange(len(block) + 1)
        for total, (clusters, k) in zip(sums, clusterings, strict=True):
            numbers = clusters[start : start + BLOCK]
            total += distances @ csr_matrix((ones, numbers, ends), (len(block), k))
    return sums
