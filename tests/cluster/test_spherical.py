"""Spherical k-means: the released clusters, empty clusters, blocks."""

from pathlib import Path

import numpy as np
import pytest
from reference_numbers import SWAV

from benchmarks.timing import memory, timed
from cluster import spherical
from cluster.spherical import spherical_kmeans

ROWS, INDEX = SWAV["dcv2_embeddings"], SWAV["dcv2_index"]
FIRST = ROWS[SWAV["dcv2_init0"]]


def test_it_gives_the_released_clusters() -> None:
    assignment, centroids = spherical_kmeans(ROWS, FIRST)
    expected = SWAV["dcv2_assignments_head0"]
    of_image = np.full(len(expected), -100)
    of_image[INDEX] = assignment
    np.testing.assert_array_equal(of_image, expected)
    np.testing.assert_allclose(centroids, SWAV["dcv2_centroids0"], rtol=0, atol=1e-5)


def test_each_update_raises_the_mean_cosine_as_released() -> None:
    for updates, expected in enumerate(SWAV["dcv2_objective_by_iteration_head0"]):
        assignment, centroids = spherical_kmeans(ROWS, FIRST, updates)
        cosines = (ROWS * centroids[assignment]).sum(1)
        assert cosines.mean() == pytest.approx(expected, abs=1e-5)


def test_the_assignment_is_that_of_the_returned_centroids() -> None:
    assignment, centroids = spherical_kmeans(ROWS, FIRST, 3)
    np.testing.assert_array_equal(assignment, (ROWS.astype(float) @ centroids.T).argmax(1))


def test_blocks_give_the_same_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = spherical_kmeans(ROWS, FIRST)
    monkeypatch.setattr(spherical, "CACHED", 50 * 77)  # 77 rows at a time
    for a, b in zip(whole, spherical_kmeans(ROWS, FIRST), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_memory_does_not_grow_with_the_cosines() -> None:
    """All of them would take 640 MB here."""
    rng = np.random.default_rng(0)
    rows, first = (rng.standard_normal((n, 4), np.float32) for n in (80_000, 2_000))
    before = memory()
    peak = timed(spherical_kmeans, rows, first, 0).memory
    assert peak - before < 100e6


@pytest.fixture
def one_empty() -> tuple[np.ndarray, np.ndarray]:
    """Rows around two directions, and centroids at both and at the opposite of one."""
    rng = np.random.default_rng(0)
    centres = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    rows = centres.repeat([30, 10], axis=0) + 0.01 * rng.standard_normal((40, 3))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return rows, np.concatenate([centres, [[0, 0, -1]]]).astype(np.float32)


def test_an_empty_cluster_keeps_its_centroid(one_empty: tuple[np.ndarray, np.ndarray]) -> None:
    assignment, centroids = spherical_kmeans(*one_empty)
    assert centroids[2].tolist() == [0, 0, -1]
    assert np.bincount(assignment).tolist() == [30, 10]


def test_an_empty_cluster_may_take_half_of_the_largest_one(
    one_empty: tuple[np.ndarray, np.ndarray],
) -> None:
    assignment, centroids = spherical_kmeans(*one_empty, split_empty=True)
    sizes = np.bincount(assignment, minlength=3)
    assert sizes[1] == 10
    assert min(sizes[0], sizes[2]) > 0
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-6)


def test_half_precision_rows_are_clustered_in_float32() -> None:
    rows = ROWS.astype(np.float16)
    a, _ = spherical_kmeans(rows, FIRST)
    b, _ = spherical_kmeans(rows.astype(np.float32), FIRST)
    np.testing.assert_array_equal(a, b)
