"""Image files moved away, with a note by which they can be moved back. Nothing is deleted."""

import codecs
import contextlib
import csv
import errno
import io
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from system.errors import InputError
from system.files import append, atomic_write, make_folder, sync
from system.names import numbered_name, printable

NOTE = "moved.csv"  # from and to of each file, before it is moved
HEAD = b"from,to\n"
FLAG = "--move-duplicates"


def check_move_folder(folder: Path, sources: Sequence[Path]) -> None:
    """Check that files can be moved into a folder, which is made if missing.

    Args:
        sources: of the images.

    Raises:
        InputError: it lies in one of the sources, or can't be written.
    """
    for source in sources:
        if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
            raise InputError(
                f"{FLAG} {folder}: lies in {source}, where the images would be found again; give a "
                "folder elsewhere"
            )
    make_folder(folder, FLAG)


def move_files(paths: Sequence[str], folder: Path) -> list[Path]:
    """Move files into a folder, as `000012_name.jpg`. All moves are first added to its `moved.csv`,
    so that `move_back` undoes them even after a crash in between.

    Returns:
        The new paths.

    Raises:
        InputError: a file can't be moved; those before it have been.
    """
    before = len(list(folder.iterdir()))  # numbers go on, and no name is taken twice
    moves = [
        (os.path.abspath(path), folder.absolute() / numbered_name(before + number, path))  # noqa: PTH100
        for number, path in enumerate(paths)
    ]
    note = folder / NOTE
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(moves)
    lines = text.getvalue().encode("utf-8", "surrogateescape")
    append(note, lines if note.exists() else HEAD + lines)
    for path, target in moves:
        if os.path.lexists(target):
            raise InputError(f"{printable(str(target))}: is there already; move it elsewhere")
        _move(path, target)
    return [target for _, target in moves]


def move_back(folder: Path) -> tuple[list[str], list[str]]:
    """Undo all moves into a folder, the last one first. A file whose old place is taken stays.

    Returns:
        The old paths of the files that were moved back, and of those that couldn't be: both places
        are taken, or neither.

    Raises:
        InputError: the folder has no `moved.csv`, or a file can't be moved.
    """
    note = folder / NOTE
    try:
        content = note.read_bytes()
    except OSError as error:
        raise InputError(f"{note}: cannot read it: {error.strerror}") from error
    whole = content[: content.rfind(b"\n") + 1]  # a crash may have cut the last line
    lines = codecs.decode(whole, "utf-8", "surrogateescape")
    done, left = [], []
    for row in reversed(list(csv.reader(io.StringIO(lines, newline="")))[1:]):
        if len(row) != 2:
            raise InputError(f"{note}: not the note of moved files: {printable(','.join(row))}")
        path, target = row
        there, here = os.path.lexists(target), os.path.lexists(path)
        if there and not here:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            _move(target, Path(path))
            done.append(path)
        elif there or not here:
            left.append(path)
    return done, left


def _move(path: str, target: Path) -> None:
    """Rename a file, or on another disk copy it and then remove the original."""
    try:
        try:
            Path(path).rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with atomic_write(target) as copy, Path(path).open("rb") as original:
                shutil.copyfileobj(original, copy)
                sync(copy)
            with contextlib.suppress(OSError):
                shutil.copystat(path, target)
            Path(path).unlink()
    except OSError as error:
        raise InputError(
            f"{printable(path)}: cannot move it to {printable(str(target))}: {error.strerror}"
        ) from error
