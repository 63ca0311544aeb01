"""Ranks of rows that are unlike all others."""

import numpy as np
import pytest
from arrays import sphere
from scipy.stats import rankdata
from sklearn.neighbors import NearestNeighbors

from cluster.outliers import outlier_ranks


def test_ranks_by_hand() -> None:
    """Row 3 is farthest from its centroid, row 2 from the other rows."""
    rows = np.array([[0], [1], [9], [4]], np.float32)
    centroids = np.array([[0.5], [9]], np.float32)
    assert outlier_ranks(rows, np.array([0, 0, 1, 0]), centroids).tolist() == [
        [2, 2],  # 0.5; 1, 4 and 9: 4.67 on average
        [3, 3],  # 0.5, later; 1, 3 and 8: 4
        [4, 1],  # 0; 5, 8 and 9: 7.33
        [1, 4],  # 3.5; 3, 4 and 5: 4, later
    ]


def test_ranks_are_scikit_learns() -> None:
    rows, centroids = sphere(200), sphere(7, seed=1)
    clusters = np.arange(200) % 7
    steps = list[int]()
    ranks = outlier_ranks(rows, clusters, centroids, steps.append)
    assert sum(steps) == 200
    own = np.sqrt(np.square(rows.astype(float) - centroids[clusters]).sum(axis=1))
    near = NearestNeighbors(n_neighbors=5).fit(rows).kneighbors()[0].mean(axis=1)
    np.testing.assert_array_equal(ranks[:, 0], rankdata(-own))
    np.testing.assert_array_equal(ranks[:, 1], rankdata(-near))


def test_copies_of_an_odd_row_do_not_hide_it() -> None:
    rows = np.concatenate([np.eye(1, 3), np.tile([[0, 1, 0]], (30, 1)), np.eye(1, 3)])
    rows[1:31] += 0.01 * sphere(30, 3)
    ranks = outlier_ranks(rows.astype(np.float32), np.zeros(32, int), np.eye(1, 3, 1))
    assert sorted(ranks[[0, 31], 1]) == [1, 2]


def test_one_row_has_no_neighbours() -> None:
    with pytest.raises(ValueError, match="nnn"):
        outlier_ranks(sphere(1), np.zeros(1, int), sphere(1))
