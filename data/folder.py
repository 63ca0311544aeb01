"""Images that are files of their own: those below a folder. `lists.py` has those of a list."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np

from data.decode import EMPTY, UnreadableImageError, image_extensions
from data.sieve import Sieve
from system.errors import InputError, raise_unlistable
from system.names import digest_of_names, has_line_break

LINE_BREAK = "its name has a line break"
FLAT = "."  # folder of the images in a root without class folders
UNLABELLED = ""  # folder of the images beside class folders, or label of an image in a list

T = TypeVar("T")


@dataclass(frozen=True)
class Files:
    """Image files by index, see `data.source.Source`.

    Attributes:
        root: the folder that the names are relative to.
        names: of the files; for an `ImageFolder` tree, in `torchvision.datasets.ImageFolder`'s
            order.
        folders: the label of each image, as text: the first folder below `root`; for a list, the
            label there, or the image's folder. `UNLABELLED` for an image without one.
    """

    root: Path
    names: Sequence[str]
    folders: Sequence[str]

    def path(self, index: int) -> str:
        """The file of an image."""
        return os.path.join(self.root, self.names[index])  # noqa: PTH118 (hot, and absolute wins)

    def open(self, index: int) -> BinaryIO:
        """The file, opened.

        Raises:
            UnreadableImageError: not a regular file, empty, or with a line break in its name.
            OSError: it is missing, or may not be read.
        """
        if has_line_break(self.names[index]):
            raise UnreadableImageError(LINE_BREAK)
        return open_file(self.path(index))

    @property
    def digest(self) -> str:
        """SHA-256 of the names in their order."""
        return digest_of_names(self.names)

    @property
    def checksum(self) -> str:
        """The digest, see `data.source.Source`."""
        return self.digest

    def content_digest(self) -> str:
        """See `data.source.Source`."""
        digest = hashlib.sha256()
        for index, name in enumerate(self.names):
            try:
                status = os.stat(self.path(index))  # noqa: PTH116 (hot)
            except OSError as error:
                reason = f"cannot read this image: {error.strerror}"
                raise InputError(f"{self.path(index)}: {reason}") from error
            words = f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0"
            digest.update(words.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def reads_anew(self, indices: np.ndarray) -> np.ndarray:
        """See `data.source.Source`."""
        return np.ones(len(indices), np.bool_)

    def take(self, indices: Sequence[int] | np.ndarray) -> "Files":
        """Some of the files, in that order."""
        names, folders = ([each[i] for i in indices] for each in (self.names, self.folders))
        return Files(self.root, names, folders)


def open_file(path: str) -> BinaryIO:
    """Open a regular file to read: a named pipe would block, and a device may have no end.

    Raises:
        UnreadableImageError: not a regular file, or empty.
        OSError: it is missing, or may not be read.
    """
    status = os.stat(path)  # noqa: PTH116 (hot)
    if stat.S_ISDIR(status.st_mode):
        raise UnreadableImageError("is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableImageError("is a pipe, a socket or a device, not a file")
    if status.st_size == 0:  # in /proc, reading one may block
        raise UnreadableImageError(EMPTY)
    return Path(path).open("rb")


def find_below(
    root: Path, otherwise: Callable[[Path, list[str]], T | None] = lambda root, containers: None
) -> Files | T:
    """The images of a folder, nested or flat. Says on stderr what is passed over.

    Symbolic links are followed, except a link to a folder that contains it.

    Args:
        otherwise: called for a folder without image files, with the paths of the containers there;
            None if it finds nothing, either.

    Raises:
        InputError: a folder cannot be listed, or there is no image.
    """
    sieve = Sieve()
    files = _with_folders(root, *_columns(_walk(root, sieve)))
    if not files.names and (found := otherwise(root, sieve.containers)) is not None:
        return found
    classes = set(files.folders) - {FLAT, UNLABELLED}
    sieve.say(root, files.folders.count(UNLABELLED), classes)
    if not files.names:
        raise InputError(
            f"{root}: no image in this folder or below it "
            f"(looked for {', '.join(sorted(image_extensions())[:6])} … and the like)"
        )
    return files


def has_images(root: Path) -> bool:
    """Whether `find_below` finds images there."""
    try:
        return any(True for _ in _walk(root, Sieve()))
    except InputError:
        return False


def containers_below(root: Path) -> list[str]:
    """The paths of all containers in a folder and below it.

    Raises:
        InputError: a folder cannot be listed.
    """
    sieve = Sieve()
    for _ in _walk(root, sieve):
        pass
    return sieve.containers


def below_again(root: Path, names: Sequence[str]) -> Files:
    """The files that `find_below` found earlier, from their names alone."""
    parts = (name.partition(os.sep) for name in names)
    return _with_folders(root, [first if slash else FLAT for first, slash, _ in parts], names)


def _with_folders(root: Path, folders: list[str], names: Sequence[str]) -> Files:
    """Files by the first folder of each: those beside other folders have no label."""
    if FLAT in folders and set(folders) != {FLAT}:
        folders = [UNLABELLED if folder == FLAT else folder for folder in folders]
    return Files(root, names, folders)


def _columns(pairs: Iterator[tuple[str, str]]) -> tuple[list[str], list[str]]:
    found = list(pairs)
    return [first for first, _ in found], [second for _, second in found]


def _walk(root: Path, sieve: Sieve) -> Iterator[tuple[str, str]]:
    """Yield (label folder, relative path): the images directly in `root`, then those of each class
    folder, in the order of `ImageFolder`."""
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError as error:
        raise_unlistable(error)
    folders = {entry.name for entry in entries if _is_folder(entry)}
    for entry in entries:
        if entry.name not in folders and sieve.is_image(os.fspath(root), entry.name):
            yield FLAT, entry.name
    for entry in entries:
        if entry.name not in folders or not sieve.is_folder_of_images(entry.name):
            continue
        for folder, names in sorted(_below(entry.path, sieve, _identity(root))):
            below = os.path.relpath(folder, root)
            for name in sorted(name for name in names if sieve.is_image(folder, name)):
                yield entry.name, os.path.join(below, name)  # noqa: PTH118 (hot)


def _below(top: str, sieve: Sieve, *above: tuple[int, int]) -> Iterator[tuple[str, list[str]]]:
    """A folder and those below it with their file names; links to a folder above are skipped.

    Args:
        above: the identities of the folders that contain `top`.
    """
    lies_in = {top: frozenset(above)}
    for folder, folders, names in os.walk(top, onerror=raise_unlistable, followlinks=True):
        chain = lies_in.pop(folder)
        here = _identity(folder)
        if here in chain:
            folders.clear()
            continue
        folders[:] = filter(sieve.is_folder_of_images, folders)
        for name in folders:
            lies_in[os.path.join(folder, name)] = chain | {here}  # noqa: PTH118 (hot)
        yield folder, names


def _identity(folder: str | Path) -> tuple[int, int]:
    """The identity of a folder, the same for every path to it."""
    try:
        status = os.stat(folder)  # noqa: PTH116 (hot)
    except OSError as error:
        raise_unlistable(error)
    return status.st_dev, status.st_ino


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle, or into a folder without permission
        return False
