"""Images that are files of their own: those below a folder, or those that a text file lists."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from data.decode import EMPTY, UnreadableImageError, image_extensions
from system.errors import InputError
from system.names import has_line_break, read_text

LINE_BREAK = "its name has a line break"


@dataclass(frozen=True)
class Files:
    """Image files by index, see `data.source.Source`.

    Attributes:
        root: the folder that the names are relative to.
        names: of the files; for an `ImageFolder` tree, in `torchvision.datasets.ImageFolder`'s
            order.
        folders: the first folder below `root` of each image; for a list, the folder of each image.
    """

    root: Path
    names: list[str]
    folders: list[str]

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

    def take(self, indices: Sequence[int]) -> "Files":
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


def find_below(root: Path) -> Files:
    """The images of a folder, nested or flat.

    Symbolic links are followed, except a link to a folder that contains it.

    Raises:
        InputError: a folder cannot be listed, or there is no image.
    """
    found = list(_walk(root))
    if not found:
        raise InputError(
            f"{root}: no image in this folder or below it "
            f"(looked for {', '.join(sorted(image_extensions())[:6])} … and the like)"
        )
    return Files(root, [name for _, name in found], [folder for folder, _ in found])


def below_again(root: Path, names: list[str]) -> Files:
    """The files that `find_below` found earlier, from their names alone."""
    parts = (name.partition(os.sep) for name in names)
    return Files(root, names, [first if slash else "." for first, slash, _ in parts])


def read_list(source: Path) -> Files:
    """The images that a text file lists, one per line.

    Raises:
        InputError: the list cannot be read, or names no file.
    """
    try:
        text = read_text(source).removeprefix("\ufeff")
    except OSError as error:
        raise InputError(f"{source}: cannot read this list file: {error.strerror}") from error
    if "\0" in text:
        raise InputError(f"{source}: neither a folder nor a text file with one image path a line")
    lines = (line.strip("\r") for line in text.split("\n"))
    files = listed(source.parent, [line for line in lines if line.strip()])
    if not any(os.path.isfile(files.path(i)) for i in range(len(files.names))):  # noqa: PTH113
        raise InputError(
            f"{source}: none of its {len(files.names)} lines names an image file "
            f"(paths are absolute or relative to {source.parent}/)"
        )
    return files


def listed(root: Path, names: list[str]) -> Files:
    """The images of a list in the folder `root`, from their names alone."""
    # normalised, so that `a/b` and `a/./b` are the same label
    above = os.path.abspath(root)  # noqa: PTH100
    folders = [os.path.dirname(os.path.normpath(os.path.join(above, name))) for name in names]  # noqa: PTH118, PTH120
    return Files(root, names, folders)


def _walk(root: Path) -> Iterator[tuple[str, str]]:
    """Yield (label folder, relative path): the images directly in `root`, then those of each class
    folder, in the order of `ImageFolder`."""
    extensions = image_extensions()

    def is_image(name: str) -> bool:
        return os.path.splitext(name)[1].lower() in extensions  # noqa: PTH122 (hot)

    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError as error:
        _raise_unlistable(error)
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
    """A folder and those below it with their file names; links to a folder above are skipped.

    Args:
        above: the identities of the folders that contain `top`.
    """
    lies_in = {top: frozenset(above)}
    for folder, folders, names in os.walk(top, onerror=_raise_unlistable, followlinks=True):
        chain = lies_in.pop(folder)
        here = _identity(folder)
        if here in chain:
            folders.clear()
            continue
        for name in folders:
            lies_in[os.path.join(folder, name)] = chain | {here}  # noqa: PTH118 (hot)
        yield folder, names


def _identity(folder: str | Path) -> tuple[int, int]:
    """The identity of a folder, the same for every path to it."""
    try:
        status = os.stat(folder)  # noqa: PTH116 (hot)
    except OSError as error:
        _raise_unlistable(error)
    return status.st_dev, status.st_ino


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle, or into a folder without permission
        return False


def _raise_unlistable(error: OSError) -> NoReturn:
    raise InputError(f"{error.filename}: cannot list this folder: {error.strerror}") from error
