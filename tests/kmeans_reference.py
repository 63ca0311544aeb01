"""An independent k-means in float64."""

import numpy as np
from scipy.spatial.distance import cdist

from clustering import ITERATIONS


def kmeans_in_float64(
    x: np.ndarray, k: int, seed: int, spherical: bool = False
) -> tuple[np.ndarray, float]:
    """k-means of points `(N, d)`, started from k of them, which are drawn as Faiss draws them.
    Returns the assignment `(N,)` and the loss.

    Checks that float32 must find the same: in each iteration, a point's squared distances to the
    two nearest centroids differ by 5e-5 or more, while rounding changes them by about 1e-6.
    """
    start = np.random.RandomState(seed).choice(len(x), k, replace=False)
    centroids = x[start].astype(np.float64)
    for _ in range(ITERATIONS + 1):
        if spherical:
            centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
        distances = cdist(x, centroids, "sqeuclidean")
        nearest, (first, second) = distances.argmin(axis=1), np.sort(distances, axis=1)[:, :2].T
        assert (second - first).min() > 5e-5, "a point is nearly between two centroids"
        centroids = np.array([x[nearest == cluster].mean(axis=0) for cluster in range(k)])
    return nearest, first.sum()
