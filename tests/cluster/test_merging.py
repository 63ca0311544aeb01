"""Clusters joined to fewer groups by Ward's method."""

import numpy as np
import pytest
from arrays import sphere
from scipy.cluster.hierarchy import cut_tree, is_valid_linkage, linkage
from sklearn.metrics import adjusted_rand_score

from cluster.merging import merge_centroids, ward_tree
from system.errors import InputError
from visu.merge_tree import draw_merge_tree

ONES = np.ones(60, np.int64)


def test_with_weights_of_1_the_tree_is_scipys() -> None:
    tree = ward_tree(sphere(60, 5), ONES)
    assert is_valid_linkage(tree)
    expected = linkage(sphere(60, 5).astype(np.float64), "ward")
    np.testing.assert_allclose(tree, expected, rtol=1e-9)


def test_weights_are_scipys_with_as_many_points() -> None:
    """Points that are the same are merged first, at distance 0."""
    points, counts = sphere(40, 5), np.random.default_rng(0).integers(1, 9, size=40)
    tree = ward_tree(points, counts)
    assert is_valid_linkage(tree)
    copies = np.repeat(np.arange(40), counts)
    expected = linkage(points[copies].astype(np.float64), "ward")
    np.testing.assert_allclose(tree[:, 2], expected[-39:, 2], rtol=1e-6)
    for groups in (2, 7, 20):
        found = merge_centroids(points, counts, groups)
        assert adjusted_rand_score(found[copies], cut_tree(expected, groups)[:, 0]) == 1
        assert found.dtype == np.int64
        assert list(dict.fromkeys(found.tolist())) == list(range(groups))


def test_weights_by_hand() -> None:
    """On a line at 0, 4 and 9. Joining the first two adds n·m / (n + m) · 16, the last two · 25."""
    line = np.array([[0], [4], [9]], np.float32)
    assert merge_centroids(line, np.array([1, 1, 1]), 2).tolist() == [0, 0, 1]  # 8 and 12.5
    assert merge_centroids(line, np.array([100, 1, 1]), 2).tolist() == [0, 1, 1]  # 15.8 and 12.5
    tree = ward_tree(line, np.array([100, 1, 1]))
    # 2 rows at 6.5 and 100 at 0: 200 / 102 · 42.25
    np.testing.assert_allclose(
        tree, [[1, 2, np.sqrt(2 * 12.5), 2], [0, 3, np.sqrt(2 * 200 / 102 * 42.25), 3]]
    )


def test_an_empty_cluster_follows_the_nearest_that_is_not() -> None:
    line = np.array([[0], [8], [1], [9], [5.1], [0.4]], np.float32)
    assert merge_centroids(line, np.array([5, 5, 5, 5, 0, 0]), 2).tolist() == [0, 1, 0, 1, 1, 0]


@pytest.mark.parametrize("groups", [0, 2, 3])
def test_groups_must_be_fewer_than_clusters(groups: int) -> None:
    message = f"--merge {groups}: give a number from 1 to 1, as 2 clusters have images"
    with pytest.raises(InputError, match=message):
        merge_centroids(sphere(3), np.array([4, 0, 1]), groups)


@pytest.mark.parametrize(("groups", "k"), [(5, 60), (1, 60), (59, 60), (3, 400)])
def test_the_picture_cuts_the_tree_into_the_groups(groups: int, k: int) -> None:
    counts = np.arange(k) % 7 + 1
    (ax,) = draw_merge_tree(sphere(k, 5), counts, groups).axes
    (cut,) = {float(y) for y in np.asarray(ax.lines[-1].get_ydata())}
    heights = ward_tree(sphere(k, 5), counts)[:, 2]
    assert (heights > cut).sum() == groups - 1
    assert len(ax.get_xticklabels()) == min(k, 200)
