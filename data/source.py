"""A source of images, which opens them by index, and several sources as one."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from data.folder import Files


class Source(Protocol):
    """Images by index, wherever their bytes are. `data.folder.Files` is the one for files.

    Workers get a copy, by fork or pickle, and open images in several threads: an open file that all
    of them read must not be part of it.
    """

    @property
    def root(self) -> Path:
        """The folder or file that the images are in, which the names are relative to."""

    @property
    def names(self) -> list[str]:
        """A text for each image, N in all: its file name, for lists and messages."""

    @property
    def folders(self) -> list[str]:
        """A text for each image that serves as its label."""

    def open(self, index: int) -> BinaryIO:
        """The bytes of an image, as a file that can be read and sought, for the caller to close.
        Any error here makes the image unreadable, for the reason that the error gives."""

    def take(self, indices: Sequence[int]) -> "Source":
        """Some of the images, in that order."""


def where(source: Source, index: int) -> str:
    """The root and the name of an image: of a file, the path that opens it."""
    return os.path.join(source.root, source.names[index])  # noqa: PTH118 (hot, and absolute wins)


def join(sources: Sequence[Source]) -> Source:
    """Several sources as one, one after the other. Names and folders begin with the root."""
    names = [where(each, index) for each in sources for index in range(len(each.names))]
    folders = [os.path.join(each.root, folder) for each in sources for folder in each.folders]  # noqa: PTH118
    if all(isinstance(each, Files) for each in sources):
        return Files(Path(), names, folders)  # without a second list of the names
    sizes = [len(each.names) for each in sources]
    owners = np.repeat(np.arange(len(sources)), sizes)
    places = np.concatenate([np.arange(size) for size in sizes])
    return Joined(sources, names, folders, owners, places)


@dataclass(frozen=True, eq=False)
class Joined:
    """Images of several sources.

    Attributes:
        owners: `(N,) int64`, the source of each image.
        places: `(N,) int64`, the image's index there.
    """

    sources: Sequence[Source]
    names: list[str]
    folders: list[str]
    owners: np.ndarray
    places: np.ndarray
    root: Path = Path()

    def open(self, index: int) -> BinaryIO:
        """Open the image where it is."""
        return self.sources[self.owners[index]].open(int(self.places[index]))

    def take(self, indices: Sequence[int]) -> "Joined":
        """Some of the images, in that order."""
        names, folders = ([each[i] for i in indices] for each in (self.names, self.folders))
        chosen = np.array(indices, np.int64)
        return Joined(self.sources, names, folders, self.owners[chosen], self.places[chosen])
