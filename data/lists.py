"""Images that a text file lists."""

import os
from pathlib import Path

from data.folder import Files
from system.errors import InputError
from system.names import read_text


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
