"""A source of images, which opens them by index, and several sources as one."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from data.folder import UNLABELLED, Files


class Source(Protocol):
    """Images by index, wherever their bytes are; for files, `data.folder.Files`.

    Workers get a copy, by fork or pickle, and open images in several threads, so a source must not
    hold an open file.
    """

    @property
    def root(self) -> Path:
        """The folder or file with the images; names are relative to it."""

    @property
    def names(self) -> list[str]:
        """The file name of each of the N images, for lists and messages."""

    @property
    def folders(self) -> list[str]:
        """The label of each image, as text; `data.folder.UNLABELLED` for an image without one."""

    def open(self, index: int) -> BinaryIO:
        """The bytes of an image as a seekable file, which the caller closes. Any error makes the
        image unreadable, with the error's message as the reason."""

    def take(self, indices: Sequence[int]) -> "Source":
        """Some of the images, in that order."""


def where(source: Source, index: int) -> str:
    """The root and the name of an image: for a file, its path."""
    return os.path.join(source.root, source.names[index])  # noqa: PTH118 (hot, and absolute wins)


def join(sources: Sequence[Source]) -> Source:
    """Several sources as one, one after the other. Names and folders begin with the root."""
    names = [where(each, index) for each in sources for index in range(len(each.names))]
    folders = [
        folder if folder == UNLABELLED else os.path.join(each.root, folder)  # noqa: PTH118
        for each in sources
        for folder in each.folders
    ]
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
