"""A run's own images and their clusters at any epoch, or by the finished network's prototypes.

Reads `assignments/` and `images.txt` of the experiment folder. A folder without assignments, such
as one of the original code, has a `clusters` pickle; without images.txt, `--data` gives the images.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import system.interrupt

import numpy as np

from cluster import tables as assignment_files
from cluster.pickles import read_clusters
from cluster.quality import describe_labels, describe_supers, label_metrics, super_metrics
from cluster.tables import Assignment, check_outputs, print_csv, write_outputs
from data.images import ImageList, find_images
from system import cli, flags
from system.errors import InputError
from training import assignments
from training.finished_run import Levels, read_run


def main(args: argparse.Namespace) -> None:
    check_outputs(args)
    images, epoch, clusters, levels = read_assignment(args)
    if args.folders is not None:
        images.require_files("--folders")
    rows = np.flatnonzero(clusters >= 0)
    paths, each = [images.where(row) for row in rows.tolist()], None
    supers = ""
    if levels is not None and len(rows) > 0:
        each = levels.each
        supers = describe_supers(super_metrics(clusters, *levels, images.labels))
    assignment = Assignment(paths, clusters[rows], each=each)
    left_out = f" ({len(images) - len(rows)} left out)" if len(rows) < len(images) else ""
    said = [
        f"{len(rows)} images{left_out} in {len(set(clusters[rows]))} clusters",
        describe_labels(label_metrics(clusters, images.labels)),
        supers,
    ]
    of = "prototypes" if epoch is None else f"epoch {epoch}"
    sys.stderr.write(f"{of}: {'; '.join(filter(None, said))}\n")
    written = write_outputs(assignment, args)
    if not written:
        print_csv(assignment)
    for path in written:
        sys.stderr.write(f"written to {path}\n")


def read_assignment(
    args: argparse.Namespace,
) -> tuple[ImageList, int | None, np.ndarray, Levels | None]:
    """The run's images, the epoch (None for `--prototypes`), the cluster of each image, `(N,)
    int64`, −1 for none, and how the clusters are numbered on two levels.

    Raises:
        InputError: the folder does not hold them, or `--folders` can't find the images.
    """
    levels = None
    if args.prototypes or (args.exp / "images.txt").is_file():
        run = read_run(args.exp, args.data)
        try:
            run.require_images()
        except InputError as error:
            if args.folders is not None:
                raise
            sys.stderr.write(f"note: {error}\n")
        if args.prototypes:
            return run.images, None, by_prototypes(args.exp, len(run.images)), None
        if run.epochs or run.why_no_clusters:
            epoch = run.chosen_epoch(args.epoch)
            return run.images, epoch, run.assignment(epoch), run.levels
        images, levels = run.images, run.levels
    elif not (args.exp / "clusters").is_file():
        raise InputError(f"{args.exp}: not a run's folder: has neither images.txt nor clusters")
    elif args.data is None:
        raise InputError(f"{args.exp}: has no images.txt; give the run's images with --data")
    else:
        images = find_images(args.data)
    return images, *from_pickle(args.exp / "clusters", args.epoch, images), levels


def by_prototypes(exp: Path, images: int) -> np.ndarray:
    """The clusters of the finished network's prototypes, `(N,) int64`.

    Args:
        images: N.

    Raises:
        InputError: the folder has none, or not of N images.
    """
    path = assignments.prototypes_path(exp)
    if not path.exists():
        raise InputError(
            f"--prototypes: {path} does not exist; only a finished run of SwAV or DeepCluster-v2 "
            "has it, and assign.py --prototypes works with every checkpoint of theirs"
        )
    return assignments.read_assignment(path, images)


def from_pickle(path: Path, epoch: int | None, images: ImageList) -> tuple[int, np.ndarray]:
    """The epoch (from 0 on) and the cluster of each image, from a `clusters` pickle.

    Raises:
        InputError: the pickle has no such epoch, or has clusters of other images.
    """
    epochs = read_clusters(path)
    if not epochs:
        raise InputError(f"{path}: no clusters yet")
    epoch = len(epochs) - 1 if epoch is None else epoch
    if epoch >= len(epochs):
        raise InputError(f"--epoch {epoch}: {path} has the epochs 0 to {len(epochs) - 1}")
    sizes = [len(members) for members in epochs[epoch]]
    members = np.array([image for members in epochs[epoch] for image in members], np.int64)
    # the original code leaves no image out, so a smaller number means other images
    incomplete = len(members) < len(images) and not (path.parent / "images.txt").is_file()
    if incomplete or len(members) > len(images) or not all(0 <= i < len(images) for i in members):
        raise InputError(
            f"{path}: holds clusters of {len(members)} images, {images.root} has {len(images)}; "
            "give the run's images with --data"
        )
    clusters = np.full(len(images), -1, np.int64)
    clusters[members] = np.repeat(np.arange(len(sizes)), sizes)
    return epoch, clusters


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Write the cluster of each of a run's images.",
        example="python -m tools.export_clusters exp/001 --epoch 2 --out epoch_2.csv",
        details="docs/using.md",
    )
    parser.add_argument("exp", metavar="EXP", type=Path, help="experiment folder")
    source = parser.add_mutually_exclusive_group()
    flags.add_epoch(source)
    prototypes_help = "take the prototype of each image, by the finished network of SwAV or "
    prototypes_help += "DeepCluster-v2"
    source.add_argument("--prototypes", action="store_true", help=prototypes_help)
    data_help = "the run's images, if they have moved, or EXP has no images.txt"
    flags.add_run_data(parser, data_help)
    assignment_files.add_flags(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
