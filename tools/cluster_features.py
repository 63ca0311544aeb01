"""Clusters of features from a file: PCA-whitening, L2 normalisation, then k-means or PIC.

`main.py` does the same with a network's features. Under torchrun each process takes its share of
the rows.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import system.interrupt

import numpy as np
import torch

from checkpoints.clusters import save_clusters
from cluster.clusters import Clusters
from cluster.components import AUTO, add_flag
from cluster.quality import (
    describe_labels,
    describe_sizes,
    describe_unlabelled,
    label_metrics,
    size_metrics,
    unlabelled_metrics,
)
from cluster.tables import TABLES, Assignment, check_table, write_table
from clustering import (
    Clustering,
    Kmeans,
    add_clustering_flags,
    check_clustering,
    cluster_steps,
    make_clustering,
)
from data.images import ImageList, give_labels
from data.labels_csv import add_labels_flag
from data.lists import listed
from data.packed.kinds import kind_of
from features.row_file import check_finite, read_rows
from features.rows import TENSOR
from parallel import script
from parallel.collectives import rank, shard_of, together
from system import cli, device, flags
from system.device import select_compute
from system.errors import InputError
from system.files import atomic_write, check_new_file
from system.names import read_text
from system.progress import progress


def main(args: argparse.Namespace) -> None:
    """Check everything that can be checked, then cluster."""
    with together():
        on = select_compute(args.device).device
        if rank() == 0:
            check_outputs(args)
        count, rows = read_rows(args.features)
        check_clustering(args, count, f"rows of {args.features}")
        names = read_names(args.names, count)
        labels = labels_of(names, args.labels)
        clustering = make_clustering(args, args.seed, on, args.dim_pca)
        check_finite(args.features, rows, shard_of(count).start)
    start = time.perf_counter()
    total, unit = cluster_steps(args, count, "rows")
    with progress("clustering", total, unit, rank() == 0) as advance:
        try:
            loss = clustering.cluster(rows, advance=advance)
        except ValueError as error:  # raised by all processes
            raise InputError(f"{args.features}: {error}") from error
    seconds = time.perf_counter() - start
    quality = judge(clustering, rows, on)
    with together():
        if rank() == 0:
            if remark := clustering.remark():
                sys.stdout.write(f"note: {remark}\n")
            metrics = size_metrics(clustering.assignments, len(clustering.centroids))
            shown = f", loss {loss:.6g}" if clustering.has_loss else ""
            sys.stdout.write(f"{describe_sizes(metrics)}{shown}, {seconds:.1f} s\n")
            sys.stdout.write(f"{quality}\n")
            if agreement := describe_labels(label_metrics(clustering.assignments, labels)):
                sys.stdout.write(f"{agreement}\n")
            write_assignment(args.out, clustering.assignments, names)
            sys.stdout.write(f"written to {args.out}\n")
            if args.save_clusters is not None:
                save_clusters(args.save_clusters, Clusters.of(clustering, 0))
                sys.stdout.write(f"written to {args.save_clusters}\n")


def judge(clustering: Clustering, rows: np.ndarray, device: torch.device) -> str:
    """In words, how good the clusters of this process's rows `(n, D)` are without labels."""
    whitening = clustering.whitening
    x = np.asarray(rows, np.float32) if whitening is None else whitening.apply(rows, device)
    k = clustering.k if isinstance(clustering, Kmeans) else None
    return describe_unlabelled(unlabelled_metrics(x, clustering.assignments, k))


def check_outputs(args: argparse.Namespace) -> None:
    """Check that the output files can be written.

    Raises:
        InputError: one can't.
    """
    check_new_file("--out", args.out, (".npy", *TABLES), [args.features])
    check_table("--out", args.out)
    if (args.out.suffix.lower() == ".npy") != (args.names is None):
        raise InputError(
            f"--out {args.out}: --names and a table ({' or '.join(TABLES)}) go together; an array "
            "(.npy) has no names"
        )
    if args.save_clusters is not None:
        check_new_file("--save-clusters", args.save_clusters, (".pth",))
        if args.dim_pca is None:
            raise InputError(
                f"--save-clusters {args.save_clusters}: assign.py needs clusters of whitened or "
                "normalised features; leave out --no-pca"
            )


def read_names(path: Path | None, count: int) -> list[str] | None:
    """The lines of a text file, one for each row; None without a file.

    Raises:
        InputError: the file can't be read, or has another number of lines.
    """
    if path is None:
        return None
    try:
        text = read_text(path)
    except OSError as error:
        raise InputError(f"--names {path}: cannot read it: {error.strerror}") from error
    names = [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")]
    if len(names) != count:
        raise InputError(f"--names {path}: has {len(names)} lines for {count} rows")
    return names


def labels_of(names: list[str] | None, table: Path | None) -> np.ndarray | None:
    """The labels of rows by the names of their images: of the table of `--labels`, or the folders.
    Without a table, None if images are in containers: their names don't have the labels.

    Raises:
        InputError: the table does not fit the names.
    """
    if table is None and any(map(_is_in_container, names or ())):
        return None
    if names is not None:
        return give_labels(table, ImageList(listed(Path(), names)))[0].labels
    if table is not None:
        raise InputError(f"--labels {table}: goes with --names, the paths of the rows' images")
    return None


def _is_in_container(name: str) -> bool:
    """Whether a name is such as `x/shard-0003.tar/00001234.jpg`."""
    return any(map(kind_of, name.split("/")[:-1]))


def write_assignment(path: Path, clusters: np.ndarray, names: list[str] | None) -> None:
    """Write the cluster of each row, `(N,) int64`, as an array, or with names as a table."""
    if names is not None:
        write_table(path, Assignment(names, clusters))
        return
    with atomic_write(path) as file:
        np.save(file, clusters)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Cluster features from a file.",
        example="python -m tools.cluster_features features.npy --k 1000 --names images.txt "
        "--out clusters.csv",
        details="docs/using.md",
    )
    add = parser.add_argument
    features_help = f"(N, D) floats: .npy; .safetensors with one tensor or one called {TENSOR}; "
    features_help += ".pkl or .pickle with an array or a list of rows"
    add("features", metavar="FEATURES", type=Path, help=features_help)
    add_clustering_flags(parser)
    pca_help = "dimensions that rows are whitened to; auto: as many as suit the number of rows; 0: "
    pca_help += "only normalise them"
    whitening = parser.add_mutually_exclusive_group()
    add_flag(whitening, AUTO, pca_help, "--dim_pca", "--pca")
    whitening.add_argument(
        "--no-pca", action="store_const", const=None, default=argparse.SUPPRESS, dest="dim_pca",
        help="cluster raw rows, neither whitened nor normalised",
    )  # fmt: skip
    flags.add_seed(parser, "of the first centroids")
    out_help = "(N,) int64 as .npy, or with --names a table, .csv or .parquet"
    add("--out", metavar="FILE", type=Path, default=Path("assignment.npy"), help=out_help)
    names_help = "text file with a line for each row, such as the path of its image"
    add("--names", metavar="FILE.txt", type=Path, help=names_help)
    add_labels_flag(parser)
    flags.add_save_clusters(parser)
    device.add_device_flag(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(script.run(main, parse_args))
