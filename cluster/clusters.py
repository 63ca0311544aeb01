"""What a checkpoint keeps of a clustering: enough to assign new images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cluster.base import Clustering
from cluster.kmeans import BLOCK
from cluster.nearest import NearestCentroid
from cluster.whitening import CPU, Whitening


@dataclass(frozen=True)
class Clusters:
    """The whitening and centroids of a finished clustering; a new image belongs to the nearest
    centroid.

    Attributes:
        algorithm: name of the clustering's class, such as `Kmeans`.
        epoch: the features came from the network at the beginning of this epoch.
        whitening: of the features.
        centroids: `(k, d) float32`, in the whitened space.
    """

    algorithm: str
    epoch: int
    whitening: Whitening
    centroids: np.ndarray

    @classmethod
    def of(cls, clustering: Clustering, epoch: int) -> "Clusters":
        """The clusters of a finished clustering.

        Raises:
            ValueError: it has no PCA.
        """
        if clustering.whitening is None:
            raise ValueError("clusters of rows without a PCA are not kept")
        return cls(type(clustering).__name__, epoch, clustering.whitening, clustering.centroids)

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
        x = self.whitening.apply(features, device)
        nearest, _ = NearestCentroid(x, device)(self.centroids)
        # computed anew: the search returns squares, where rounding loses small distances
        distances = np.empty(len(x), np.float32)
        for start in range(0, len(x), BLOCK):
            rows = slice(start, start + BLOCK)
            distances[rows] = np.linalg.norm(x[rows] - self.centroids[nearest[rows]], axis=1)
        return nearest, distances

    def is_sound(self) -> bool:
        """Whether the values that `from_plain` took from a file fit each other."""
        mean, matrix = self.whitening.mean, self.whitening.matrix
        arrays = mean, matrix, self.centroids
        return (
            isinstance(self.algorithm, str)
            and self.algorithm.isidentifier()
            and type(self.epoch) is int
            and [array.ndim for array in arrays] == [1, 2, 2]
            and all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays)
            and matrix.shape == (len(mean), self.centroids.shape[1])
            and self.centroids.size > 0
        )

    def to_plain(self) -> dict[str, Any]:
        """A dict of texts, numbers and tensors for a checkpoint."""
        return {
            "algorithm": self.algorithm,
            "epoch": self.epoch,
            "pca_mean": torch.from_numpy(self.whitening.mean),
            "pca_matrix": torch.from_numpy(self.whitening.matrix),
            "centroids": torch.from_numpy(self.centroids),
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Clusters":
        """The inverse of `to_plain`. On anything else it may raise any exception."""
        whitening = Whitening(plain["pca_mean"].numpy(), plain["pca_matrix"].numpy())
        return cls(plain["algorithm"], plain["epoch"], whitening, plain["centroids"].numpy())
