"""Clusters joined to fewer groups by Ward's method, each centroid weighted by its rows.

SciPy's and scikit-learn's Ward take points of weight 1 only, so the tree is built here, by chains
of nearest neighbours (Murtagh, 1983), without a matrix of all pairs.
"""

import numpy as np
from scipy.cluster.hierarchy import cut_tree

from system.errors import InputError


def merge_centroids(centroids: np.ndarray, counts: np.ndarray, groups: int) -> np.ndarray:
    """The group of each cluster, by Ward's method. Each step joins two groups: those for which the
    sum of squared distances of all rows to their groups' means grows least. An empty cluster
    follows the nearest one that isn't.

    Args:
        centroids: `(k, d) float32`, the means of the clusters.
        counts: `(k,) int64`, their rows.
        groups: number of groups.

    Returns:
        `(k,) int64`, groups numbered from 0 in the order of their first clusters.

    Raises:
        InputError: groups is below 1, or not below the number of clusters with rows.
    """
    full = np.flatnonzero(counts)
    if not 1 <= groups < len(full):
        raise InputError(
            f"--merge {groups}: give a number from 1 to {len(full) - 1}, as {len(full)} clusters "
            "have images"
        )
    cut = cut_tree(ward_tree(centroids[full], counts[full]), groups)[:, 0]
    _, first, inverse = np.unique(cut, return_index=True, return_inverse=True)
    found = np.empty(len(counts), np.int64)
    found[full] = np.argsort(np.argsort(first))[inverse]
    for empty in np.flatnonzero(counts == 0):
        nearest = np.linalg.norm(centroids[full] - centroids[empty], axis=1).argmin()
        found[empty] = found[full[nearest]]
    return found


def ward_tree(centroids: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The tree of all merges, as SciPy's `linkage` returns it.

    Args:
        centroids: `(k, d)`, k of 2 or more.
        counts: `(k,) int64`, above 0.

    Returns:
        `(k − 1, 4) float64`, ascending: the two nodes that are merged, the root of twice the
        increase of the sum of squares (for weights of 1 Ward's distance in SciPy), and the number
        of clusters below. Node k + i is the result of row i.
    """
    k = len(centroids)
    means, weights = centroids.astype(np.float64), counts.astype(np.float64)
    active = np.ones(k, bool)
    chain: list[int] = []
    merges: list[tuple[int, int, float]] = []
    while len(merges) < k - 1:
        if not chain:
            chain.append(int(active.argmax()))
        top = chain[-1]
        increase = weights * weights[top] / (weights + weights[top])
        increase *= np.square(means - means[top]).sum(axis=1)
        increase[~active], increase[top] = np.inf, np.inf
        nearest = int(increase.argmin())
        if len(chain) == 1 or increase[nearest] < increase[chain[-2]]:
            chain.append(nearest)
            continue
        other = chain[-2]
        del chain[-2:]
        merges.append((top, other, increase[other]))
        share = weights[top] / (weights[top] + weights[other])
        means[other] += share * (means[top] - means[other])
        weights[other] += weights[top]
        active[top] = False
    return _in_order(merges, k)


def _in_order(merges: list[tuple[int, int, float]], k: int) -> np.ndarray:
    """Merges of places, the smallest increase first, with the numbers of nodes."""
    node, size = list(range(k)), [1] * (2 * k - 1)
    at = list(range(k))  # where the group of each place is now

    def place(of: int) -> int:
        while at[of] != of:
            of = at[of]
        return of

    tree = np.empty((k - 1, 4))
    for row, (one, other, increase) in enumerate(sorted(merges, key=lambda merge: merge[2])):
        one, other = place(one), place(other)
        pair = sorted((node[one], node[other]))
        size[k + row] = size[pair[0]] + size[pair[1]]
        tree[row] = *pair, np.sqrt(2 * increase), size[k + row]
        at[one], node[other] = other, k + row
    return tree
