"""Assign new images to clusters: the nearest centroid of each image, and the distance to it.

Each image's embedding is whitened and normalised like the features that were clustered; the
distance is Euclidean, 0 to 2. The clusters come from the checkpoint, from a file of --clusters, or
from k-means on these images (--recluster).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import system.interrupt

import numpy as np

from checkpoints.checkpoint import digest_of
from checkpoints.clusters import clusters_of, load_clusters, save_clusters
from checkpoints.prototypes import prototypes_of
from cluster import components
from cluster import tables as assignment_files
from cluster.clusters import Clusters
from cluster.quality import (
    describe_labels,
    describe_sizes,
    describe_supers,
    describe_unlabelled,
    label_metrics,
    size_metrics,
    super_metrics,
    unlabelled_metrics,
)
from cluster.tables import Assignment, check_outputs, print_csv, write_outputs
from clustering import ITERATIONS, Kmeans
from data.images import ImageList, check_alike
from data.labels_csv import add_labels_flag
from features import network
from features.forward import Features
from features.network import Applied, open_inputs
from models.prototypes import Prototypes
from parallel import script
from parallel.collectives import gather_rows, rank, together
from system import cli, flags
from system.errors import InputError
from system.files import atomic_write, check_new_file
from system.progress import progress
from visu.contact_sheet import Strip, Thumbnails, contact_sheet

MOST_STRIPS = 100  # clusters on a contact sheet
COLUMNS, SIDE = 10, 96  # pictures per cluster, and their size in pixels


def main(args: argparse.Namespace) -> None:
    """Check everything that can be checked, then assign."""
    with together():
        if rank() == 0:
            check_all_outputs(args)
        inputs = open_inputs(args)
        if args.folders is not None:
            inputs.images.require_files("--folders")
        clusters = find_clusters(args, inputs)
    check_alike(inputs.images)
    with progress("features", len(inputs.own), "images", rank() == 0) as advance:
        features = inputs.features(advance)
    present = gather_rows(features.present)
    check_readable(args, present)
    if clusters is None:
        clusters = recluster(args, inputs, features)
    own = clusters.assign(features.rows, inputs.compute.device)
    nearest, distances = map(gather_rows, own)
    quality = judge(args, clusters, inputs, features, nearest)
    with together():
        if rank() == 0:
            images = inputs.images.take(np.flatnonzero(present))
            each = clusters.each if isinstance(clusters, Clusters) else None
            assignment = Assignment(images.names, nearest, distances, each)
            write_all(args, assignment, clusters, inputs, images, quality)


def find_clusters(args: argparse.Namespace, inputs: Applied) -> Clusters | Prototypes | None:
    """The clusters to assign to; None for `--recluster`, which finds them later.

    Raises:
        InputError: there are no clusters, they are malformed, or there are too few images for K.
    """
    if args.recluster is not None:
        if args.recluster > len(inputs.images):
            raise InputError(
                f"--recluster {args.recluster}: more clusters than the {len(inputs.images)} images"
            )
        return None
    if args.dim_pca is not None:
        raise InputError(f"--dim_pca {args.dim_pca}: only --recluster whitens anew; add it")
    if args.prototypes:
        if args.save_clusters is not None:
            raise InputError(f"--save-clusters {args.save_clusters}: keeps no --prototypes")
        return prototypes_of(inputs.checkpoint, args.model, inputs.model)
    dim = inputs.model.embedding_dim
    if args.clusters is not None:
        return load_clusters(args.clusters, dim, digest_of(inputs.model), inputs.size)
    clusters = clusters_of(inputs.checkpoint, args.model, dim)
    if clusters is None:
        raise InputError(
            f"{args.model}: holds no clusters; give --recluster K to find K among these images, or "
            "a file of --clusters"
        )
    epoch, step = (inputs.checkpoint.get(name, 0) for name in ("epoch", "step"))
    if rank() == 0 and (clusters.epoch != epoch or step):
        sys.stderr.write(
            f"note: {args.model} is not from a finished run: its clusters were found before epoch "
            f"{clusters.epoch}, and the network has been trained since\n"
        )
    return clusters


def check_readable(args: argparse.Namespace, present: np.ndarray) -> None:
    """Check that enough images could be read. The limit of 1 % unreadable images in training does
    not apply here, because each image is assigned independently.

    Args:
        present: `(N,) bool`, whether an image has features.

    Raises:
        InputError: no image could be read, or fewer than K of --recluster.
    """
    count = int(present.sum())
    if count == 0:
        raise InputError(f"none of the {len(present)} images can be read")
    if args.recluster is not None and args.recluster > count:
        raise InputError(
            f"--recluster {args.recluster}: more clusters than the {count} images that can be read"
        )


def recluster(args: argparse.Namespace, inputs: Applied, features: Features) -> Clusters:
    """k-means of these images."""
    pca = inputs.usual_pca if args.dim_pca is None else args.dim_pca
    kmeans = Kmeans(args.recluster, args.seed, device=inputs.compute.device, pca=pca)
    with progress("clustering", ITERATIONS, "iterations", rank() == 0) as advance:
        kmeans.cluster(features.rows, moments=features.moments, advance=advance)
    if rank() == 0 and (remark := kmeans.remark()):
        sys.stderr.write(f"note: {remark}\n")
    epoch = inputs.checkpoint.get("epoch")
    return Clusters.of(kmeans, epoch if isinstance(epoch, int) else 0)


def judge(
    args: argparse.Namespace,
    clusters: Clusters | Prototypes,
    inputs: Applied,
    features: Features,
    nearest: np.ndarray,
) -> str:
    """In words, how good the clusters `(N,) int64` are without labels; empty for prototypes."""
    if isinstance(clusters, Prototypes):
        return ""
    rows = clusters.whitening.apply(features.rows, inputs.compute.device)
    return describe_unlabelled(unlabelled_metrics(rows, nearest, args.recluster))


def check_all_outputs(args: argparse.Namespace) -> None:
    """Check that all outputs that the flags name can be written.

    Raises:
        InputError: naming the flag, its value, and what would be right.
    """
    check_outputs(args)
    if args.contact_sheet is not None:
        check_new_file("--contact-sheet", args.contact_sheet, (".png",))
    if args.save_clusters is not None:
        read = args.model, args.clusters
        check_new_file("--save-clusters", args.save_clusters, (".pth",), read)


def write_all(
    args: argparse.Namespace,
    assignment: Assignment,
    clusters: Clusters | Prototypes,
    inputs: Applied,
    assigned: ImageList,
    quality: str,
) -> None:
    """Write the outputs that the flags name, and a summary to stderr.

    Args:
        assigned: the images in the assignment.
        quality: of the clusters, in words.

    Raises:
        InputError: an output can't be written.
    """
    k, images = len(clusters.centroids), len(inputs.images)
    left_out = images - len(assignment.paths)
    assert assignment.distances is not None
    found, each, labels = assignment.clusters, assignment.each, assigned.labels
    said = [
        describe_sizes(size_metrics(found, k)),
        describe_labels(label_metrics(found, labels)),
        quality,
        "" if each is None else describe_supers(super_metrics(found, each, k // each, labels)),
        f"distance {assignment.distances.mean():.3f} on average",
    ]
    sys.stderr.write(f"{len(assignment.paths)} images: {'; '.join(filter(None, said))}\n")
    if left_out:
        sys.stderr.write(f"{left_out} of {images} images left out: unreadable\n")
    written = write_outputs(assignment, args)
    if args.contact_sheet is not None:
        with atomic_write(args.contact_sheet) as file:
            contact_sheet(strips_of(assignment, assigned), COLUMNS, SIDE).save(file, "PNG")
        written.append(args.contact_sheet)
    if not written:
        print_csv(assignment)
    if isinstance(clusters, Clusters) and args.save_clusters is not None:
        save_clusters(args.save_clusters, clusters, digest_of(inputs.model), inputs.size)
        written.append(args.save_clusters)
    for path in written:
        sys.stderr.write(f"written to {path}\n")


def strips_of(assignment: Assignment, images: ImageList) -> list[Strip]:
    """The nearest images of each of the largest clusters, by super-cluster if there are any, the
    largest first."""
    distances, each = assignment.distances, assignment.each
    assert distances is not None

    def strip(cluster: int, rows: np.ndarray) -> Strip:
        above = "" if each is None else f"super-cluster {cluster // each}, "
        said = f"cluster {cluster}: {len(rows)} images, mean distance {distances[rows].mean():.3f}"
        return Strip(above + said, Thumbnails(images, rows[:COLUMNS].tolist(), SIDE))

    largest = sorted(assignment.members(), key=lambda found: -len(found[1]))[:MOST_STRIPS]
    if each is not None:
        largest.sort(key=lambda found: found[0] // each)
    return [strip(cluster, rows) for cluster, rows in largest]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Assign images to the clusters of a trained network.",
        example="python assign.py exp/001/checkpoint.pth.tar /new/images --out new.csv "
        "--contact-sheet new.png",
        details="docs/using.md",
    )
    network.add_flags(parser)
    add_labels_flag(parser)
    assignment_files.add_flags(parser)
    add = parser.add_argument
    sheet_help = f"picture of the {MOST_STRIPS} largest clusters' nearest images"
    add("--contact-sheet", metavar="FILE.png", type=Path, help=sheet_help)
    source = parser.add_mutually_exclusive_group().add_argument
    clusters_help = "use the clusters of this file (see --save-clusters), not the checkpoint's"
    source("--clusters", metavar="FILE.pth", type=Path, help=clusters_help)
    recluster_help = "find K clusters among these images, with k-means"
    source("--recluster", metavar="K", type=cli.whole_number(2), help=recluster_help)
    prototypes_help = "use the network's own prototypes (SwAV, DeepCluster-v2), not the k-means of "
    source("--prototypes", action="store_true", help=prototypes_help + "its features")
    dim_help = (
        "dimensions that --recluster whitens features to; auto: as many as suit the number of "
    )
    components.add_flag(
        parser,
        None,
        dim_help + "images; 0: no whitening; left out: auto; timm's: 0",
    )
    flags.add_seed(parser, "of --recluster's first centroids")
    flags.add_save_clusters(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(script.run(main, parse_args))
