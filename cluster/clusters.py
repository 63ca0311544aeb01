"""What a checkpoint keeps of a clustering: enough to assign new images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cluster.base import Clustering
from cluster.kmeans import BLOCK
from cluster.nearest import NearestCentroid
from cluster.whitening import CPU, Normalisation, Preparation, Whitening


@dataclass(frozen=True)
class Clusters:
    """The whitening and centroids of a finished clustering; a new image belongs to the nearest
    centroid.

    Attributes:
        algorithm: name of the clustering's class, such as `Kmeans`.
        epoch: the features came from the network at the beginning of this epoch.
        whitening: of the features.
        centroids: `(k, d) float32`, among the whitened (or only normalised) features.
    """

    algorithm: str
    epoch: int
    whitening: Preparation
    centroids: np.ndarray

    @property
    def dim(self) -> int:
        """D, the dimensions of the features that `assign` takes."""
        whitening = self.whitening
        return len(whitening.mean if isinstance(whitening, Whitening) else self.centroids[0])

    @classmethod
    def of(cls, clustering: Clustering, epoch: int) -> "Clusters":
        """The clusters of a finished clustering.

        Raises:
            ValueError: its rows were not normalised.
        """
        if clustering.whitening is None:
            raise ValueError("clusters of raw rows are not kept; give pca=0 or more")
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
        if features.shape[1:] != (self.dim,):
            raise ValueError(f"features of shape {features.shape}; give (M, {self.dim})")
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
        arrays, matrix = [self.centroids], None
        if isinstance(self.whitening, Whitening):
            matrix = self.whitening.matrix
            arrays += [self.whitening.mean[None], matrix]
        return (
            isinstance(self.algorithm, str)
            and self.algorithm.isidentifier()
            and type(self.epoch) is int
            and all(array.ndim == 2 and array.size > 0 for array in arrays)
            and all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays)
            and (matrix is None or matrix.shape == (self.dim, self.centroids.shape[1]))
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
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Clusters":
        """The inverse of `to_plain`. On anything else it may raise any exception."""
        mean, matrix = plain["pca_mean"], plain["pca_matrix"]
        whitening: Preparation = Normalisation()
        if mean is not None or matrix is not None:
            whitening = Whitening(mean.numpy(), matrix.numpy())
        return cls(plain["algorithm"], plain["epoch"], whitening, plain["centroids"].numpy())
