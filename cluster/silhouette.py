"""How much nearer rows are to their own cluster than to the next one."""

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
    _, clusters, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        return 0.0
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(clusters), min(sample, len(clusters)), replace=False)
    lengths = gather_rows(np.array([len(rows)]))
    first = lengths[: rank()].sum()
    points = rows_by_number(rows, lengths, chosen)
    sums = all_reduce(_sum_distances(points, rows, clusters[first : first + len(rows)], len(sizes)))
    own = np.arange(len(chosen)), clusters[chosen]
    size = sizes[clusters[chosen]]
    within = sums[own] / np.maximum(size - 1, 1)
    means = sums / sizes
    means[own] = np.inf
    next_one = means.min(axis=1)
    larger = np.maximum(within, next_one)
    defined = (size > 1) & (larger > 0)  # 0 for a row alone in its cluster
    return float(np.where(defined, (next_one - within) / np.where(defined, larger, 1), 0).mean())


def _sum_distances(
    points: np.ndarray, rows: np.ndarray, clusters: np.ndarray, k: int
) -> np.ndarray:
    """The sum `(m, k) float64` of the distances of each of m points to the rows of each cluster."""
    sums = np.zeros((len(points), k))
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        distances = euclidean_distances(points, block)
        ends = np.arange(len(block) + 1)
        numbers = clusters[start : start + BLOCK]
        members = csr_matrix((np.ones(len(block)), numbers, ends), (len(block), k))
        sums += distances @ members
    return sums
