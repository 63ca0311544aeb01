"""Clusters on two levels: new rows, what a file keeps of them, malformed files."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from arrays import sphere

from cluster.clusters import Clusters
from cluster.hierarchy import Hierarchy, hierarchical_kmeans
from cluster.whitening import Normalisation

ROWS = sphere(300, 6)
EACH = 5


def two_levels() -> tuple[Hierarchy, Clusters]:
    """Two super-clusters of five sub-clusters, and one of two."""
    supers = np.eye(6, dtype=np.float32)[:3]
    subs = [ROWS[:5], ROWS[5:10], ROWS[10:12]]
    nothing = np.empty(0, np.int64)
    found = Hierarchy(nothing, nothing, supers, subs)
    return found, Clusters.of_hierarchy(found, EACH, Normalisation(), epoch=7)


def test_a_new_row_takes_the_nearest_super_cluster_then_its_nearest_sub_cluster() -> None:
    found, clusters = two_levels()
    new = sphere(500, 6, seed=1)
    numbers, distances = clusters.assign(new)
    for row, number, distance in zip(new.astype(float), numbers, distances, strict=True):
        of_super = np.linalg.norm(found.super_centroids - row, axis=1).argmin()
        to_subs = np.linalg.norm(found.sub_centroids[of_super] - row, axis=1)
        assert number == of_super * EACH + to_subs.argmin()
        assert distance == pytest.approx(to_subs.min(), abs=1e-6)
    assert set(numbers.tolist()) == set(range(12)), "centroids that are not used take no image"
    assert not clusters.centroids[12:].any()


def test_rows_that_were_clustered_keep_their_clusters() -> None:
    found = hierarchical_kmeans(ROWS, 3, EACH, seed=2)
    clusters = Clusters.of_hierarchy(found, EACH, Normalisation(), epoch=0)
    numbers, _ = clusters.assign(ROWS)
    np.testing.assert_array_equal(numbers, found.super * EACH + found.sub)


def test_one_super_cluster_is_plain_k_means() -> None:
    found = hierarchical_kmeans(ROWS, 1, EACH)
    clusters = Clusters.of_hierarchy(found, EACH, Normalisation(), epoch=0)
    assert clusters.algorithm == "Kmeans"
    assert clusters.to_plain().keys() == {
        "algorithm", "epoch", "pca_mean", "pca_matrix", "centroids",
    }  # fmt: skip
    np.testing.assert_array_equal(clusters.assign(ROWS)[0], found.sub)


def test_an_empty_super_cluster_keeps_its_centroid() -> None:
    found = hierarchical_kmeans(np.ones((6, 2), np.float32), 2, 3)
    clusters = Clusters.of_hierarchy(found, 3, Normalisation(), epoch=0)
    assert clusters.is_sound()
    assert clusters.counts is not None
    assert sorted(clusters.counts.tolist()) == [1, 3]


def test_they_can_be_written_and_read() -> None:
    _, clusters = two_levels()
    read = Clusters.from_plain(clusters.to_plain())
    assert read.is_sound()
    assert read.algorithm == "HierarchicalKmeans"
    for one, other in zip(clusters.assign(ROWS), read.assign(ROWS), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "change",
    [
        {"counts": None},
        {"super_centroids": None},
        {"counts": np.array([5, 5, 6])},
        {"counts": np.array([5, 5, 0])},
        {"counts": np.array([5, 5])},
        {"counts": np.array([5.0, 5, 2])},
        {"super_centroids": np.zeros((3, 5), np.float32)},
        {"super_centroids": np.zeros((3, 6), np.float64)},
        {"super_centroids": np.full((3, 6), np.nan, np.float32)},
        {"super_centroids": np.zeros((2, 6), np.float32), "counts": np.array([5, 5])},
    ],
)
def test_malformed_levels_are_noticed(change: dict[str, Any]) -> None:
    _, clusters = two_levels()
    assert clusters.is_sound()
    assert not replace(clusters, **change).is_sound()
