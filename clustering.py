"""Features in, pseudo-labels out (paper, section 3): `Kmeans` and `PIC`, and their flags.

Works on arrays only. Under torchrun each process passes the features of its own images; the
clusters are found among the rows of all processes and are the same in every process.

To add a clustering, write a subclass of `Clustering` and add it to `CLUSTERINGS`.
"""

import argparse
import sys

import numpy as np
import torch

from cluster.base import Clustering
from cluster.components import PAPER, Components
from cluster.kmeans import (
    INITIALISATIONS,
    ITERATIONS,
    PLAIN,
    Advance,
    KmeansOptions,
    run_kmeans,
    sum_by_cluster,
    train_kmeans,
)
from cluster.pic import (
    GRAPHS,
    check_graph,
    check_neighbours,
    check_widths,
    join_singletons,
    make_graph,
    run_pic,
)
from cluster.quality import arrange_clustering, group_by_cluster
from cluster.whitening import preprocess_features
from parallel.collectives import broadcast, gather_rows, rank, together
from system import cli
from system.errors import InputError

__all__ = [
    "CLUSTERINGS",
    "ITERATIONS",
    "PIC",
    "Clustering",
    "Kmeans",
    "KmeansOptions",
    "arrange_clustering",
    "group_by_cluster",
    "make_graph",
    "preprocess_features",
    "run_kmeans",
    "run_pic",
]


class Kmeans(Clustering):
    """k-means on PCA-whitened, normalised features; some clusters may be empty.

    Args:
        k: number of clusters, 2..N.
        seed: of the initial centroids.
        options: variants of k-means that Faiss offers.
        device, pca: as in `Clustering`.

    `cluster` calls `advance` with 1 after each of the `ITERATIONS` iterations.
    """

    has_loss = True

    def __init__(
        self,
        k: int,
        seed: int = 0,
        options: KmeansOptions = PLAIN,
        device: torch.device | None = None,
        pca: Components | None = PAPER,
    ) -> None:
        super().__init__(device, pca)
        self.k, self.seed, self.options = k, seed, options

    def group(
        self, x: np.ndarray, verbose: bool, advance: Advance | None
    ) -> tuple[np.ndarray, np.ndarray, float]:
        result = train_kmeans(
            x,
            self.k,
            verbose=verbose,
            seed=self.seed,
            options=self.options,
            device=self.device,
            advance=advance,
        )
        return result.assignment, result.centroids, result.loss

    @staticmethod
    def add_flags(parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        k_help = (
            "number of clusters; best well above the number of classes (for ImageNet, ten times)"
        )
        add("--nmb_cluster", "--k", type=cli.whole_number(2), default=10000, help=k_help)

        add = parser.add_argument_group("k-means").add_argument
        init_help = "the first centroids: random points, or points chosen to be far apart"
        add("--kmeans_init", choices=list(INITIALISATIONS), default="random", help=init_help)
        add("--spherical", action="store_true", help="keep the centroids at unit length")
        add("--float16", action="store_true", help="distances in half precision, on a GPU only")
        scratch_help = "scratch memory of Faiss on each GPU in MiB; left out: 1536"
        add("--gpu_scratch", metavar="MIB", type=cli.whole_number(0), help=scratch_help)

    @classmethod
    def from_args(
        cls, args: argparse.Namespace, seed: int, device: torch.device, pca: Components | None
    ) -> "Kmeans":
        options = KmeansOptions(args.kmeans_init, args.spherical, args.float16, args.gpu_scratch)
        return cls(args.nmb_cluster, seed, options, device, pca)

    @staticmethod
    def check(args: argparse.Namespace, count: int, what: str) -> None:
        if count < 2:
            raise InputError(f"too few {what}: {count} can be clustered, and two are needed")
        if args.nmb_cluster > count:
            raise InputError(
                f"--k {args.nmb_cluster}: more clusters than the {count} {what}; "
                f"give {count} at most, and better a tenth of that or fewer"
            )

    @staticmethod
    def steps(args: argparse.Namespace, count: int, what: str) -> tuple[int, str]:
        return ITERATIONS, "iterations"


class PIC(Clustering):
    """Power Iteration Clustering on PCA-whitened, normalised features. It finds the number of
    clusters itself; no cluster is empty.

    It computes in float64. The released code computes in float32, where rounding decides the result
    with the default sigma and alpha: 413 clusters of a set (pca=256) of which float64 finds 166.

    Args:
        sigma: width of the affinity exp(−d/σ²).
        nnn: number of nearest neighbours in the graph, 1..N−1.
        alpha: weight of the graph in the power iteration, above 0 and below 1.
        distribute_singletons: move each point that is alone into the cluster of its nearest
            neighbour.
        graph: `exact`, `approximate`, or `auto` (see `make_graph`).
        device, pca: as in `Clustering`.

    Raises:
        ValueError: sigma or alpha is out of range, or the graph is unknown.

    `cluster` returns 0, as there is no loss. It calls `advance` with the number of rows in each
    block of the graph, N in all. The centroids are the means of the clusters' whitened rows.
    """

    has_loss = False

    def __init__(
        self,
        sigma: float = 0.2,
        nnn: int = 5,
        alpha: float = 0.001,
        distribute_singletons: bool = True,
        graph: str = "auto",
        device: torch.device | None = None,
        pca: Components | None = PAPER,
    ) -> None:
        check_widths(sigma, alpha)
        check_graph(graph)
        super().__init__(device, pca)
        self.sigma, self.nnn, self.alpha = sigma, nnn, alpha
        self.distribute_singletons, self.graph = distribute_singletons, graph

    def group(
        self, x: np.ndarray, verbose: bool, advance: Advance | None
    ) -> tuple[np.ndarray, np.ndarray, float]:
        x = gather_rows(x)  # the graph needs every point
        check_neighbours(self.nnn, len(x))
        assignments = np.empty(len(x), np.int64)
        with together():  # `advance` may raise Stopped in rank 0
            if rank() == 0:
                on_gpu = self.device.type == "cuda"
                neighbours, distances = make_graph(x, self.nnn, self.graph, advance, on_gpu)
                assignments = run_pic(neighbours, distances, self.sigma, self.alpha)
                if self.distribute_singletons:
                    assignments = join_singletons(neighbours, assignments)
        assignments = broadcast(assignments)
        sizes = np.bincount(assignments)
        means = sum_by_cluster(x, assignments, len(sizes)) / sizes[:, None]
        if verbose:
            sys.stdout.write(f"PIC: {len(sizes)} clusters\n")
        return assignments, means.astype(np.float32), 0.0

    @staticmethod
    def add_flags(parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument_group("Power Iteration Clustering").add_argument
        add("--nnn", type=cli.whole_number(1), default=5, help="nearest neighbours in the graph")
        sigma_help = "width of the affinity exp(-d/sigma^2) between neighbours"
        add("--sigma", type=cli.positive_number, default=0.2, help=sigma_help)
        alpha_help = "weight of the graph in the power iteration, above 0 and below 1"
        add("--alpha", type=cli.inner_fraction, default=0.001, help=alpha_help)
        graph_help = "nearest-neighbour graph; auto: exact where that is quick"
        add("--graph", choices=GRAPHS, default="auto", help=graph_help)

    @classmethod
    def from_args(
        cls, args: argparse.Namespace, seed: int, device: torch.device, pca: Components | None
    ) -> "PIC":
        widths = {"sigma": args.sigma, "alpha": args.alpha}
        return cls(**widths, nnn=args.nnn, graph=args.graph, device=device, pca=pca)

    @staticmethod
    def check(args: argparse.Namespace, count: int, what: str) -> None:
        if args.nnn >= count:
            raise InputError(
                f"--nnn {args.nnn}: each has only {count - 1} neighbours among the {count} {what}; "
                "give fewer"
            )

    @staticmethod
    def steps(args: argparse.Namespace, count: int, what: str) -> tuple[int, str]:
        return count, what


CLUSTERINGS: dict[str, type[Clustering]] = {"Kmeans": Kmeans, "PIC": PIC}


def add_clustering_flags(parser: argparse.ArgumentParser) -> None:
    """`--clustering`, and the flags of each clustering."""
    add = parser.add_argument
    add("--clustering", choices=list(CLUSTERINGS), default="Kmeans", help="clustering algorithm")
    for kind in CLUSTERINGS.values():
        kind.add_flags(parser)


def make_clustering(
    args: argparse.Namespace, seed: int, device: torch.device, pca: Components | None
) -> Clustering:
    """The clustering that the flags ask for; arguments as in `Clustering.from_args`.

    Raises:
        InputError: a setting is out of range.
    """
    try:
        return CLUSTERINGS[args.clustering].from_args(args, seed, device, pca)
    except ValueError as error:
        raise InputError(f"--clustering {args.clustering}: {error}") from error


def check_clustering(args: argparse.Namespace, count: int, what: str) -> None:
    """Raise an InputError if there are too few rows; arguments as in `Clustering.check`."""
    CLUSTERINGS[args.clustering].check(args, count, what)


def cluster_steps(args: argparse.Namespace, count: int, what: str) -> tuple[int, str]:
    """Total and unit of the progress bar; arguments as in `Clustering.steps`."""
    return CLUSTERINGS[args.clustering].steps(args, count, what)
