"""Clusters of features from a file: PCA-whitening, L2 normalisation, then k-means or PIC.

`main.py` does the same with a network's features. Under torchrun each process takes its share of
the rows.
"""

import argparse
import reprlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import system.interrupt

import numpy as np
import torch
from safetensors import safe_open

from checkpoints.clusters import save_clusters
from cluster.clusters import Clusters
from cluster.components import AUTO, add_flag
from cluster.moments import BLOCK
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
from data.images import ImageList
from data.lists import listed
from features.rows import TENSOR
from parallel import script
from parallel.collectives import rank, shard_of, together
from system import cli, device, flags
from system.device import select_compute
from system.errors import InputError, shorten
from system.files import atomic_write, check_new_file
from system.names import printable, read_text, utf8_name
from system.progress import progress
from system.safe_pickle import read_plain

DTYPES = {"float16", "float32", "float64", "F16", "F32", "F64"}  # in NumPy and in safetensors


def main(args: argparse.Namespace) -> None:
    """Check everything that can be checked, then cluster."""
    with together():
        on = select_compute(args.device).device
        if rank() == 0:
            check_outputs(args)
        count, rows = read_rows(args.features)
        check_clustering(args, count, f"rows of {args.features}")
        names = read_names(args.names, count)
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
            labels = None if names is None else ImageList(listed(Path(), names)).labels
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


def read_rows(path: Path) -> tuple[int, np.ndarray]:
    """The number N of rows in a file, and this process's share of them, `(n, D)`.

    A `.npy` file is mapped into memory. Every process reads a pickle whole.

    Raises:
        InputError: the file can't be read, or does not hold an `(N, D)` array of floats.
    """
    readers = {".npy": _read_npy, ".safetensors": _read_safetensors}
    readers |= {".pkl": _read_pickle, ".pickle": _read_pickle}
    if path.suffix not in readers:
        raise InputError(f"{path}: give a file whose name ends in {' or '.join(readers)}")
    try:
        return readers[path.suffix](path)
    except InputError:
        raise
    except Exception as error:  # damaged bytes make np.load raise almost anything
        reason = getattr(error, "strerror", None) or shorten(error)
        raise InputError(f"{path}: cannot read these features: {reason}") from error


def _read_npy(path: Path) -> tuple[int, np.ndarray]:
    # copy-on-write, as torch wants writable arrays
    array = np.load(path, mmap_mode="c", allow_pickle=False)
    _check_form(path, str(array.dtype), array.shape)
    own = shard_of(len(array))
    return len(array), array[own.start : own.stop]


def _read_safetensors(path: Path) -> tuple[int, np.ndarray]:
    with utf8_name(path) as name, safe_open(name, framework="np") as file:
        names = list(file.keys())
        if TENSOR not in names and len(names) != 1:
            there = shorten(printable(", ".join(names))) or "nothing"
            raise InputError(f"{path}: holds {there}; give one tensor, or one named {TENSOR}")
        tensor = file.get_slice(TENSOR if TENSOR in names else names[0])
        shape = tuple(tensor.get_shape())
        _check_form(path, tensor.get_dtype(), shape)
        own = shard_of(shape[0])
        return shape[0], tensor[own.start : own.stop]


def _read_pickle(path: Path) -> tuple[int, np.ndarray]:
    # "bytes" leaves the data of Python 2's arrays alone
    content = read_plain(path, "feature file", encoding="bytes")
    is_array = isinstance(content, np.ndarray)
    form = (content.dtype, content.shape) if is_array else _form_of_list(path, content)
    _check_form(path, str(form[0]), form[1])
    count = len(content)
    own = shard_of(count)
    if is_array and len(own) == count:
        return count, np.require(np.asarray(content), requirements="W")  # torch wants it writable
    rows = np.empty((len(own), form[1][1]), form[0])  # a copy: a view would keep all rows in memory
    for place, row in zip(rows, content[own.start : own.stop], strict=True):
        place[:] = row
    return count, rows


def _form_of_list(path: Path, content: Any) -> tuple[np.dtype, tuple[int, ...]]:
    """The dtype and shape of a list or tuple of N arrays `(D,)`, taken as one array.

    Raises:
        InputError: it is something else, or the file is too small to hold all rows.
    """
    if not isinstance(content, list | tuple) or not content:
        raise InputError(
            f"{path}: holds {_in_words(content)}; give an array (N, D), or a list of N arrays (D,)"
        )
    first = content[0]
    for number, row in enumerate(content):
        if not isinstance(row, np.ndarray) or (row.dtype, row.shape) != (first.dtype, first.shape):
            raise InputError(
                f"{path}: row {number} is {_in_words(row)}; give arrays (D,) of one type and length"
            )
    shape, size = (len(content), *first.shape), path.stat().st_size
    if len(content) * first.nbytes > size:  # one row, repeated, could fill the memory
        raise InputError(f"{path}: holds rows of shape {shape}, too many for its {size} bytes")
    return first.dtype, shape


def _in_words(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} and shape {value.shape}"
    return shorten(reprlib.repr(value))


def _check_form(path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or shape[1] < 1:
        raise InputError(f"{path}: holds an array of shape {shape}; give (N, D)")
    if dtype not in DTYPES:
        raise InputError(f"{path}: holds {dtype}; give float16, float32 or float64")


def check_finite(path: Path, rows: np.ndarray, first: int) -> None:
    """Check that rows are finite in float32.

    Args:
        first: the number in the file of the first of them.

    Raises:
        InputError: one is not; the message has its number.
    """
    for start in range(0, len(rows), BLOCK):
        with np.errstate(over="ignore"):
            block = np.asarray(rows[start : start + BLOCK], np.float32)
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            row = first + start + int(finite.argmin())
            raise InputError(f"{path}: row {row} is not finite (NaN, infinite or too large)")


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
    flags.add_save_clusters(parser)
    device.add_device_flag(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(script.run(main, parse_args))
