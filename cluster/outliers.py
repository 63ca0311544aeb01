"""Which rows are unlike all others: far from their centroid, or from their nearest neighbours."""

from collections.abc import Callable

import numpy as np

from cluster.pic import make_graph

NEIGHBOURS = 5  # more than the few copies that an odd image may have


def outlier_ranks(
    rows: np.ndarray,
    clusters: np.ndarray,
    centroids: np.ndarray,
    advance: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Two ranks of each row, 1 for the farthest of all N.

    Args:
        rows: `(N, d) float32`, two or more.
        clusters: `(N,) int64`, the cluster of each row.
        centroids: `(k, d) float32`.
        advance: called with the number of rows in each block.

    Returns:
        `(N, 2) int64`: by the distance to its own centroid, and by the mean distance to its 5
        nearest neighbours (all others, if there are fewer rows). Of equal distances the first row
        has the lower rank.

    Raises:
        ValueError: there is one row only, or a row is not finite.
    """
    own = np.linalg.norm(rows - centroids[clusters], axis=1)
    _, squares = make_graph(rows, min(NEIGHBOURS, len(rows) - 1), advance=advance)
    near = np.sqrt(squares[:, 1:]).mean(axis=1)
    return np.stack([_ranks(own), _ranks(near)], axis=1)


def _ranks(distances: np.ndarray) -> np.ndarray:
    ranks = np.empty(len(distances), np.int64)
    ranks[np.argsort(-distances, kind="stable")] = np.arange(1, len(distances) + 1)
    return ranks
