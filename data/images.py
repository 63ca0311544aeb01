"""The images of a data set by index, and how `DIR` leads to them."""

import contextlib
import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from torch import Tensor

from data.coded import Coded, coded
from data.decode import name_failure, read_grey, read_image, read_pixels
from data.folder import UNLABELLED, Files, below_again, find_below
from data.labels_csv import read_labels
from data.lists import listed, parse_list, read_list
from data.packed.containers import (
    Containers,
    find_containers,
    merged,
    select_containers,
    why_nothing,
)
from data.packed.find import open_containers
from data.packed.packed import Packed
from data.reading import AS_STORED, Reading
from data.source import Source, join, where
from parallel.collectives import gather_objects
from system.errors import InputError

IMAGES_HELP = (  # what `find_images` takes
    "a folder, nested or flat; a list (a path on each line); or tars, zips or Parquet files: one, "
    "a folder of them, or a pattern"
)


@dataclass(frozen=True)
class ImageList:
    """The images of a data set; an image's index is its position in the source.

    Attributes:
        reading: how they become pixels.
        given: the label of each image, as text, where it is not that of the source.
    """

    source: Source
    reading: Reading = AS_STORED
    given: Coded | None = None

    def __len__(self) -> int:
        return len(self.source.names)

    def open(self, index: int) -> BinaryIO:
        """An image's bytes as an open file.

        Raises:
            UnreadableImageError: it cannot be opened.
        """
        with name_failure():
            return self.source.open(index)

    def read_image(self, index: int) -> Image.Image:
        """Decode an image with Pillow, to RGB.

        Raises:
            UnreadableImageError: it cannot be opened or decoded.
        """
        with self.open(index) as file:
            return read_image(file, self.reading)

    def read_pixels(self, index: int) -> Tensor:
        """Decode an image to `(3, H, W) uint8` with the fastest decoder.

        Raises:
            UnreadableImageError: it cannot be opened or decoded.
        """
        with self.open(index) as file:
            return read_pixels(file, self.reading)

    def read_grey(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Some grey levels of an image, before and after: see `data.decode.read_grey`.

        Raises:
            UnreadableImageError: it cannot be opened or decoded.
        """
        with self.open(index) as file:
            return read_grey(file, self.reading)

    def require_files(self, flag: str) -> None:
        """Check that each image is a file of its own.

        Raises:
            InputError: they are in containers.
        """
        if not isinstance(self.source, Files):
            raise InputError(f"{flag}: needs image files, and these are in containers")

    def where(self, index: int) -> str:
        """Where an image is, for messages: for a file, its path from the working directory."""
        return where(self.source, index)

    def take(self, indices: Sequence[int] | np.ndarray) -> "ImageList":
        """Some of the images, in that order."""
        given = None if self.given is None else self.given.take(indices)
        return replace(self, source=self.source.take(indices), given=given)

    @property
    def root(self) -> Path:
        """The folder or file that the images are in."""
        return self.source.root

    @property
    def place(self) -> Path:
        """The folder or file that the images are in, for messages: if that is one container, it."""
        if isinstance(self.source, Packed) and len(self.source.index.containers) == 1:
            return self.root / self.source.index.containers[0]
        return self.root

    @property
    def names(self) -> Sequence[str]:
        """The name of each image, relative to `root`; see `Source.names`."""
        return self.source.names

    @property
    def folders(self) -> Sequence[str]:
        """The label of each image, as text; `UNLABELLED` for an image without one."""
        return self.source.folders if self.given is None else self.given

    @property
    def classes(self) -> list[str]:
        """The different labels, in the order of their numbers in `labels`."""
        return [text for text in coded(self.folders).texts if text != UNLABELLED]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the names in their order, which identifies the data set in a checkpoint."""
        return self.source.digest

    @cached_property
    def labels(self) -> np.ndarray | None:
        """`(N,) int64` labels, −1 for an image without one; None if there are fewer than 2."""
        labels = coded(self.folders)
        unlabelled = int(labels.texts[:1] == [UNLABELLED])  # the first of all texts
        if len(labels.texts) - unlabelled < 2:
            return None
        return labels.numbers.astype(np.int64) - unlabelled

    def labelled(self) -> "ImageList":
        """The images that have a label."""
        labels = coded(self.folders)
        if UNLABELLED not in labels.texts:
            return self
        return self.take(np.flatnonzero(labels.numbers != labels.texts.index(UNLABELLED)))


def check_alike(images: ImageList) -> None:
    """Check that all processes, which call this together, have found the same images: by their
    names, and in containers also by their places.

    Raises:
        InputError: they have not.
    """
    if len(set(gather_objects(images.source.checksum))) > 1:
        raise InputError(
            f"{images.root}: the processes found different images there; do they all see the same "
            "files?"
        )


def find_images(
    source: str | Path, reading: Reading = AS_STORED, labels: Path | None = None
) -> ImageList:
    """List the images of a folder (nested or flat), of a list file, or of containers, without
    opening them.

    Args:
        labels: file of `--labels`; None: those of the source.

    Raises:
        InputError: the source is missing, cannot be read, or holds no image; or the labels don't
            fit.
    """
    (found,) = _opened([find_source(Path(source))])
    return give_labels(labels, ImageList(found, reading))[0]


def find_all_images(sources: Sequence[str | Path], labels: Path | None = None) -> ImageList:
    """List the images of folders, list files or containers, one after the other. The names are
    paths from the working directory. Labels and errors as of `find_images`."""
    images = ImageList(join(_opened(find_source(Path(source)) for source in sources)))
    return give_labels(labels, images, above=[Path(source) for source in sources])[0]


def give_labels(
    file: Path | None, *found: ImageList, above: Sequence[Path] = (), exact: bool = True
) -> tuple[ImageList, ...]:
    """The same images with the labels of a file of `--labels`.

    Args:
        file: None leaves the labels as they are. `exact`: as of `read_labels`.
        above: folders that its paths may be relative to, besides the roots.

    Raises:
        InputError: as `read_labels`.
    """
    if file is None:
        return found
    paths = [each.where(index) for each in found for index in range(len(each))]
    texts = coded(read_labels(file, paths, [*above, *(each.root for each in found)], exact))
    numbers = np.split(texts.numbers, np.cumsum([len(each) for each in found])[:-1])
    return tuple(
        replace(images, given=Coded(texts.texts, own))
        for images, own in zip(found, numbers, strict=True)
    )


def find_source(path: Path) -> Source | Containers:
    """The source of images at a path, or the containers there.

    Raises:
        InputError: as `find_images`.
    """
    if path.is_dir():
        return find_below(path, otherwise=select_containers)
    if (containers := find_containers(path)) is not None:
        return containers
    if path.is_file():
        return read_list(path)
    raise InputError(f"{path}: {why_nothing(path)}")


def _opened(found: Iterable[Source | Containers]) -> list[Source]:
    """Sources. Containers of one kind that follow each other become one, with one index."""
    sources: list[Source] = []
    for _, group in itertools.groupby(found, lambda each: getattr(each, "kind", "")):
        alike = list(group)
        containers = [each for each in alike if isinstance(each, Containers)]
        sources += [each for each in alike if not isinstance(each, Containers)]
        sources += [open_containers(merged(containers))] if containers else []
    return sources


def images_of_listing(source: str | Path, names: Sequence[str]) -> ImageList:
    """The images that `find_images` found earlier, from their names alone. A source that has
    disappeared is taken for a folder."""
    source = Path(source)
    if os.path.isfile(source):  # noqa: PTH113 (a Path raises for some texts)
        with contextlib.suppress(InputError):
            files, _ = parse_list(source)  # again, for its labels
            if files.names == names:
                return ImageList(files)
        return ImageList(listed(source.parent, names))
    return ImageList(below_again(source, names))


def content_digest(images: ImageList) -> str:
    """SHA-256 of the images' names and their files' sizes and times of change, which identifies
    them where features are kept.

    Raises:
        InputError: a file is missing.
    """
    return images.source.content_digest()
