"""The base class of all clusterings."""

import argparse
from abc import ABC, abstractmethod
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch

from cluster.components import Components, remark
from cluster.kmeans import Advance
from cluster.moments import Moments
from cluster.quality import group_by_cluster
from cluster.whitening import Preparation, Whitening, prepare
from system.device import select_compute


class Clustering(ABC):
    """Whitens features and groups them. A subclass does the grouping and defines its flags.

    Args:
        device: where to compute; None takes a GPU if there is one.
        pca: components of the PCA, as `prepare` takes them: "auto" suits the number of rows,
            0 skips whitening; None skips normalisation, too.

    Attributes:
        has_loss: whether `cluster` returns a loss.

    Attributes (after `cluster`):
        assignments: `(N,) int64`, the cluster of each row; with several processes, the rows of
            all, in the order of the ranks.
        images_lists: the row numbers of each cluster.
        whitening: the fitted `Whitening`, or `Normalisation`; None for raw rows.
        centroids: `(C, pca) float32`, in the whitened space; `(C, D)` without a PCA.
    """

    has_loss: ClassVar[bool]
    whitening: Preparation | None
    centroids: np.ndarray

    def __init__(self, device: torch.device | None, pca: Components | None) -> None:
        self.device, self.pca = device or select_compute().device, pca
        self.assignments = np.empty(0, np.int64)

    @cached_property
    def images_lists(self) -> list[list[int]]:
        return group_by_cluster(self.assignments, len(self.centroids))

    def cluster(
        self,
        features: np.ndarray,
        verbose: bool = False,
        moments: Moments | None = None,
        advance: Advance | None = None,
    ) -> float:
        """Cluster features and return the loss; 0 for a clustering without one.

        Args:
            features: `(N, D)` of any floating type; under torchrun the rows of this process.
            verbose: print the iterations, or the number of clusters.
            moments: of the features, where already known.
            advance: called with the progress of each step; `steps` gives the total.

        Raises:
            ValueError: a row is not finite, or there are too few rows for the settings.
        """
        if self.pca is None:
            self.whitening, x = None, np.ascontiguousarray(features, np.float32)
        else:
            known = features if moments is None else moments
            self.whitening = prepare(known, self.pca, self.device)
            x = self.whitening.apply(features, self.device)
        self.assignments, self.centroids, loss = self.group(x, verbose, advance)
        self.__dict__.pop("images_lists", None)
        return loss

    def remark(self) -> str | None:
        """On the number of components, if `cluster` chose it or it is too large; else None."""
        if self.pca is None or not isinstance(self.whitening, Whitening):
            return None
        rows, dim = len(self.assignments), len(self.whitening.mean)
        return remark(self.pca, self.whitening.components, rows, dim)

    @abstractmethod
    def group(
        self, x: np.ndarray, verbose: bool, advance: Advance | None
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Group the whitened rows `(n, d) float32` of all processes.

        Returns:
            `assignments` and `centroids`, the same in every process, and the loss.
        """

    @staticmethod
    @abstractmethod
    def add_flags(parser: argparse.ArgumentParser) -> None:
        """Add this clustering's own flags."""

    @classmethod
    @abstractmethod
    def from_args(
        cls, args: argparse.Namespace, seed: int, device: torch.device, pca: Components | None
    ) -> "Clustering":
        """A clustering with the settings of the command line.

        Args:
            seed: of everything random.
            device, pca: as in `Clustering`.

        Raises:
            ValueError: a setting is out of range.
        """

    @staticmethod
    @abstractmethod
    def check(args: argparse.Namespace, count: int, what: str) -> None:
        """Check that there are enough rows.

        Args:
            count: number of rows.
            what: what a row is, for the message, such as "images of DIR".

        Raises:
            InputError: too few, naming the flag and the highest value that works.
        """

    @staticmethod
    @abstractmethod
    def steps(args: argparse.Namespace, count: int, what: str) -> tuple[int, str]:
        """Total and unit of the progress of clustering `count` rows; `advance` adds up to it."""
