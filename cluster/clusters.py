"""What a checkpoint keeps of a clustering: enough to assign new images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cluster.base import Clustering
from cluster.hierarchy import Hierarchy
from cluster.kmeans import BLOCK
from cluster.nearest import NearestCentroid
from cluster.whitening import CPU, Normalisation, Preparation, Whitening

LEVELS = ("super_centroids", "counts")

HIERARCHICAL = "HierarchicalKmeans"  # the algorithm of clusters on two levels


@dataclass(frozen=True)
class Clusters:
    """The whitening and centroids of a finished clustering; a new image belongs to the nearest
    centroid, or on two levels to the nearest sub-centroid of the nearest super-centroid.

    Attributes:
        algorithm: name of the clustering's class, such as `Kmeans`.
        epoch: the features came from the network at the beginning of this epoch.
        whitening: of the features.
        centroids: `(k, d) float32`, among the whitened (or only normalised) features. On two
            levels k is m · K; those of super-cluster c begin at c · K.
        super_centroids: `(m, d) float32` on two levels, else None.
        counts: `(m,) int64` on two levels, the number of sub-centroids of each super-cluster, at
            most K; its further centroids are 0 and take no image.
    """

    algorithm: str
    epoch: int
    whitening: Preparation
    centroids: np.ndarray
    super_centroids: np.ndarray | None = None
    counts: np.ndarray | None = None

    @property
    def dim(self) -> int:
        """D, the dimensions of the features that `assign` takes."""
        whitening = self.whitening
        return len(whitening.mean if isinstance(whitening, Whitening) else self.centroids[0])

    @property
    def each(self) -> int | None:
        """K on two levels, whose numbers are super-cluster · K + sub-cluster; else None."""
        supers = self.super_centroids
        return None if supers is None else len(self.centroids) // len(supers)

    @classmethod
    def of(cls, clustering: Clustering, epoch: int) -> "Clusters":
        """The clusters of a finished clustering.

        Raises:
            ValueError: its rows were not normalised.
        """
        if clustering.whitening is None:
            raise ValueError("clusters of raw rows are not kept; give pca=0 or more")
        return cls(type(clustering).__name__, epoch, clustering.whitening, clustering.centroids)

    @classmethod
    def of_hierarchy(
        cls, found: Hierarchy, each: int, whitening: Preparation, epoch: int
    ) -> "Clusters":
        """The clusters of `hierarchical_kmeans` with `each` sub-clusters in each super-cluster. An
        empty super-cluster keeps its centroid as its only sub-centroid."""
        supers, d = found.super_centroids, found.super_centroids.shape[1]
        if len(supers) == 1:
            return cls("Kmeans", epoch, whitening, found.sub_centroids[0])
        centroids = np.zeros((len(supers), each, d), np.float32)
        counts = np.array([max(len(rows), 1) for rows in found.sub_centroids])
        for number, rows in enumerate(found.sub_centroids):
            centroids[number, : counts[number]] = rows if len(rows) else supers[number]
        flat = centroids.reshape(-1, d)
        return cls(HIERARCHICAL, epoch, whitening, flat, supers, counts)

    def assign(
        self, features: np.ndarray, device: torch.device = CPU
    ) -> tuple[np.ndarray, np.ndarray]:
        """The nearest centroid of each of `(M, D)` rows of features.

        Returns:
            Its number, `(M,) int64`, and the Euclidean distance to it in the whitened space,
            `(M,) float32`: 0 to 2, since rows have length 1 and centroids at most that.

        Raises:
            ValueError: the features do not have D dimensions, or a row is not finite.
        """
        if features.shape[1:] != (self.dim,):
            raise ValueError(f"features of shape {features.shape}; give (M, {self.dim})")
        x = self.whitening.apply(features, device)
        nearest = self._nearest(x, device)
        # computed anew: the search returns squares, where rounding loses small distances
        distances = np.empty(len(x), np.float32)
        for start in range(0, len(x), BLOCK):
            rows = slice(start, start + BLOCK)
            distances[rows] = np.linalg.norm(x[rows] - self.centroids[nearest[rows]], axis=1)
        return nearest, distances

    def _nearest(self, x: np.ndarray, device: torch.device) -> np.ndarray:
        if self.super_centroids is None or self.counts is None:
            return NearestCentroid(x, device)(self.centroids)[0]
        found, _ = NearestCentroid(x, device)(self.super_centroids)
        starts = found * (self.each or 0)
        for number in np.unique(found):
            rows = np.flatnonzero(found == number)
            own = slice(starts[rows[0]], starts[rows[0]] + self.counts[number])
            starts[rows] += NearestCentroid(x[rows], device)(self.centroids[own])[0]
        return starts

    def is_sound(self) -> bool:
        """Whether the values that `from_plain` took from a file fit each other."""
        arrays, matrix = [self.centroids], None
        if isinstance(self.whitening, Whitening):
            matrix = self.whitening.matrix
            arrays += [self.whitening.mean[None], matrix]
        if self.super_centroids is not None:
            arrays.append(self.super_centroids)
        return (
            isinstance(self.algorithm, str)
            and self.algorithm.isidentifier()
            and type(self.epoch) is int
            and all(array.ndim == 2 and array.size > 0 for array in arrays)
            and all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays)
            and (matrix is None or matrix.shape == (self.dim, self.centroids.shape[1]))
            and self._has_sound_levels()
        )

    def _has_sound_levels(self) -> bool:
        if self.super_centroids is None or self.counts is None:
            return self.super_centroids is self.counts
        (m, d), k = self.super_centroids.shape, len(self.centroids)
        return (
            self.counts.dtype == np.int64
            and self.counts.shape == (m,)
            and d == self.centroids.shape[1]
            and k % m == 0
            and bool(1 <= self.counts.min() <= self.counts.max() <= k // m)
        )

    def to_plain(self) -> dict[str, Any]:
        """A dict of texts, numbers and tensors for a checkpoint."""
        mean = matrix = None
        if isinstance(self.whitening, Whitening):
            mean, matrix = map(torch.from_numpy, (self.whitening.mean, self.whitening.matrix))
        return {
            "algorithm": self.algorithm,
            "epoch": self.epoch,
            "pca_mean": mean,
            "pca_matrix": matrix,
            "centroids": torch.from_numpy(self.centroids),
            **{
                name: torch.from_numpy(array)
                for name in LEVELS
                if (array := getattr(self, name)) is not None
            },
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Clusters":
        """The inverse of `to_plain`. On anything else it may raise any exception."""
        mean, matrix = plain["pca_mean"], plain["pca_matrix"]
        whitening: Preparation = Normalisation()
        if mean is not None or matrix is not None:
            whitening = Whitening(mean.numpy(), matrix.numpy())
        levels = {name: plain[name].numpy() for name in LEVELS if name in plain}
        centroids = plain["centroids"].numpy()
        return cls(plain["algorithm"], plain["epoch"], whitening, centroids, **levels)
