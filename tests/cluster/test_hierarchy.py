"""Two-level k-means against Lloyd's in float64, written anew; empty clusters; first centroids."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from arrays import sphere
from hierarchy_reference import hierarchy_in_float64
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs

from cluster.hierarchy import hierarchical_kmeans

ROWS = sphere(900, 12)
FIRST = ROWS[:3]
SUB_FIRST = [ROWS[3:8], ROWS[8:13], ROWS[13:17]]  # 5, 5 and 4


@pytest.mark.parametrize("iterations", [1, 10])
def test_it_is_lloyds_on_both_levels(iterations: int) -> None:
    found = hierarchical_kmeans(ROWS, FIRST, SUB_FIRST, iterations)
    expected = hierarchy_in_float64(ROWS, FIRST, SUB_FIRST, iterations)
    np.testing.assert_array_equal(found.super, expected[0])
    np.testing.assert_array_equal(found.sub, expected[1])
    np.testing.assert_allclose(found.super_centroids, expected[2], atol=1e-6)
    for ours, theirs in zip(found.sub_centroids, expected[3], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert found.super.dtype == found.sub.dtype == np.int64
    assert found.super_centroids.dtype == np.float32


def test_it_is_scikit_learns_k_means_once_nothing_moves() -> None:
    """Clear clusters: six pairs, a super-cluster for each."""
    pairs = np.eye(12)[::2].repeat(2, axis=0) * 20 + np.eye(12)
    rows, truth = make_blobs(600, centers=pairs, cluster_std=0.05, random_state=0)
    rows = rows.astype(np.float32)
    at = [int(np.flatnonzero(truth == 2 * pair)[0]) for pair in range(6)]
    found = hierarchical_kmeans(rows, rows[at], 2, seed=3)
    reference = KMeans(6, init=rows[at], n_init=1).fit(rows)
    np.testing.assert_array_equal(found.super, reference.labels_)
    np.testing.assert_array_equal(found.super, truth // 2)
    for pair in range(6):
        of_pair = truth[found.super == pair]
        sub = found.sub[found.super == pair]
        assert len(set(zip(of_pair.tolist(), sub.tolist(), strict=True))) == 2


def test_half_precision_rows_are_clustered_in_float32() -> None:
    rows = ROWS.astype(np.float16)
    one, other = (hierarchical_kmeans(x, 3, 4) for x in (rows, rows.astype(np.float32)))
    np.testing.assert_array_equal(one.super * 4 + one.sub, other.super * 4 + other.sub)


def test_numbers_of_centroids_draw_them_from_the_seed() -> None:
    drawn = hierarchical_kmeans(ROWS, 3, 5, iterations=0, seed=1)
    places = {row.tobytes(): number for number, row in enumerate(ROWS)}
    assert len({places[row.tobytes()] for row in drawn.super_centroids}) == 3
    for number, centroids in enumerate(drawn.sub_centroids):
        chosen = [places[row.tobytes()] for row in centroids]
        assert len(set(chosen)) == 5
        assert (drawn.super[chosen] == number).all(), "rows of the super-cluster"
    again, other = (hierarchical_kmeans(ROWS, 3, 5, 0, seed) for seed in (1, 2))
    np.testing.assert_array_equal(drawn.super_centroids, again.super_centroids)
    assert not np.array_equal(drawn.super_centroids, other.super_centroids)


def test_the_numbers_may_be_numpys() -> None:
    one = hierarchical_kmeans(ROWS, 3, 4)
    numbers: list[Any] = [np.int64(3), np.int64(4)]
    other = hierarchical_kmeans(ROWS, *numbers)
    np.testing.assert_array_equal(one.super * 4 + one.sub, other.super * 4 + other.sub)


def test_a_super_cluster_with_fewer_rows_has_fewer_sub_clusters() -> None:
    rows = np.concatenate([ROWS[:40], ROWS[40:43] + 100])
    found = hierarchical_kmeans(rows, rows[[0, 40]], 5)
    assert [len(centroids) for centroids in found.sub_centroids] == [5, 3]
    assert sorted(found.sub[40:]) == [0, 1, 2]


def test_an_empty_cluster_takes_half_of_the_largest_one() -> None:
    """The third first centroid is far from all rows."""
    rng = np.random.default_rng(0)
    rows = np.repeat([[1.0, 0], [0, 1]], [30, 10], axis=0) + 0.01 * rng.standard_normal((40, 2))
    rows = rows.astype(np.float32)
    first = np.array([[1, 0], [0, 1], [50, 50]], np.float32)
    found = hierarchical_kmeans(rows, first, 1)
    sizes = np.bincount(found.super, minlength=3)
    assert sizes[1] == 10
    assert min(sizes[0], sizes[2]) > 0


def test_one_super_cluster_and_one_sub_cluster() -> None:
    flat = hierarchical_kmeans(ROWS, 1, SUB_FIRST[:1])
    assert not flat.super.any()
    _, sub, *_ = hierarchy_in_float64(ROWS, ROWS[:1], SUB_FIRST[:1], 10)
    np.testing.assert_array_equal(flat.sub, sub)
    alone = hierarchical_kmeans(ROWS, FIRST, 1)
    assert not alone.sub.any()
    for number, (centroid,) in enumerate(alone.sub_centroids):
        mean = ROWS[alone.super == number].mean(axis=0)
        np.testing.assert_allclose(centroid, mean, atol=1e-6)


def test_equal_rows_leave_clusters_empty() -> None:
    found = hierarchical_kmeans(np.ones((6, 2), np.float32), 2, 3)
    occupied = np.bincount(found.super, minlength=2)
    assert sorted(occupied) == [0, 6]
    assert sorted(len(centroids) for centroids in found.sub_centroids) == [0, 3]


def test_advance_is_called_after_each_update() -> None:
    calls: list[int] = []
    hierarchical_kmeans(ROWS, 3, 4, iterations=2, advance=calls.append)
    assert calls == [1] * 2 * (3 + 1)


@pytest.mark.parametrize(
    ("rows", "first", "sub_first", "message"),
    [
        (ROWS[0], 1, 1, "needs an \\(N, d\\) array"),
        (ROWS, 901, 1, "not m = 901 for N = 900 rows"),
        (ROWS, 0, 1, "not m = 0"),
        (ROWS * np.float32(np.inf), 2, 1, "needs finite rows"),
        (ROWS, FIRST, SUB_FIRST[:2], "first sub-centroids of 2 of 3 super-clusters"),
        (ROWS, 3, SUB_FIRST[:2], "first sub-centroids of 2 of 3 super-clusters"),
        (ROWS, 3, 0, "not K = 0"),
        (ROWS, FIRST[:0], 1, "not m = 0|not of shape \\(0, 12\\)"),
        (ROWS, FIRST[:, :5], 1, "have to be \\(k, 12\\), not of shape \\(3, 5\\)"),
        (ROWS, FIRST[0], 1, "not of shape \\(12,\\)"),
        (ROWS, 1, [FIRST[:, :5]], "not of shape \\(3, 5\\)"),
        (ROWS, FIRST * np.float32(np.nan), 1, "needs finite first centroids"),
        (ROWS, 1, [FIRST * np.float32(np.nan)], "needs finite first centroids"),
    ],
)
def test_bad_input_is_named(
    rows: np.ndarray,
    first: np.ndarray | int,
    sub_first: Sequence[np.ndarray] | int,
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        hierarchical_kmeans(rows, first, sub_first)
