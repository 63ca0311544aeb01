"""DeeperCluster's flags, the number of classes on both levels, and checks of both."""

import argparse

from cluster import components
from cluster.components import AUTO
from cluster.hierarchy import ITERATIONS
from methods.fitting import IMAGES_EACH, MOST_PROTOTYPES, clusters_for
from parallel.collectives import world_size
from system import cli, flags
from system.errors import InputError

TURNS = 4  # rotations of an image
DIM_PCA_HELP = (
    "dimensions that features are whitened to for the pseudo-labels; auto: as many as suit the "
    "number of images; 0: no whitening; the paper takes all 4096"
)
FINAL_DIM_PCA_HELP = "the same for the finished network's clusters, which are the run's result"


def cluster_counts(super_classes: int, rotnet: bool, k: int) -> tuple[int, int]:
    """The number m of super-clusters: a fourth of the super-classes, or with `rotnet` False all of
    them; and the number K of sub-clusters of each: k // m."""
    m = max(super_classes // TURNS, 1) if rotnet else super_classes
    return m, max(k // m, 1)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags for the classes, the clustering and batch norm."""
    group = parser.add_argument_group("DeeperCluster")
    add = group.add_argument
    k_help = "number of clusters in all, equally many in each super-cluster; 1: rotations only"
    add("--nmb_cluster", "--k", type=cli.whole_number(1), default=10000, help=k_help)
    super_help = "number of super-classes: super-clusters times 4 rotations, or super-clusters"
    add("--super_classes", type=cli.whole_number(1), default=TURNS, help=super_help)
    rotnet_help = "whether images are turned and the network learns their rotation"
    add("--rotnet", metavar="{true,false}", type=cli.truth, default=True, help=rotnet_help)
    reassignment_help = "epochs between two clusterings, after each of which heads are new"
    add("--reassignment", type=cli.whole_number(1), default=3, help=reassignment_help)
    niter_help = "updates of the centroids in a clustering"
    add("--niter", type=cli.whole_number(1), default=ITERATIONS, help=niter_help)
    components.add_flag(group, AUTO, DIM_PCA_HELP)
    components.add_flag(group, AUTO, FINAL_DIM_PCA_HELP, "--final_dim_pca")
    flags.add_sync_bn(group, "none")
    shard_help = "spread the heads of sub-classes over the processes, if a GPU can't hold them"
    add("--shard_heads", action="store_true", help=shard_help)
    parser.set_defaults(lr=0.1, epochs=100)


def fit(args: argparse.Namespace, images: int) -> list[str]:
    """Lines on the number of clusters, where it is not `--k`."""
    k = args.nmb_cluster
    m, each = cluster_counts(args.super_classes, args.rotnet, k)
    if k == 1:
        reason = f"one for {IMAGES_EACH} images, and no more than {MOST_PROTOTYPES}"
        learns = "--k 1: RotNet, which learns rotations; only the finished network gets clusters"
        return [f"{learns}, {clusters_for(images)}: {reason}"]
    if m * each in (k, m):  # fewer clusters than super-clusters are an error of `check`
        return []
    return [f"--k {k}: {m * each} clusters, {each} in each of {m} super-clusters"]


def check(args: argparse.Namespace, images: int) -> None:
    """Fail early on flags that don't fit each other or the number of images.

    Raises:
        InputError: naming the flag, its value and what would be right.
    """
    _check_classes(args.super_classes, args.rotnet, args.nmb_cluster)
    if args.nmb_cluster > images:
        raise InputError(
            f"--k {args.nmb_cluster}: more clusters than the {images} images of {args.data}; "
            f"give {images} at most, and better a tenth of that or fewer"
        )
    _check_batch(args.batch, args.super_classes, images, TURNS if args.rotnet else 1)
    if args.shard_heads:
        _check_sharding(args)


def check_readable(args: argparse.Namespace, images: int) -> None:
    """Raise an InputError if fewer images can be read than there are super-clusters."""
    m, _ = cluster_counts(args.super_classes, args.rotnet, args.nmb_cluster)
    if m > images:
        most = images * (args.super_classes // m)
        raise InputError(
            f"--super_classes {args.super_classes}: {m} super-clusters, more than the {images} "
            f"images of {args.data} that can be read; give {most} at most"
        )


def _check_classes(classes: int, rotnet: bool, k: int) -> None:
    if rotnet and classes % TURNS:
        nearest = max(round(classes / TURNS), 1) * TURNS
        raise InputError(
            f"--super_classes {classes}: must be a multiple of {TURNS} with rotations; give "
            f"{nearest}, or --rotnet false"
        )
    m, _ = cluster_counts(classes, rotnet, k)
    if k < m:
        raise InputError(
            f"--k {k}: fewer than the {m} super-clusters; give {m} or more, or fewer "
            "--super_classes"
        )
    if k == classes == 1:
        raise InputError("--k 1: without rotations nothing is left to learn; give 2 or more")


def _check_batch(batch: int, classes: int, images: int, rotations: int) -> None:
    most, most_classes = images // classes * classes, images // rotations * rotations
    if not most:
        advice = f"give {most_classes} at most" if most_classes else "give more images"
        raise InputError(
            f"--super_classes {classes}: each batch has images of each super-class, more than the "
            f"{images} images; {advice}"
        )
    if batch > images:
        raise InputError(
            f"--batch {batch}: more than the {images} images; only whole batches are trained on, "
            f"so give {most} at most"
        )
    if rest := batch % classes:
        below, above = batch - rest, batch - rest + classes
        nearest = below if below and (2 * rest <= classes or above > images) else above
        raise InputError(
            f"--batch {batch}: each batch has equally many images of each of {classes} "
            f"super-classes; give {nearest}, or another multiple of {classes}"
        )


def _check_sharding(args: argparse.Namespace) -> None:
    _, each = cluster_counts(args.super_classes, args.rotnet, args.nmb_cluster)
    if each < world_size():
        raise InputError(
            f"--shard_heads: --k {args.nmb_cluster} gives each super-class {each} sub-classes, "
            f"fewer than the {world_size()} processes; leave it out"
        )
    if args.precision == "fp16":
        raise InputError(
            "--shard_heads: not with --precision fp16, in which each process would skip other "
            "steps; give bf16 or fp32"
        )
