"""The common base of all clusterings: whitening before, assignments, lists and centroids after."""

import argparse
from abc import ABC, abstractmethod
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch

from cluster.components import Components
from cluster.kmeans import Advance
from cluster.quality import group_by_cluster
from cluster.whitening import Moments, Whitening, fit_whitening
from system.device import select_compute


class Clustering(ABC):
    """Features in, clusters out. A subclass groups the whitened rows, and knows its own flags.

    Args:
        device: that computes; None takes a GPU where there is one.
        pca: components of the PCA; None clusters the rows as they are, neither whitened nor
            normalised.

    Attributes:
        has_loss: whether `cluster` returns a loss; without one it returns 0.

    Attributes (after `cluster`):
        assignments: `(N,) int64`, the cluster of each row; with many processes, of the rows of all,
            in the order of the ranks.
        images_lists: a list of row numbers for each centroid.
        whitening: the `Whitening` that was fitted; None without a PCA.
        centroids: `(C, pca) float32`, among the whitened rows.
    """

    has_loss: ClassVar[bool]
    whitening: Whitening | None
    centroids: np.ndarray

    def __init__(self, device: torch.device | None, pca: Components | None) -> None:
        self.device, self.pca = device or select_compute().device, pca
        self.assignments = np.empty(0, np.int64)

    @cached_property
    def images_lists(self) -> list[list[int]]:
        """The rows of each cluster."""
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
            moments: of the features, if they are known already.
            advance: called with the number of things done in each step; `steps` says how many of
                what that makes in all.

        Raises:
            ValueError: a row is not finite, or there are too few rows for the settings.
        """
        if self.pca is None:
            self.whitening, x = None, np.ascontiguousarray(features, np.float32)
        else:
            known = features if moments is None else moments
            self.whitening = fit_whitening(known, self.pca, self.device)
            x = self.whitening.apply(features, self.device)
        self.assignments, self.centroids, loss = self.group(x, verbose, advance)
        self.__dict__.pop("images_lists", None)
        return loss

    @abstractmethod
    def group(
        self, x: np.ndarray, verbose: bool, advance: Advance | None
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Group the whitened rows `(n, d) float32` of this process with those of the others.

        Returns:
            `assignments` and `centroids`, the same in every process, and the loss.

        Raises:
            ValueError: as `cluster`.
        """

    @staticmethod
    @abstractmethod
    def add_flags(parser: argparse.ArgumentParser) -> None:
        """Add the flags of this clustering alone."""

    @classmethod
    @abstractmethod
    def from_args(
        cls, args: argparse.Namespace, seed: int, device: torch.device, pca: Components | None
    ) -> "Clustering":
        """A clustering with the settings of the command line.

        Args:
            seed: for everything random.

        Raises:
            ValueError: a setting is out of range.
        """

    @staticmethod
    @abstractmethod
    def check(args: argparse.Namespace, count: int, what: str) -> None:
        """Check that there is enough to cluster.

        Args:
            count: number of rows.
            what: they are, such as "images of DIR".

        Raises:
            InputError: naming the flag, its value and what would be right.
        """

    @staticmethod
    @abstractmethod
    def steps(args: argparse.Namespace, count: int, what: str) -> tuple[int, str]:
        """The sum of the numbers that `advance` is called with for so many rows, and their unit."""
