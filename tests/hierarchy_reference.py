"""Two-level k-means in float64."""

import numpy as np
from scipy.spatial.distance import cdist


def lloyd_in_float64(
    rows: np.ndarray, centroids: np.ndarray, iterations: int
) -> tuple[np.ndarray, np.ndarray]:
    """k-means of `(N, d)` rows from given centroids `(k, d)`. Returns the assignment after so many
    updates, and the centroids.

    Checks that float32 must find the same: no cluster becomes empty, and a row's squared distances
    to the two nearest centroids differ by 1e-5 or more.
    """
    centroids = centroids.astype(np.float64)
    for step in range(iterations + 1):
        distances = cdist(rows, centroids, "sqeuclidean")
        nearest = distances.argmin(axis=1)
        if len(centroids) > 1:
            first, second = np.sort(distances, axis=1)[:, :2].T
            assert (second - first).min() > 1e-5, "a row is nearly between two centroids"
        if step < iterations:
            numbers = range(len(centroids))
            assert set(nearest.tolist()) == set(numbers), "an empty cluster"
            centroids = np.array([rows[nearest == each].mean(axis=0) for each in numbers])
    return nearest, centroids


def hierarchy_in_float64(
    rows: np.ndarray, first: np.ndarray, sub_first: list[np.ndarray], iterations: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
    """The super-cluster and the sub-cluster of each row, and the centroids of both levels."""
    rows = rows.astype(np.float64)
    found, centroids = lloyd_in_float64(rows, first, iterations)
    within, sub_centroids = np.empty(len(rows), np.int64), []
    for number, start in enumerate(sub_first):
        within[found == number], moved = lloyd_in_float64(rows[found == number], start, iterations)
        sub_centroids.append(moved)
    return found, within, centroids, sub_centroids
