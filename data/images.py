"""Where images come from: a folder of folders, a flat folder, or a text file that lists paths."""

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from errors import InputError

# Formats that Pillow recognises but has no decoder of its own for.
UNDECODABLE = {"BUFR", "GRIB", "HDF5", "MPEG"}

MOST_UNREADABLE = 0.01  # of all images; above that something is wrong with the data


@dataclass(frozen=True)
class ImageList:
    """The images of a data set; an image's index is its place in `paths`.

    Attributes:
        root: what the paths are relative to.
        paths: file names; for an `ImageFolder` tree, in `torchvision.datasets.ImageFolder`'s order.
        folders: for each image the folder that serves as its label: the first one below `root`,
            or for a list file the one that holds the image.
    """

    root: Path
    paths: list[str]
    folders: list[str]

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, index: int) -> str:
        """The file to open for an image."""
        return os.path.join(self.root, self.paths[index])  # noqa: PTH118 (hot, and absolute wins)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the names in their order, by which a checkpoint knows its data set."""
        names = "\0".join(self.paths).encode("utf-8", "surrogateescape")
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
                sys.stderr.write(f"left out, unreadable: {self.images.path(index)}: {reason}\n")
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
            raise InputError(f"{self.images.path(index)}: cannot read this image: {reason}")


def find_images(source: str | Path) -> ImageList:
    """List the images of a folder (nested or flat) or of a list file.

    Raises:
        InputError: the source is missing, cannot be read, or holds no image.
    """
    source = Path(source)
    if source.is_dir():
        images = _from_folder(source)
        if not images.paths:
            raise InputError(
                f"{source}: no image in this folder or below it "
                f"(looked for {', '.join(sorted(image_extensions())[:6])} … and the like)"
            )
        return images
    if source.is_file():
        return _from_list_file(source)
    raise InputError(f"{source}: no such folder or list file")


def find_all_images(sources: Sequence[str | Path]) -> ImageList:
    """List the images of one or several folders or list files, one after the other. The paths are
    the files to open, as they are reached from where the program was started.

    Raises:
        InputError: as `find_images`.
    """
    lists = [find_images(source) for source in sources]
    paths = [each.path(index) for each in lists for index in range(len(each))]
    folders = [os.path.join(each.root, folder) for each in lists for folder in each.folders]  # noqa: PTH118
    return ImageList(Path(), paths, folders)


def images_of_listing(source: str | Path, paths: list[str]) -> ImageList:
    """What `find_images` has once found in a source, from its paths alone. A source that is not
    there any more is taken for a folder."""
    source = Path(source)
    if source.is_file():
        return _from_list(source.parent, paths)
    parts = (path.partition(os.sep) for path in paths)
    return ImageList(source, paths, [first if slash else "." for first, slash, _ in parts])


def image_extensions() -> frozenset[str]:
    """Extensions of all that Pillow can read, in lower case, with the dot."""
    return frozenset(
        extension
        for extension, kind in Image.registered_extensions().items()
        if kind in Image.OPEN and kind not in UNDECODABLE
    )


def _from_folder(root: Path) -> ImageList:
    paths, folders = [], []
    for folder, path in _walk(root):
        paths.append(path)
        folders.append(folder)
    return ImageList(root, paths, folders)


def _walk(root: Path) -> Iterator[tuple[str, str]]:
    """Yield (label folder, relative path): first the images that lie in `root` itself, then class
    folder by class folder in the order of `ImageFolder`."""
    extensions = image_extensions()

    def is_image(name: str) -> bool:
        return os.path.splitext(name)[1].lower() in extensions  # noqa: PTH122 (hot)

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot list this folder: {error.strerror}") from error

    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError as error:
        refuse(error)
    for entry in entries:
        if is_image(entry.name) and not entry.is_dir():
            yield ".", entry.name
    for entry in entries:
        if not entry.is_dir():
            continue
        for folder, _, names in sorted(os.walk(entry.path, onerror=refuse, followlinks=True)):
            below = os.path.relpath(folder, root)
            for name in sorted(filter(is_image, names)):
                yield entry.name, os.path.join(below, name)  # noqa: PTH118 (hot)


def _from_list_file(source: Path) -> ImageList:
    try:
        text = source.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise InputError(f"{source}: cannot read this list file: {error.strerror}") from error
    if "\0" in text:
        raise InputError(f"{source}: neither a folder nor a text file with one image path a line")
    paths = [line for line in (line.strip("\r") for line in text.split("\n")) if line.strip()]
    images = _from_list(source.parent, paths)
    if not any(os.path.isfile(images.path(i)) for i in range(len(images))):  # noqa: PTH113
        raise InputError(
            f"{source}: none of its {len(paths)} lines names an image file "
            f"(paths are absolute or relative to {source.parent}/)"
        )
    return images


def _from_list(root: Path, paths: list[str]) -> ImageList:
    # one folder is one label, however the list spells it
    above = os.path.abspath(root)  # noqa: PTH100
    folders = [os.path.dirname(os.path.normpath(os.path.join(above, path))) for path in paths]  # noqa: PTH118, PTH120
    return ImageList(root, paths, folders)
