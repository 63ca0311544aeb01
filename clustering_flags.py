"""The clustering as a command line has it: flags that scripts share, and what they stand for."""

import argparse

import torch

from cluster.kmeans import INITIALISATIONS
from cluster.pic import GRAPHS
from cluster.whitening import PCA
from clustering import ITERATIONS, PIC, Kmeans, KmeansOptions
from system import cli
from system.errors import InputError


def add_flags(parser: argparse.ArgumentParser) -> None:
    """`--clustering`, `--nmb_cluster`, and a group of flags for each algorithm."""
    add = parser.add_argument
    add("--clustering", choices=["Kmeans", "PIC"], default="Kmeans", help="clustering algorithm")
    k_help = "number of clusters; well above the number of classes, for ImageNet ten times, is best"
    add("--nmb_cluster", "--k", type=cli.whole_number(2), default=10000, help=k_help)

    add = parser.add_argument_group("k-means").add_argument
    init_help = "the first centroids: random points, or points chosen to be far apart"
    add("--kmeans_init", choices=list(INITIALISATIONS), default="random", help=init_help)
    add("--spherical", action="store_true", help="keep the centroids at unit length")
    add("--float16", action="store_true", help="distances in half precision, on a GPU only")
    scratch_help = "scratch memory of Faiss on each GPU in MiB; left out: 1536"
    add("--gpu_scratch", metavar="MIB", type=cli.whole_number(0), help=scratch_help)

    add = parser.add_argument_group("Power Iteration Clustering").add_argument
    add("--nnn", type=cli.whole_number(1), default=5, help="nearest neighbours in the graph")
    sigma_help = "width of the affinity exp(-d/sigma^2) between neighbours"
    add("--sigma", type=cli.positive_number, default=0.2, help=sigma_help)
    alpha_help = "weight of the graph in the power iteration, above 0 and below 1"
    add("--alpha", type=cli.inner_fraction, default=0.001, help=alpha_help)
    graph_help = "auto: exact for as long as that is quick"
    add("--graph", choices=GRAPHS, default="auto", help=graph_help)


def make_clustering(
    args: argparse.Namespace, seed: int, device: torch.device, pca: int | None = PCA
) -> Kmeans | PIC:
    """The algorithm that `--clustering` names, with its settings.

    Args:
        seed: of the first centroids.
        pca: components; None clusters rows as they are.

    Raises:
        InputError: it refuses them.
    """
    try:
        if args.clustering == "PIC":
            widths = {"sigma": args.sigma, "alpha": args.alpha}
            return PIC(**widths, nnn=args.nnn, graph=args.graph, device=device, pca=pca)
        options = KmeansOptions(args.kmeans_init, args.spherical, args.float16, args.gpu_scratch)
        return Kmeans(args.nmb_cluster, seed, options, device, pca)
    except ValueError as error:
        raise InputError(f"--clustering {args.clustering}: {error}") from error


def check_clustering(args: argparse.Namespace, count: int, what: str) -> None:
    """Check that there is enough to cluster.

    Args:
        count: how many there are.
        what: of what, as in "images of DIR".

    Raises:
        InputError: naming the flag, its value and what would be right.
    """
    if args.clustering == "Kmeans" and args.nmb_cluster > count:
        raise InputError(
            f"--nmb_cluster {args.nmb_cluster}: more clusters than the {count} {what}; "
            f"give {count} at most, and better a tenth of that or fewer"
        )
    if args.clustering == "PIC" and args.nnn >= count:
        raise InputError(
            f"--nnn {args.nnn}: each has only {count - 1} neighbours among the {count} {what}; "
            "give fewer"
        )


def cluster_steps(args: argparse.Namespace, count: int, what: str) -> tuple[int, str]:
    """What the progress of clustering so many things counts: how many of what."""
    if args.clustering == "PIC":
        return count, what
    return ITERATIONS, "iterations"
