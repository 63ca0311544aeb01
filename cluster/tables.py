"""Write the cluster of each image: as a table, as the released pickle, as folders of links."""

import argparse
import codecs
import csv
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np

from cluster.pickles import write_assignment
from system.cli import close_stdout
from system.errors import InputError
from system.extras import check_installed
from system.files import atomic_folder, atomic_write, check_new_file, check_new_folder
from system.names import numbered_name

TABLES = (".csv", ".parquet")

Columns = Mapping[str, np.ndarray | Sequence[str | None]]  # numbers, or texts


@dataclass(frozen=True)
class Assignment:
    """Images and their clusters.

    Attributes:
        paths: of the M images.
        clusters: `(M,) int64`.
        distances: `(M,) float32` to the centroids; None if unknown.
        each: K of clusters on two levels, whose numbers are super-cluster · K + sub-cluster.
    """

    paths: Sequence[str]
    clusters: np.ndarray
    distances: np.ndarray | None = None
    each: int | None = None

    @property
    def levels(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The super-cluster and the sub-cluster within it of each image, each `(M,) int64`; None if
        clusters have one level."""
        return None if self.each is None else divmod(self.clusters, self.each)

    def members(self) -> Iterator[tuple[int, np.ndarray]]:
        """Each non-empty cluster, ascending, and the rows of its images: the nearest to the
        centroid first, or in order if distances are unknown."""
        keys = (self.clusters,) if self.distances is None else (self.distances, self.clusters)
        order = np.lexsort(keys)
        numbers, starts = np.unique(self.clusters[order], return_index=True)
        yield from zip(numbers.tolist(), np.split(order, starts)[1:], strict=True)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """`--out`, `--pickle` and `--folders`."""
    add = parser.add_argument
    out_help = "table: CSV or Parquet, by its ending; with no output given, CSV on standard output"
    add("--out", metavar="FILE", type=Path, help=out_help)
    pickle_help = "list of (path, cluster), in the format of the released assignments"
    add("--pickle", metavar="FILE.pickle", type=Path, help=pickle_help)
    folders_help = "new folder with a subfolder of symbolic links for each cluster"
    add("--folders", metavar="DIR", type=Path, help=folders_help)


def check_outputs(args: argparse.Namespace) -> None:
    """Check that the outputs that the flags name can be written.

    Raises:
        InputError: naming the flag, its value, and what would be right.
    """
    if args.out is not None:
        check_new_file("--out", args.out, TABLES)
        check_table("--out", args.out)
    if args.pickle is not None:
        check_new_file("--pickle", args.pickle, (".pickle", ".pkl"))
    if args.folders is not None:
        check_new_folder("--folders", args.folders)


def check_table(flag: str, path: Path) -> None:
    """Check that the package for a table's format is installed.

    Raises:
        InputError: with the command that installs it.
    """
    if path.suffix.lower() == ".parquet":
        check_installed(f"{flag} {path}", "pyarrow")


def write_outputs(assignment: Assignment, args: argparse.Namespace) -> list[Path]:
    """Write the outputs that the flags name, and return their paths."""
    if args.out is not None:
        write_table(args.out, assignment)
    if args.pickle is not None:
        pairs = zip(assignment.paths, assignment.clusters.tolist(), strict=True)
        write_assignment(args.pickle, pairs)
    if args.folders is not None:
        write_folders(args.folders, assignment)
    return [path for path in (args.out, args.pickle, args.folders) if path is not None]


def write_table(path: Path, assignment: Assignment, more: Columns = MappingProxyType({})) -> None:
    """Write CSV or Parquet, by the file's ending: path, cluster, on two levels super-cluster and
    sub-cluster and, if known, distance.

    Args:
        more: further columns of M values each; None is an empty cell.
    """
    columns = {**_columns(assignment), **more}
    with atomic_write(path) as file:
        if path.suffix.lower() == ".parquet":
            _write_parquet(file, columns)
        else:
            _write_csv(file, columns)


def print_csv(assignment: Assignment) -> None:
    """Print CSV. If the reader closes the pipe, the rest is dropped without an error."""
    sys.stdout.flush()
    try:
        _write_csv(sys.stdout.buffer, _columns(assignment))
        sys.stdout.flush()
    except BrokenPipeError:
        close_stdout()


def write_folders(path: Path, assignment: Assignment) -> None:
    """Make links such as `cluster_0012/000003_name.jpg`, numbered from 0 in each cluster, in the
    order of `Assignment.members`. On two levels a cluster is in the folder of its super-cluster,
    such as `super_0001/cluster_0012`.

    Raises:
        InputError: the folder is not empty, or cannot be written.
    """
    check_new_folder("--folders", path)
    width = max(4, len(str(assignment.clusters.max(initial=0))))
    try:
        with atomic_folder(path) as folder:
            for cluster, rows in assignment.members():
                links = folder / f"cluster_{cluster:0{width}d}"
                if assignment.each is not None:
                    links = folder / f"super_{cluster // assignment.each:04d}" / links.name
                links.mkdir(parents=True)
                for number, row in enumerate(rows.tolist()):
                    image = os.path.abspath(assignment.paths[row])  # noqa: PTH100 (hot)
                    (links / numbered_name(number, image)).symlink_to(image)
    except OSError as error:
        raise InputError(f"--folders {path}: cannot write there: {error.strerror}") from error


def _write_csv(file: IO[bytes], columns: Columns) -> None:
    """CSV in UTF-8; file names that aren't UTF-8 keep their bytes."""
    text = codecs.getwriter("utf-8")(file, "surrogateescape")  # leaves the file open if it fails
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))


def _write_parquet(file: IO[bytes], columns: Columns) -> None:
    """Parquet's strings are UTF-8: bytes of a path that aren't become `\\xNN`."""
    import pyarrow
    import pyarrow.parquet

    def plain(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

    texts = {
        name: pyarrow.array(map(plain, column), pyarrow.string())
        for name, column in columns.items()
        if not isinstance(column, np.ndarray)
    }
    pyarrow.parquet.write_table(pyarrow.table({**columns, **texts}), file)


def _columns(assignment: Assignment) -> Columns:
    columns: dict[str, np.ndarray | Sequence[str | None]] = {
        "path": assignment.paths,
        "cluster": assignment.clusters,
    }
    if assignment.levels is not None:
        columns["super_cluster"], columns["sub_cluster"] = assignment.levels
    if assignment.distances is not None:
        columns["distance"] = assignment.distances
    return columns
