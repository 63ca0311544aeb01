"""Files that appear whole or not at all."""

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from errors import InputError


@contextlib.contextmanager
def atomic_write(path: str | Path, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open `path` for binary writing; it takes its name only when the block ends without an error.

    Args:
        durable: the data reaches the disk before the name does, so that a crash of the machine,
            too, leaves either the old file or the new one. For many small files that takes longer
            than to write them; without it, such a crash may leave an empty file.
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())  # mkstemp makes private files
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove_leftovers_of(path: Path) -> None:
    """Remove what `atomic_write` had begun of one file when its process was killed."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove what `atomic_write` had begun in a folder or below when its process was killed."""
    for leftover in folder.rglob(".*.tmp"):
        leftover.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole. File names that are not UTF-8 keep their bytes."""
    with atomic_write(path) as file:
        file.write(text.encode("utf-8", "surrogateescape"))


def make_experiment_folder(folder: Path) -> None:
    """Make the folder of `--exp`, where it is missing.

    Raises:
        InputError: it cannot be written.
    """
    make_folder(folder, "--exp")


def make_folder(folder: Path, flag: str) -> None:
    """Make the folder that a flag names, where it is missing.

    Raises:
        InputError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"{flag} {folder}: cannot write there: {error.strerror}") from error


def new_numbered_folder(parent: str | Path) -> Path:
    """Make the first folder of `parent/001`, `parent/002` … that is not there yet."""
    Path(parent).mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        folder = Path(parent, f"{number:03d}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError("there is always a next number")


def _umask() -> int:
    umask = os.umask(0)  # the only way to read it is to set it
    os.umask(umask)
    return umask
