"""Clusters in pickle files: a run's `clusters`, and the released `*_cluster_assignment.pickle`."""

import operator
import pickle
import reprlib
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from system.errors import InputError, shorten
from system.files import atomic_write, explained, in_words, sync
from system.safe_pickle import load_plain, read_plain


def read_clusters(path: Path) -> list[list[list[int]]]:
    """Read a run's `clusters` file, ours or the original's: for each epoch, for each cluster, the
    numbers of its images.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    epochs = read_plain(path, "list of clusters")
    try:
        if not isinstance(epochs, list):
            raise ValueError(f"it is {_short(epochs)}")
        return [_epoch(number, clusters) for number, clusters in enumerate(epochs)]
    except ValueError as error:
        raise InputError(
            f"{path}: not a list over epochs of lists over clusters of image numbers: {error}"
        ) from error


def read_assignment(path: Path) -> list[tuple[str, int]]:
    """Read a `*_cluster_assignment.pickle`: pairs of image path and cluster number, or a dict from
    path to cluster.

    Paths from Python 2 are bytes. They are decoded like file names, so that bytes that aren't UTF-8
    survive.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    content = read_plain(path, "cluster assignment", encoding="bytes")
    entries = list(content.items()) if isinstance(content, dict) else content
    try:
        if not isinstance(entries, list | tuple):
            raise ValueError(f"it is {_short(entries)}")
        return [_pair(number, entry) for number, entry in enumerate(entries)]
    except ValueError as error:
        raise InputError(f"{path}: not a list of pairs of path and cluster: {error}") from error


def write_assignment(path: Path, pairs: Iterable[tuple[str, int]]) -> None:
    """Write pairs of image path and cluster number in the released format, whole or not at all.

    Python 2 reads the file, too: paths are its byte strings. In Python 3, load it with
    `pickle.load(file, encoding="utf-8")`, or `"latin1"` if a name is not UTF-8.
    """
    with atomic_write(path) as file:
        file.write(pickle.PROTO + b"\x02" + pickle.EMPTY_LIST)
        for name, cluster in pairs:
            text = name.encode("utf-8", "surrogateescape")
            # Python 3's pickle module can't write byte strings of Python 2
            file.write(pickle.BINSTRING + struct.pack("<i", len(text)) + text)
            file.write(pickle.dumps(operator.index(cluster), protocol=2)[2:-1])
            file.write(pickle.TUPLE2 + pickle.APPEND)
        file.write(pickle.STOP)


def _epoch(number: int, clusters: Any) -> list[list[int]]:
    if not isinstance(clusters, list | tuple):
        raise ValueError(f"epoch {number} is {_short(clusters)}")
    arrays = []
    for cluster, members in enumerate(clusters):
        if not _are_numbers(members):
            raise ValueError(f"cluster {cluster} of epoch {number} is {_short(members)}")
        arrays.append(np.array(members, np.int64))
    images = np.sort(np.concatenate(arrays)) if arrays else np.empty(0, np.int64)
    if len(images) and images[0] < 0:
        raise ValueError(f"epoch {number} has an image {images[0]}")
    twice = images[1:][images[1:] == images[:-1]]
    if len(twice):
        raise ValueError(f"epoch {number} has image {twice[0]} in more than one place")
    return [array.tolist() for array in arrays]


def _are_numbers(members: Any) -> bool:
    """Whether this is a flat sequence of 64-bit integers."""
    if isinstance(members, np.ndarray):
        return members.ndim == 1 and (members.dtype.kind in "iu" or members.size == 0)
    return isinstance(members, list | tuple) and all(
        type(member) is int and abs(member) < 2**63 for member in members
    )


def _pair(number: int, entry: Any) -> tuple[str, int]:
    path, cluster = entry if isinstance(entry, list | tuple) and len(entry) == 2 else (None, None)
    if isinstance(path, bytes):
        path = path.decode("utf-8", "surrogateescape")
    if not isinstance(path, str) or not path or type(cluster) is not int or cluster < 0:
        raise ValueError(f"entry {number} is {_short(entry)}")
    return path, cluster


def _short(value: Any) -> str:
    """A short form of a value: the full text of a small pickle's content could fill the memory."""
    return shorten(reprlib.repr(value))


class Logger:
    """A list in a pickle file. Appending an item takes as long as the item is, not the list.

    `pickle.load` works at every moment, even after a crash during `log`: a new item is written
    after the pickle's final STOP byte, where no reader looks. Replacing that single byte by the
    item's first one then adds the item to the list.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._end: int | None = None

    @property
    def data(self) -> list[Any]:
        """The items in the file."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            return load_plain(file)

    @property
    def end(self) -> int:
        """Position of the STOP byte. Creates the file if it is missing."""
        if self._end is None:
            if not self.path.exists():
                self.rewrite([])
            with self.path.open("rb") as file:
                load_plain(file)
                self._end = file.tell() - 1
        return self._end

    def log(self, item: Any) -> None:
        """Append an item made of lists, dicts, strings and numbers.

        Raises:
            OSError: for example a full disk; the list is unchanged.
        """
        opcodes = _appending(item) + pickle.STOP
        end = self.end
        with explained(self.path, lambda: in_words(len(opcodes))), self.path.open("r+b") as file:
            file.truncate(end + 1)  # a crash may have left half an item
            file.seek(end + 1)
            file.write(opcodes[1:])
            sync(file)
            file.seek(end)
            file.write(opcodes[:1])
            sync(file)
        self._end = end + len(opcodes) - 1

    def rewrite(self, items: Iterable[Any]) -> None:
        """Replace the list. The bytes are those that `log` would have written.

        Raises:
            OSError: for example a full disk; the list is unchanged.
        """
        self._end = None
        with atomic_write(self.path) as file:
            file.write(pickle.dumps([], protocol=2)[:-1])
            for item in items:
                file.write(_appending(item))
            file.write(pickle.STOP)


def _appending(item: Any) -> bytes:
    """The opcodes that append an item to the list on the unpickler's stack."""
    return pickle.dumps(item, protocol=2)[2:-1] + pickle.APPEND
