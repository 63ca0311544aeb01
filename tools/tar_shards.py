"""Tar shards that are written image by image, and continued after an interruption.

A shard holds the images of a range of the data set, in order, under its final name once it is
whole; before that under `.NAME.part`. An image's label is the first folder of its name, or else in
a `.cls`.
"""

import contextlib
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from data.decode import image_extensions
from data.folder import FLAT, UNLABELLED, Files
from data.images import ImageList
from data.packed.entries import first_folder
from system.files import sync

BLOCK = 512
END = bytes(2 * BLOCK)
LONGEST_STEM = 100  # characters of an old name in a new one
JPEG_START = b"\xff\xd8\xff"


class TarShards:
    """Tars for all images of a data set.

    Args:
        paths: of the tars; the images are spread over them in equal shares.
        keep_names: the members' names are those of the images, see `can_keep_names`.
    """

    def __init__(self, paths: list[Path], images: ImageList, keep_names: bool) -> None:
        self.paths, self.images = paths, images
        self._bounds = [len(images) * each // len(paths) for each in range(len(paths) + 1)]
        self._keeps_names = keep_names
        self._file: IO[bytes] | None = None

    def missing(self) -> np.ndarray:
        """`(M,) int64`, the images that are in no tar yet, ascending."""
        parts = [np.empty(0, np.int64)]
        for shard, path in enumerate(self.paths):
            if not path.exists():
                first, end = self._bounds[shard : shard + 2]
                left = np.arange(self._next_of(shard, first), end)
                if len(left) == 0:
                    _finish(path)
                parts.append(left)
        return np.concatenate(parts)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Close the file when the block ends."""
        try:
            yield
        finally:
            if self._file is not None:
                self._file.close()

    def add(self, image: int, content: bytes | None) -> None:
        """Append an image, or pass over it without content; in the order of `missing`.

        Raises:
            OSError: the disk is full, for example.
        """
        shard = int(np.searchsorted(self._bounds, image, "right")) - 1
        part = part_of(self.paths[shard])
        if self._file is None:
            self._file = part.open("ab")
        if content is not None:
            name, label = self._name(image, content), self.images.folders[image]
            label = UNLABELLED if label == FLAT else label
            if label != first_folder(name):
                stem = os.path.splitext(name)[0]  # noqa: PTH122
                self._file.write(_member(f"{stem}.cls", label.encode("utf-8", "surrogateescape")))
            self._file.write(_member(name, content))
        if image == self._bounds[shard + 1] - 1:
            self._file.close()
            self._file = None
            _finish(self.paths[shard])

    def _name(self, image: int, content: bytes) -> str:
        """The old name, if a tar can hold it, or else the image's number and what is left of it."""
        old = self.images.names[image]
        if self._keeps_names:
            return old
        stem, ending = os.path.splitext(old.rpartition("/")[2].rstrip(")"))  # noqa: PTH122
        stem = re.sub(r"^\d+ \(", "", stem)  # of a Parquet file
        stem = re.sub(r"[^\w-]", "_", stem)[:LONGEST_STEM]
        ending = ending.lower() if ending.lower() in image_extensions() else ".png"
        ending = ".jpg" if content.startswith(JPEG_START) else ending
        digits = len(str(len(self.images) - 1))
        return f"{image:0{digits}d}_{stem}{ending}"

    def _next_of(self, shard: int, first: int) -> int:
        """The image to begin with: that behind the last whole one in a part, which is cut there."""
        part = part_of(self.paths[shard])
        if not part.exists():
            return first
        last, end = _last_whole(part)
        found = first - 1
        if last is not None and self._keeps_names:
            names = (self.images.names[image] for image in range(first, self._bounds[shard + 1]))
            found = next((first + at for at, name in enumerate(names) if name == last), first - 1)
        elif last is not None:
            found = int(last.partition("_")[0])
        os.truncate(part, end if found >= first else 0)
        return found + 1


def can_keep_names(images: ImageList) -> bool:
    """Whether a tar can keep the names of a folder's files: each has the ending of an image and no
    other dot, which would not be part of WebDataset's key."""
    source, endings = images.source, image_extensions()
    if not isinstance(source, Files):
        return False
    split = (os.path.splitext(os.path.basename(name)) for name in source.names)  # noqa: PTH119, PTH122
    return all("." not in stem and ending.lower() in endings for stem, ending in split)


def part_of(path: Path) -> Path:
    """The file that becomes a tar when it is whole."""
    return path.with_name(f".{path.name}.part")


def _finish(path: Path) -> None:
    part = part_of(path)
    with part.open("ab") as file:
        file.write(END)
        sync(file)
    part.replace(path)


def _member(name: str, content: bytes) -> bytes:
    about = tarfile.TarInfo(name)
    about.size = len(content)
    header = about.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    return header + content + bytes(-len(content) % BLOCK)


def _last_whole(part: Path) -> tuple[str | None, int]:
    """The name of a part's last whole image, and where it ends."""
    size = part.stat().st_size
    found: tuple[str | None, int] = None, 0
    with part.open("rb") as file, contextlib.suppress(tarfile.TarError, EOFError):
        tar = tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
        while (member := tar.next()) is not None:
            end = member.offset_data + -(-member.size // BLOCK) * BLOCK
            if end <= size and not member.name.endswith(".cls"):
                found = member.name, end
    return found
