"""Features in, pseudo-labels out (paper, section 3): PCA-whitening, L2 normalisation, k-means.

Knows arrays only: no images, no data sets, no networks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import scipy.linalg

ITERATIONS = 20  # of k-means
BLOCK = 16384  # rows that are centred or projected at a time

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Whitening:
    """PCA with whitening, followed by L2 normalisation of the rows.

    Attributes:
        mean: `(D,) float32`, subtracted first.
        matrix: `(D, d) float32`, the principal axes, each divided by the standard deviation
            along it.
    """

    mean: np.ndarray
    matrix: np.ndarray

    def apply(self, features: np.ndarray) -> np.ndarray:
        """`(N, D)` features → `(N, d) float32` rows of unit length (zero rows stay zero)."""
        reduced = np.empty((len(features), self.matrix.shape[1]), np.float32)
        for rows in _blocks(len(features)):
            reduced[rows] = (features[rows] - self.mean) @ self.matrix
        faiss.normalize_L2(reduced)
        return reduced


def fit_whitening(features: np.ndarray, pca: int = 256) -> Whitening:
    """Fit the PCA-whitening of features.

    Args:
        features: `(N, D)` float.
        pca: components wanted; the result has fewer where the centred features have a lower rank
            (and a single one, on which all rows are zero, where they are all the same).

    Raises:
        ValueError: fewer than 2 rows, or not two-dimensional.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"PCA needs an (N, D) array with N >= 2, not one of {features.shape}")
    n, dim = features.shape
    mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    if n <= dim:  # the Gram matrix has the same non-zero eigenvalues and is the smaller one
        centred = features - mean
        variances, vectors = _largest_eigenpairs(centred @ centred.T / n, pca)
        axes = centred.T @ vectors / np.sqrt(n * variances)
    else:
        covariance = np.zeros((dim, dim))
        for rows in _blocks(n):
            centred = features[rows] - mean
            covariance += centred.T @ centred
        variances, axes = _largest_eigenpairs(covariance / n, pca)
    return Whitening(mean, (axes / np.sqrt(variances)).astype(np.float32))


def preprocess_features(features: np.ndarray, pca: int = 256) -> np.ndarray:
    """PCA-reduce, whiten and L2-normalise (paper, section 4).

    Args:
        features: `(N, D)` float.
        pca: components to keep; fewer where the features have a lower rank.

    Returns:
        `(N, pca) float32` rows of unit length.

    Raises:
        ValueError: fewer than 2 rows, or not two-dimensional.
    """
    return fit_whitening(features, pca).apply(features)


def run_kmeans(
    x: np.ndarray,
    nmb_clusters: int,
    verbose: bool = False,
    seed: int = 0,
    advance: Advance | None = None,
) -> tuple[np.ndarray, float]:
    """Faiss k-means with exact L2 distances: 20 iterations on every point.

    Args:
        x: `(N, d) float32`.
        nmb_clusters: k, at most N.
        verbose: let Faiss print each iteration.
        seed: of the initial centroids.
        advance: called with 1 after each iteration.

    Returns:
        The cluster of each point, `(N,) int64` (a cluster may be empty), and the loss: the sum of
        squared distances to the centroids in the last iteration.

    Raises:
        ValueError: k is not in 2..N.
    """
    n, dim = x.shape
    if not 2 <= nmb_clusters <= n:
        raise ValueError(f"k-means needs 2 <= k <= N, not k = {nmb_clusters} for N = {n} points")
    kmeans: Any = faiss.Clustering(dim, nmb_clusters)
    kmeans.niter = 1
    kmeans.seed = seed % 2**31
    kmeans.max_points_per_centroid = n  # no subsampling
    kmeans.min_points_per_centroid = 1  # no warning about few points
    kmeans.verbose = verbose
    index: Any = faiss.IndexFlatL2(dim)
    if faiss.get_num_gpus() > 0:
        index = faiss.index_cpu_to_all_gpus(index)
    # Each call goes on from the centroids of the last one. One iteration a call is what lets the
    # progress be seen, and keeps Faiss from stopping before the twentieth.
    for _ in range(ITERATIONS):
        kmeans.train(x, index)
        if advance is not None:
            advance(1)
    loss = kmeans.iteration_stats.at(kmeans.iteration_stats.size() - 1).obj
    _, nearest = index.search(x, 1)
    return nearest[:, 0].astype(np.int64), float(loss)


class Kmeans:
    """k-means on PCA-whitened, normalised features.

    Args:
        k: number of clusters.
        seed: of the initial centroids.

    Attributes (after `cluster`):
        assignments: `(N,) int64`, the cluster of each row.
        images_lists: list of k lists of row numbers; a cluster may be empty.
    """

    def __init__(self, k: int, seed: int = 0) -> None:
        self.k = k
        self.seed = seed
        self.assignments = np.empty(0, np.int64)

    @property
    def images_lists(self) -> list[list[int]]:
        return group_by_cluster(self.assignments, self.k)

    def cluster(
        self, features: np.ndarray, verbose: bool = False, advance: Advance | None = None
    ) -> float:
        """Cluster `(N, D)` features and return the k-means loss.

        Raises:
            ValueError: k is not in 2..N.
        """
        reduced = preprocess_features(features)
        self.assignments, loss = run_kmeans(reduced, self.k, verbose, self.seed, advance)
        return loss


def group_by_cluster(assignment: np.ndarray, k: int) -> list[list[int]]:
    """An assignment `(N,) int64` (−1: left out) as the original's `images_lists`: for each of k
    clusters the ascending list of its members."""
    members = np.flatnonzero(assignment >= 0)
    members = members[np.argsort(assignment[members], kind="stable")]
    sizes = np.bincount(assignment[members], minlength=k)
    return [part.tolist() for part in np.split(members, np.cumsum(sizes)[:-1])]


def _largest_eigenpairs(matrix: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues `(c,)` of a symmetric positive semi-definite matrix, descending, and
    their eigenvectors `(n, c)`; directions without variance are left out (but for one)."""
    n = len(matrix)
    values, vectors = scipy.linalg.eigh(
        matrix.astype(np.float64), subset_by_index=[max(n - count, 0), n - 1]
    )
    values, vectors = values[::-1], vectors[:, ::-1]
    # The product was summed in float32: below its rounding error a direction is noise, which
    # whitening would blow up to the size of the signal.
    floor = max(values[0] * np.finfo(np.float32).eps * 10, np.finfo(np.float32).tiny)
    rank = max(int((values > floor).sum()), 1)
    return np.maximum(values[:rank], floor), vectors[:, :rank]


def _blocks(n: int) -> list[slice]:
    return [slice(start, start + BLOCK) for start in range(0, n, BLOCK)]
