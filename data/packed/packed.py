"""The source for images in containers."""

import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np

from data.coded import Coded
from data.decode import EMPTY, UnreadableImageError
from data.folder import FLAT, UNLABELLED
from data.packed.entries import REASONS, WHOLE
from data.packed.index import Index
from data.packed.parquet import read_page_values
from data.packed.reading import Descriptor, descriptor_of, read_at
from data.packed.zips import read_member


class Names(Sequence[str]):
    """Names such as `shard-0003.tar/00001234.jpg`, made when asked for."""

    def __init__(self, index: Index, chosen: Sequence[int] | np.ndarray) -> None:
        self._index, self._chosen = index, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> "Names": ...
    def __getitem__(self, at: int | slice) -> "str | Names":
        if isinstance(at, slice):
            return Names(self._index, self._chosen[at])
        return self._index.name(int(self._chosen[at]))


class Packed:
    """Images in containers, see `data.source.Source`.

    Of compressed Parquet pages a process keeps the last one, so that reading in order decompresses
    each once.

    Args:
        root: the folder that the containers' names are relative to.
        chosen: the images by their number in the index; None for all, in order.
    """

    def __init__(self, root: Path, index: Index, chosen: np.ndarray | None = None) -> None:
        self.root, self.index, self.chosen = root, index, chosen
        self._last: tuple[tuple[int, int], Any] = (-1, -1), None

    def __reduce__(self) -> tuple[Any, ...]:
        return Packed, (self.root, self.index, self.chosen)  # without open files

    @property
    def names(self) -> Names:
        """The container and the name there of each image."""
        return Names(self.index, range(len(self.index)) if self.chosen is None else self.chosen)

    @property
    def folders(self) -> Coded:
        """The label of each image; `FLAT` if none has one."""
        texts, numbers = self.index.labels, self.index.arrays["label"]
        if texts == [UNLABELLED]:
            texts = [FLAT]
        return Coded(texts, numbers if self.chosen is None else numbers[self.chosen])

    @property
    def containers(self) -> np.ndarray:
        """`(N,) int32`, the place of each image's container in the index."""
        containers = self.index.arrays["container"]
        return containers if self.chosen is None else containers[self.chosen]

    @property
    def digest(self) -> str:
        """Identifies the names in their order."""
        if self.chosen is None:
            return self.index.digest
        return hashlib.sha256(self.index.digest.encode() + self.chosen.tobytes()).hexdigest()

    @property
    def checksum(self) -> str:
        """See `data.source.Source`."""
        return hashlib.sha256(f"{self.index.checksum}{self.digest}".encode()).hexdigest()

    def content_digest(self) -> str:
        """See `data.source.Source`: names, and sizes and times of the containers."""
        return hashlib.sha256(f"{self.index.key}{self.digest}".encode()).hexdigest()

    def open(self, index: int) -> BinaryIO:
        """The bytes of an image.

        Raises:
            UnreadableImageError: there are none, or they are damaged.
            OSError: the container is missing, or may not be read.
        """
        image = index if self.chosen is None else int(self.chosen[index])
        container, offset, length, part = self.index.place(image)
        if length < 0:
            raise UnreadableImageError(REASONS[length])
        content = self._content(image, container, offset, length, part)
        if not content:
            raise UnreadableImageError(EMPTY)
        return io.BytesIO(content)

    def reads_anew(self, indices: np.ndarray) -> np.ndarray:
        """See `data.source.Source`: not the following images of a compressed page."""
        images = indices if self.chosen is None else self.chosen[indices]
        anew = np.ones(len(images), np.bool_)
        places = [self.index.arrays[name][images] for name in ("container", "offset")]
        anew[1:] = np.logical_or(*(place[1:] != place[:-1] for place in places))
        return anew

    def take(self, indices: Sequence[int] | np.ndarray) -> "Packed":
        """Some of the images, in that order."""
        chosen = np.array(indices, np.int64)
        return Packed(self.root, self.index, chosen if self.chosen is None else self.chosen[chosen])

    def _content(self, image: int, container: int, offset: int, length: int, part: int) -> bytes:
        if self.index.key["kind"] == "zip":
            name = self.index.member(image)
            return read_member(self._open(container).number, name, offset, length, part)
        if part == WHOLE:
            return read_at(self._open(container).number, offset, length)
        return self._page(container, offset).value(part)

    def _open(self, container: int) -> Descriptor:
        path = os.path.join(self.root, self.index.containers[container])  # noqa: PTH118 (hot)
        return descriptor_of(path, self.index.sizes[container], self.index.key["containers"])

    def _page(self, container: int, offset: int) -> Any:
        place, page = self._last
        if place != (container, offset):
            descriptor = self._open(container).number
            page = read_page_values(descriptor, offset, self.index.codecs[container])
            self._last = (container, offset), page
        return page
