"""Joined clusters as clusters on two levels."""

import numpy as np
import pytest

from cluster.clusters import Clusters
from cluster.joined import join_clusters
from cluster.whitening import Normalisation
from system.errors import InputError


def made() -> tuple[Clusters, np.ndarray]:
    """Five clusters at angles, the fourth empty: 0 and 1 are near each other, and 2 and 4."""
    angles = np.array([0.0, 0.1, 2.0, 2.05, 2.2])
    centroids = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    return Clusters("Kmeans", 0, Normalisation(), centroids), np.array([30, 10, 5, 0, 5])


def test_groups_are_super_clusters_with_the_means_of_their_images() -> None:
    clusters, counts = made()
    joined, weights = join_clusters(clusters, counts, 2)
    assert joined.is_sound()
    assert joined.each == 2
    assert weights.tolist() == [30, 10, 5, 5]
    assert joined.super_centroids is not None
    first = (30 * clusters.centroids[0] + 10 * clusters.centroids[1]) / 40
    np.testing.assert_allclose(joined.super_centroids[0], first, rtol=1e-6)
    np.testing.assert_array_equal(joined.centroids[2:], clusters.centroids[[2, 4]])
    found, _ = joined.assign(clusters.centroids.copy())
    assert found.tolist() == [0, 1, 2, 2, 3]


def test_groups_of_different_sizes_leave_numbers_unused() -> None:
    clusters, _ = made()
    joined, weights = join_clusters(clusters, np.array([30, 10, 5, 5, 5]), 2)
    assert (joined.each, weights.tolist()) == (3, [30, 10, 0, 5, 5, 5])
    assert joined.assign(clusters.centroids.copy())[0].tolist() == [0, 1, 3, 4, 5]


def test_too_many_groups() -> None:
    with pytest.raises(InputError, match="--merge 4: give a number from 1 to 3"):
        join_clusters(*made(), 4)
