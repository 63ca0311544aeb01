"""The images of a data set, by index, and where they are looked for."""

import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data.decode import name_failure
from data.folder import below_again, find_below, listed, read_list
from data.source import Source, join, where
from system.errors import InputError
from system.names import printable

MOST_UNREADABLE = 0.01  # of all images; above that something is wrong with the data


@dataclass(frozen=True)
class ImageList:
    """The images of a data set; an image's index is its place in the source."""

    source: Source

    def __len__(self) -> int:
        return len(self.source.names)

    def open(self, index: int) -> BinaryIO:
        """An image's bytes, as a file to read, which `data.decode` takes.

        Raises:
            UnreadableImageError: there are none.
        """
        with name_failure():
            return self.source.open(index)

    def where(self, index: int) -> str:
        """Where an image is, for messages: of a file, the path that opens it from where the program
        was started."""
        return where(self.source, index)

    def take(self, indices: Sequence[int]) -> "ImageList":
        """Some of the images, in that order."""
        return ImageList(self.source.take(indices))

    @property
    def root(self) -> Path:
        """The folder or file that the images are in."""
        return self.source.root

    @property
    def names(self) -> list[str]:
        """The name of each image, relative to `root`."""
        return self.source.names

    @property
    def folders(self) -> list[str]:
        """For each image the text that serves as its label."""
        return self.source.folders

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the names in their order, by which a checkpoint knows its data set."""
        names = "\0".join(self.names).encode("utf-8", "surrogateescape")
        return hashlib.sha256(names).hexdigest()

    @cached_property
    def labels(self) -> np.ndarray | None:
        """`(N,) int64` folder labels, or None where all images lie in one folder."""
        names, labels = np.unique(np.array(self.folders), return_inverse=True)
        return labels.astype(np.int64) if len(names) > 1 else None


class NameUnreadable:
    """Says on stderr which images are left out and why, of each once."""

    def __init__(self, images: ImageList) -> None:
        self.images = images
        self.named: set[int] = set()

    def __call__(self, unreadable: dict[int, str]) -> None:
        """Name images, by their numbers, with the reasons."""
        for index, reason in unreadable.items():
            if index not in self.named:
                path = printable(self.images.where(index))
                sys.stderr.write(f"left out, unreadable: {path}: {reason}\n")
        self.named |= set(unreadable)


class RefuseUnreadable:
    """Ends a protocol whose figures, over fewer images, would be another's."""

    def __init__(self, images: ImageList) -> None:
        self.images = images

    def __call__(self, unreadable: dict[int, str]) -> None:
        """Name the first of some images, given by their numbers with the reasons.

        Raises:
            InputError: there is one.
        """
        for index, reason in unreadable.items():
            raise InputError(f"{self.images.where(index)}: cannot read this image: {reason}")


def find_images(source: str | Path) -> ImageList:
    """List the images of a folder (nested or flat) or of a list file. Whether an image can be read
    is found out when it is.

    Raises:
        InputError: the source is missing, cannot be read, or holds no image.
    """
    return ImageList(find_source(Path(source)))


def find_all_images(sources: Sequence[str | Path]) -> ImageList:
    """List the images of one or several folders or list files, one after the other. The names are
    the files to open, as they are reached from where the program was started.

    Raises:
        InputError: as `find_images`.
    """
    return ImageList(join([find_source(Path(source)) for source in sources]))


def find_source(path: Path) -> Source:
    """The kind of source that a path leads to.

    Raises:
        InputError: as `find_images`.
    """
    if path.is_dir():
        return find_below(path)
    if path.is_file():
        return read_list(path)
    raise InputError(f"{path}: no such folder or list file")


def images_of_listing(source: str | Path, names: list[str]) -> ImageList:
    """What `find_images` has once found in a source, from its names alone. A source that is not
    there any more is taken for a folder."""
    source = Path(source)
    if os.path.isfile(source):  # noqa: PTH113  # of a text that can be no name, too
        return ImageList(listed(source.parent, names))
    return ImageList(below_again(source, names))


def describe_change(before: Sequence[str], now: Sequence[str]) -> str:
    """In words, what became of a data set's images, given by their names."""
    old, new = set(before), set(now)
    added = [name for name in now if name not in old]
    removed = [name for name in before if name not in new]
    told = [
        f"{len(names):,} {how}, such as {printable(names[0])}"
        for names, how in ((added, "added"), (removed, "removed"))
        if names
    ]
    counts = f"{len(before):,} there, {len(now):,} now"
    return f"{counts}: {', '.join(told) or 'the same names in another order'}"
