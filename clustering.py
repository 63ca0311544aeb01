"""Features in, pseudo-labels out (paper, section 3): `Kmeans` and `PIC`.

Knows arrays only: no images, no data sets, no networks. Under torchrun each process gives the
features of its own images; the clusters are those of all, the same in every process.
"""

import sys
from functools import cached_property

import numpy as np
import torch

from cluster.kmeans import (
    ITERATIONS,
    PLAIN,
    Advance,
    KmeansOptions,
    run_kmeans,
    sum_by_cluster,
    train_kmeans,
)
from cluster.pic import (
    check_graph,
    check_neighbours,
    check_widths,
    join_singletons,
    make_graph,
    run_pic,
)
from cluster.quality import group_by_cluster
from cluster.whitening import PCA, Moments, Whitening, fit_whitening, preprocess_features
from parallel.collectives import broadcast, gather_rows, rank, together
from system.device import select_compute

__all__ = [
    "ITERATIONS",
    "PIC",
    "Kmeans",
    "KmeansOptions",
    "group_by_cluster",
    "make_graph",
    "preprocess_features",
    "run_kmeans",
    "run_pic",
]


class Kmeans:
    """k-means on PCA-whitened, normalised features.

    Args:
        k: number of clusters.
        seed: of the initial centroids.
        options: what Faiss offers beyond plain k-means.
        device: that computes; None takes a GPU where there is one.
        pca: components of the PCA; None clusters the rows as they are, neither whitened nor
            normalised.

    Attributes (after `cluster`):
        assignments: `(N,) int64`, the cluster of each row; with many processes, of the rows of all,
            in the order of the ranks.
        images_lists: list of k lists of row numbers; a cluster may be empty.
        whitening: the `Whitening` that was fitted; None without a PCA.
        centroids: `(k, pca) float32`, among the whitened rows.
    """

    def __init__(
        self,
        k: int,
        seed: int = 0,
        options: KmeansOptions = PLAIN,
        device: torch.device | None = None,
        pca: int | None = PCA,
    ) -> None:
        self.k, self.seed, self.options, self.pca = k, seed, options, pca
        self.device = device or select_compute().device
        self.assignments = np.empty(0, np.int64)

    @cached_property
    def images_lists(self) -> list[list[int]]:
        """The rows of each cluster."""
        return group_by_cluster(self.assignments, self.k)

    def cluster(
        self,
        features: np.ndarray,
        verbose: bool = False,
        moments: Moments | None = None,
        advance: Advance | None = None,
    ) -> float:
        """Cluster `(N, D)` features of any floating type and return the k-means loss.

        Args:
            verbose: print each iteration.
            moments: of the features, if they are known already.
            advance: called with 1 after each of the `ITERATIONS` iterations.

        Raises:
            ValueError: k is not in 2..N, or a row is not finite.
        """
        self.whitening, x = _whiten(features, moments, self.pca, self.device)
        result = train_kmeans(
            x,
            self.k,
            verbose=verbose,
            seed=self.seed,
            options=self.options,
            device=self.device,
            advance=advance,
        )
        self.assignments, self.centroids = result.assignment, result.centroids
        self.__dict__.pop("images_lists", None)
        return result.loss


class PIC:
    """Power Iteration Clustering on PCA-whitened, normalised features; it finds the number of
    clusters by itself.

    Args:
        sigma: width of the affinity exp(−d/σ²).
        nnn: number of nearest neighbours in the graph.
        alpha: weight of the graph in the power iteration, above 0 and below 1.
        distribute_singletons: let a cluster of one join its nearest neighbour's.
        graph: `exact`, `approximate`, or `auto`: exact for as long as that is quick.
        device: that computes; None takes a GPU where there is one.
        pca: as in `Kmeans`.

    Raises:
        ValueError: sigma or alpha is out of range, or an unknown graph.

    Attributes (after `cluster`):
        assignments, images_lists, whitening: as in `Kmeans`; no cluster is empty.
        centroids: `(C, pca) float32`, the mean of each cluster's whitened rows.
    """

    def __init__(
        self,
        sigma: float = 0.2,
        nnn: int = 5,
        alpha: float = 0.001,
        distribute_singletons: bool = True,
        graph: str = "auto",
        device: torch.device | None = None,
        pca: int | None = PCA,
    ) -> None:
        check_widths(sigma, alpha)
        check_graph(graph)
        self.sigma, self.nnn, self.alpha, self.pca = sigma, nnn, alpha, pca
        self.distribute_singletons, self.graph = distribute_singletons, graph
        self.device = device or select_compute().device
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
        """Cluster `(N, D)` features of any floating type. Returns 0, since PIC has no loss.

        Args:
            verbose: print the number of clusters.
            moments: of the features, if they are known already.
            advance: told how many rows each step of the graph has done, N in all.

        Raises:
            ValueError: nnn is not in 1..N−1, or a row is not finite.
        """
        self.whitening, x = _whiten(features, moments, self.pca, self.device)
        x = gather_rows(x)  # the graph needs every point
        check_neighbours(self.nnn, len(x))
        assignments = np.empty(len(x), np.int64)
        with together():  # `advance` may stop the one that works
            if rank() == 0:
                on_gpu = self.device.type == "cuda"
                neighbours, distances = make_graph(x, self.nnn, self.graph, advance, on_gpu)
                assignments = run_pic(neighbours, distances, self.sigma, self.alpha)
                if self.distribute_singletons:
                    assignments = join_singletons(neighbours, assignments)
        self.assignments = broadcast(assignments)
        self.centroids = _means(x, self.assignments)
        self.__dict__.pop("images_lists", None)
        if verbose:
            sys.stdout.write(f"PIC: {len(self.centroids)} clusters\n")
        return 0.0


def _whiten(
    features: np.ndarray, moments: Moments | None, pca: int | None, device: torch.device
) -> tuple[Whitening | None, np.ndarray]:
    if pca is None:
        return None, np.ascontiguousarray(features, np.float32)
    whitening = fit_whitening(features if moments is None else moments, pca, device)
    return whitening, whitening.apply(features, device)


def _means(x: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """The mean `(C, d) float32` of the rows of each cluster, none of them empty."""
    sizes = np.bincount(clusters)
    return (sum_by_cluster(x, clusters, len(sizes)) / sizes[:, None]).astype(np.float32)
