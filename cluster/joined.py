"""Clusters joined to fewer groups, as clusters on two levels."""

import numpy as np

from cluster.clusters import HIERARCHICAL, Clusters
from cluster.merging import merge_centroids


def join_clusters(
    clusters: Clusters, counts: np.ndarray, groups: int
) -> tuple[Clusters, np.ndarray]:
    """Join clusters by Ward's method. An image then belongs to the group with the nearest mean, and
    in it to the nearest cluster. Empty clusters are left out.

    Args:
        clusters: on one level, k of them.
        counts: `(k,) int64`, their images.
        groups: m, the number of groups.

    Returns:
        The clusters with the groups as super-clusters, and the counts `(m · K,) int64` of those
        that they were joined from, by their new numbers.

    Raises:
        InputError: as `merge_centroids`.
    """
    of = merge_centroids(clusters.centroids, counts, groups)
    of[counts == 0] = -1
    sizes = np.bincount(of[of >= 0], minlength=groups)
    each, d = int(sizes.max()), clusters.centroids.shape[1]
    centroids, weights = np.zeros((groups, each, d), np.float32), np.zeros((groups, each), np.int64)
    means = np.empty((groups, d), np.float32)
    for group in range(groups):
        members = np.flatnonzero(of == group)
        centroids[group, : len(members)] = clusters.centroids[members]
        weights[group, : len(members)] = counts[members]
        means[group] = np.average(clusters.centroids[members], axis=0, weights=counts[members])
    joined = Clusters(
        HIERARCHICAL, clusters.epoch, clusters.whitening, centroids.reshape(-1, d), means, sizes
    )
    return joined, weights.ravel()
