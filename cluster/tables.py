"""Which image is in which cluster, as files: tables, the released pickle, folders of links."""

import argparse
import csv
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from cluster.pickles import write_assignment
from system.cli import close_stdout
from system.errors import InputError
from system.extras import check_installed
from system.files import atomic_folder, atomic_write, check_new_file, check_new_folder

TABLES = (".csv", ".parquet")
LONGEST_NAME = 255  # bytes, of a file on most systems


@dataclass(frozen=True)
class Assignment:
    """Images and their clusters.

    Attributes:
        paths: files to open, M.
        clusters: `(M,) int64`.
        distances: `(M,) float32` to the centroids, where they are known.
    """

    paths: list[str]
    clusters: np.ndarray
    distances: np.ndarray | None = None

    def members(self) -> Iterator[tuple[int, np.ndarray]]:
        """Each cluster that is not empty, ascending, and the rows of its images: the nearest to the
        centroid first, or in their order where distances are not known."""
        keys = (self.clusters,) if self.distances is None else (self.distances, self.clusters)
        order = np.lexsort(keys)
        numbers, starts = np.unique(self.clusters[order], return_index=True)
        yield from zip(numbers.tolist(), np.split(order, starts)[1:], strict=True)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """`--out`, `--pickle` and `--folders`."""
    add = parser.add_argument
    out_help = "table, by its ending CSV or Parquet; with no output given, CSV on standard output"
    add("--out", metavar="FILE", type=Path, help=out_help)
    pickle_help = "the format of the released assignments: a list of (path, cluster)"
    add("--pickle", metavar="FILE.pickle", type=Path, help=pickle_help)
    folders_help = "new folder, with a folder for each cluster, of symbolic links to its images"
    add("--folders", metavar="DIR", type=Path, help=folders_help)


def check_outputs(args: argparse.Namespace) -> None:
    """Check that what the flags ask for can be written.

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
    """Write what the flags ask for. Returns the files and folders that are there then."""
    if args.out is not None:
        write_table(args.out, assignment)
    if args.pickle is not None:
        pairs = zip(assignment.paths, assignment.clusters.tolist(), strict=True)
        write_assignment(args.pickle, pairs)
    if args.folders is not None:
        write_folders(args.folders, assignment)
    return [path for path in (args.out, args.pickle, args.folders) if path is not None]


def write_table(path: Path, assignment: Assignment) -> None:
    """Write CSV or Parquet, by the file's ending: path, cluster and, where known, distance."""
    with atomic_write(path) as file:
        if path.suffix.lower() == ".parquet":
            _write_parquet(file, assignment)
        else:
            _write_csv(file, assignment)


def print_csv(assignment: Assignment) -> None:
    """Print CSV; a reader that has enough of it may close the pipe."""
    sys.stdout.flush()
    try:
        _write_csv(sys.stdout.buffer, assignment)
        sys.stdout.flush()
    except BrokenPipeError:
        close_stdout()


def write_folders(path: Path, assignment: Assignment) -> None:
    """Make links such as `cluster_0012/000003_name.jpg`, numbered from 0 in each cluster, in the
    order of `Assignment.members`.

    Raises:
        InputError: the folder is no longer new or empty, or cannot be written.
    """
    check_new_folder("--folders", path)
    width = max(4, len(str(assignment.clusters.max(initial=0))))
    try:
        with atomic_folder(path) as folder:
            for cluster, rows in assignment.members():
                links = folder / f"cluster_{cluster:0{width}d}"
                links.mkdir()
                for number, row in enumerate(rows.tolist()):
                    image = os.path.abspath(assignment.paths[row])  # noqa: PTH100 (hot)
                    (links / _link_name(number, image)).symlink_to(image)
    except OSError as error:
        raise InputError(f"--folders {path}: cannot write there: {error.strerror}") from error


def _link_name(number: int, image: str) -> str:
    """The image's name with its number in front, and not longer than a name may be: an end with the
    extension stays."""
    name = f"{number:06d}_"
    end = os.path.basename(image)  # noqa: PTH119 (hot)
    while len(os.fsencode(name + end)) > LONGEST_NAME:
        end = end[1:]
    return name + end


def _write_csv(file: IO[bytes], assignment: Assignment) -> None:
    """CSV in UTF-8, where file names that are not keep their bytes."""
    text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
    plain = csv.writer(text, lineterminator="\n")
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    numbers = [assignment.clusters.tolist()]
    if assignment.distances is not None:
        numbers.append([float(str(each)) for each in assignment.distances])
    plain.writerow(_columns(assignment))
    for path, *row in zip(assignment.paths, *numbers, strict=True):
        # a carriage return is quoted by some versions of the module only
        (quoted if "\r" in path else plain).writerow([path, *row])
    text.flush()
    text.detach()


def _write_parquet(file: IO[bytes], assignment: Assignment) -> None:
    """A table whose paths are UTF-8, as Parquet's texts are: of names that are not, the odd bytes
    become `\\xNN`."""
    import pyarrow
    import pyarrow.parquet

    arrays = [pyarrow.array([_utf8(path) for path in assignment.paths], pyarrow.string())]
    numbers = (assignment.clusters, assignment.distances)
    arrays += [pyarrow.array(each) for each in numbers if each is not None]
    pyarrow.parquet.write_table(pyarrow.table(arrays, _columns(assignment)), file)


def _utf8(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _columns(assignment: Assignment) -> list[str]:
    return ["path", "cluster", *(["distance"] if assignment.distances is not None else [])]
