"""A source of images, which opens them by index, and several sources as one."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, overload

import numpy as np

from data.coded import Coded, coded
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
    def names(self) -> Sequence[str]:
        """The name of each of the N images, for lists and messages. There may be 100 million, made
        when asked for: take those that are needed."""

    @property
    def folders(self) -> Sequence[str]:
        """The label of each image, as text; `data.folder.UNLABELLED` for an image without one.
        `data.coded.coded` gives the different ones."""

    @property
    def digest(self) -> str:
        """Identifies the names in their order: SHA-256, which a checkpoint keeps."""

    @property
    def checksum(self) -> str:
        """Identifies the names and, in containers, the places of the bytes: differs between
        processes that would read other images."""

    def content_digest(self) -> str:
        """SHA-256 of the names and of the files' sizes and times of change.

        Raises:
            InputError: a file is missing.
        """

    def open(self, index: int) -> BinaryIO:
        """The bytes of an image as a seekable file, which the caller closes. Any error makes the
        image unreadable, with the error's message as the reason."""

    def reads_anew(self, indices: np.ndarray) -> np.ndarray:
        """`(M,) bool`: whether opening each of some images `(M,)` in turn is work of its own. It is
        not if the work for the one before serves for it, too."""

    def take(self, indices: Sequence[int] | np.ndarray) -> "Source":
        """Some of the images, in that order."""


def where(source: Source, index: int) -> str:
    """The root and the name of an image: for a file, its path."""
    return os.path.join(source.root, source.names[index])  # noqa: PTH118 (hot, and absolute wins)


def join(sources: Sequence[Source]) -> Source:
    """Several sources as one, one after the other. Names and folders begin with the root."""
    if all(isinstance(each, Files) for each in sources):
        names = [where(each, index) for each in sources for index in range(len(each.names))]
        folders = [_rooted(each, folder) for each in sources for folder in each.folders]
        return Files(Path(), names, folders)
    sizes = [len(each.names) for each in sources]
    owners = np.repeat(np.arange(len(sources), dtype=np.int32), sizes)
    places = np.concatenate([np.arange(size) for size in sizes])
    texts, numbers = list[str](), []
    for each in sources:
        own = coded(each.folders)
        numbers.append(own.numbers + len(texts))
        texts += [_rooted(each, text) for text in own.texts]
    return Joined(sources, Coded(texts, np.concatenate(numbers)), owners, places)


def _rooted(source: Source, folder: str) -> str:
    return folder if folder == UNLABELLED else os.path.join(source.root, folder)  # noqa: PTH118 (hot)


@dataclass(frozen=True, eq=False)
class Joined:
    """Images of several sources.

    Attributes:
        owners: `(N,) int32`, the source of each image.
        places: `(N,) int64`, the image's index there.
    """

    sources: Sequence[Source]
    folders: Coded
    owners: np.ndarray
    places: np.ndarray
    root: Path = Path()

    @property
    def names(self) -> "JoinedNames":
        """The root and the name of each image."""
        return JoinedNames(self.sources, self.owners, self.places)

    @property
    def digest(self) -> str:
        """Identifies the names in their order."""
        return self._joined([each.digest for each in self.sources])

    @property
    def checksum(self) -> str:
        """See `Source`."""
        return self._joined([each.checksum for each in self.sources])

    def content_digest(self) -> str:
        """See `Source`."""
        return self._joined([each.content_digest() for each in self.sources])

    def _joined(self, digests: list[str]) -> str:
        digest = hashlib.sha256()
        for each, part in zip(self.sources, digests, strict=True):
            digest.update(f"{each.root}\0{part}\0".encode("utf-8", "surrogateescape"))
        digest.update(self.owners.tobytes())
        digest.update(self.places.tobytes())
        return digest.hexdigest()

    def open(self, index: int) -> BinaryIO:
        """Open the image where it is."""
        return self.sources[self.owners[index]].open(int(self.places[index]))

    def reads_anew(self, indices: np.ndarray) -> np.ndarray:
        """See `Source`."""
        owners, places = self.owners[indices], self.places[indices]
        anew = np.diff(owners, prepend=-1) != 0
        for owner in np.unique(owners):
            own = owners == owner
            anew[own] |= self.sources[owner].reads_anew(places[own])
        return anew

    def take(self, indices: Sequence[int] | np.ndarray) -> "Joined":
        """Some of the images, in that order."""
        chosen = np.array(indices, np.int64)
        return Joined(
            self.sources, self.folders.take(chosen), self.owners[chosen], self.places[chosen]
        )


@dataclass(frozen=True)
class JoinedNames(Sequence[str]):
    """The names of `Joined`, made when asked for."""

    sources: Sequence[Source]
    owners: np.ndarray
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.owners)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> "JoinedNames": ...
    def __getitem__(self, at: int | slice) -> "str | JoinedNames":
        if isinstance(at, slice):
            return JoinedNames(self.sources, self.owners[at], self.places[at])
        return where(self.sources[self.owners[at]], int(self.places[at]))
