"""Clusters as a checkpoint keeps them: enough to assign new images."""

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
    """A clustering as a checkpoint keeps it: enough to assign new images.

    Attributes:
        algorithm: name of the clustering's class, such as `Kmeans`.
        epoch: its network is the one that this epoch begins with.
        whitening: of the features.
        centroids: `(k, d) float32`, among the whitened features; a new image belongs to the
            nearest.
    """

    algorithm: str
    epoch: int
    whitening: Whitening
    centroids: np.ndarray

    @classmethod
    def of(cls, clustering: Clustering, epoch: int) -> "Clusters":
        """What a clustering that is done has found.

        Raises:
            ValueError: it was done without a PCA.
        """
        if clustering.whitening is None:
            raise ValueError("clusters of rows without a PCA are not kept")
        return cls(type(clustering).__name__, epoch, clustering.whitening, clustering.centroids)

    def assign(
        self, features: np.ndarray, device: torch.device = CPU
    ) -> tuple[np.ndarray, np.ndarray]:
        """The nearest centroid of each of `(M, D)` rows of features.

        Returns:
            Its number, `(M,) int64`, and the Euclidean distance to it among the whitened features,
            `(M,) float32`: 0 to 2, since these have length 1, and centroids at most that.

        Raises:
            ValueError: the features do not have D dimensions, or a row is not finite.
        """
        x = self.whitening.apply(features, device)
        nearest, _ = NearestCentroid(x, device)(self.centroids)
        # by differences: the search's squares lose the small ones to rounding
        distances = np.empty(len(x), np.float32)
        for start in range(0, len(x), BLOCK):
            rows = slice(start, start + BLOCK)
            distances[rows] = np.linalg.norm(x[rows] - self.centroids[nearest[rows]], axis=1)
        return nearest, distances

    def is_whole(self) -> bool:
        """Whether there is an epoch, and a centroid, after `from_plain`."""
        return type(self.epoch) is int and self.centroids.ndim == 2 and self.centroids.size > 0

    def to_plain(self) -> dict[str, Any]:
        """The same as a checkpoint keeps it: a dict of texts, numbers and tensors."""
        return {
            "algorithm": self.algorithm,
            "epoch": self.epoch,
            "pca_mean": _tensor(self.whitening.mean),
            "pca_matrix": _tensor(self.whitening.matrix),
            "centroids": torch.from_numpy(self.centroids),
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Clusters":
        """What `to_plain` has made; anything may be raised by what it has not."""
        mean, matrix = plain["pca_mean"], plain["pca_matrix"]
        whitening = (
            Whitening(None, None)
            if mean is None and matrix is None
            else Whitening(mean.numpy(), matrix.numpy())
        )
        return cls(plain["algorithm"], plain["epoch"], whitening, plain["centroids"].numpy())


def _tensor(array: np.ndarray | None) -> torch.Tensor | None:
    return None if array is None else torch.from_numpy(array)
