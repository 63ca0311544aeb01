"""Where images come from: a folder of folders, a flat folder, or a text file that lists paths."""

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import Image

from data.decode import MAX_PIXELS, NOT_READ
from system.errors import InputError
from system.names import from_line, printable, read_text

MOST_UNREADABLE = 0.01  # of all images; above that something is wrong with the data


@dataclass(frozen=True)
class ImageList:
    """The images of a data set; an image's index is its place in `paths`.

    Attributes:
        root: what the paths are relative to.
        paths: file names; for an `ImageFolder` tree, in `torchvision.datasets.ImageFolder`'s order.
        folders: for each image the folder that serves as its label: the first one below `root`,
            or for a list file the one that holds the image.
        max_pixels: that an image may have and still be read.
    """

    root: Path
    paths: list[str]
    folders: list[str]
    max_pixels: int = MAX_PIXELS

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
                path = printable(self.images.path(index))
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
            raise InputError(f"{self.images.path(index)}: cannot read this image: {reason}")


def find_images(source: str | Path, max_pixels: int = MAX_PIXELS) -> ImageList:
    """List the images of a folder (nested or flat) or of a list file.

    Symbolic links are followed, but for those to a folder that they lie in, which would lead round
    in a circle. Whether an image can be read is found out when it is.

    Raises:
        InputError: the source is missing, cannot be read, or holds no image.
    """
    source = Path(source)
    if source.is_dir():
        images = _from_folder(source, max_pixels)
        if not images.paths:
            raise InputError(
                f"{source}: no image in this folder or below it "
                f"(looked for {', '.join(sorted(image_extensions())[:6])} … and the like)"
            )
        return images
    if source.is_file():
        return _from_list_file(source, max_pixels)
    raise InputError(f"{source}: no such folder or list file")


def find_all_images(sources: Sequence[str | Path], max_pixels: int = MAX_PIXELS) -> ImageList:
    """List the images of one or several folders or list files, one after the other. The paths are
    the files to open, as they are reached from where the program was started.

    Raises:
        InputError: as `find_images`.
    """
    lists = [find_images(source, max_pixels) for source in sources]
    paths = [each.path(index) for each in lists for index in range(len(each))]
    folders = [os.path.join(each.root, folder) for each in lists for folder in each.folders]  # noqa: PTH118
    return ImageList(Path(), paths, folders, max_pixels)


def images_of_listing(
    source: str | Path, paths: list[str], max_pixels: int = MAX_PIXELS
) -> ImageList:
    """What `find_images` has once found in a source, from its paths alone. A source that is not
    there any more is taken for a folder."""
    source = Path(source)
    if os.path.isfile(source):  # noqa: PTH113  # of a text that can be no name, too
        return _from_list(source.parent, paths, max_pixels)
    parts = (path.partition(os.sep) for path in paths)
    folders = [first if slash else "." for first, slash, _ in parts]
    return ImageList(source, paths, folders, max_pixels)


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


def image_extensions() -> frozenset[str]:
    """Extensions of all that Pillow can read, in lower case, with the dot."""
    return frozenset(
        extension
        for extension, kind in Image.registered_extensions().items()
        if kind in Image.OPEN and kind not in NOT_READ
    )


def _from_folder(root: Path, max_pixels: int) -> ImageList:
    paths, folders = [], []
    for folder, path in _walk(root):
        paths.append(path)
        folders.append(folder)
    return ImageList(root, paths, folders, max_pixels)


def _walk(root: Path) -> Iterator[tuple[str, str]]:
    """Yield (label folder, relative path): first the images that lie in `root` itself, then class
    folder by class folder in the order of `ImageFolder`."""
    extensions = image_extensions()

    def is_image(name: str) -> bool:
        return os.path.splitext(name)[1].lower() in extensions  # noqa: PTH122 (hot)

    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError as error:
        _refuse(error)
    folders = {entry.name for entry in entries if _is_folder(entry)}
    for entry in entries:
        if is_image(entry.name) and entry.name not in folders:
            yield ".", entry.name
    for entry in entries:
        if entry.name not in folders:
            continue
        for folder, names in sorted(_below(entry.path, _identity(root))):
            below = os.path.relpath(folder, root)
            for name in sorted(filter(is_image, names)):
                yield entry.name, os.path.join(below, name)  # noqa: PTH118 (hot)


def _below(top: str, *above: tuple[int, int]) -> Iterator[tuple[str, list[str]]]:
    """A folder and all below it, with the names of the files in each; a folder that is one of those
    above it is passed over.

    Args:
        above: the identities of the folders that `top` lies in.
    """
    lies_in = {top: frozenset(above)}
    for folder, folders, names in os.walk(top, onerror=_refuse, followlinks=True):
        chain = lies_in.pop(folder)
        here = _identity(folder)
        if here in chain:
            folders.clear()
            continue
        for name in folders:
            lies_in[os.path.join(folder, name)] = chain | {here}  # noqa: PTH118 (hot)
        yield folder, names


def _identity(folder: str | Path) -> tuple[int, int]:
    """What a folder is known by, whatever path leads to it."""
    try:
        status = os.stat(folder)  # noqa: PTH116 (hot)
    except OSError as error:
        _refuse(error)
    return status.st_dev, status.st_ino


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle, or into a folder that is closed
        return False


def _refuse(error: OSError) -> NoReturn:
    raise InputError(f"{error.filename}: cannot list this folder: {error.strerror}") from error


def _from_list_file(source: Path, max_pixels: int) -> ImageList:
    try:
        text = read_text(source).removeprefix("\ufeff")
    except OSError as error:
        raise InputError(f"{source}: cannot read this list file: {error.strerror}") from error
    if "\0" in text:
        raise InputError(f"{source}: neither a folder nor a text file with one image path a line")
    lines = (line.strip("\r") for line in text.split("\n"))
    images = _from_list(
        source.parent, [from_line(line) for line in lines if line.strip()], max_pixels
    )
    if not any(os.path.isfile(images.path(i)) for i in range(len(images))):  # noqa: PTH113
        raise InputError(
            f"{source}: none of its {len(images)} lines names an image file "
            f"(paths are absolute or relative to {source.parent}/)"
        )
    return images


def _from_list(root: Path, paths: list[str], max_pixels: int) -> ImageList:
    # one folder is one label, however the list spells it
    above = os.path.abspath(root)  # noqa: PTH100
    folders = [os.path.dirname(os.path.normpath(os.path.join(above, path))) for path in paths]  # noqa: PTH118, PTH120
    return ImageList(root, paths, folders, max_pixels)
