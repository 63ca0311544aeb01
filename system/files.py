"""Files written whole or not at all, clear errors of full disks, and checks of output paths."""

import contextlib
import errno
import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from system.errors import InputError

LONGEST_NAME = 230  # bytes; of 255, with room for a prefix and a suffix
# Errors of a disk without room: full, quota used up, file too large, read-only
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextlib.contextmanager
def atomic_write(
    path: str | Path,
    durable: bool = True,
    needed: Callable[[], int] | None = None,
    finish: Callable[[Path], None] | None = None,
) -> Iterator[IO[bytes]]:
    """Open a temporary file for binary writing. It is renamed to `path` if the block succeeds.

    Args:
        durable: flush data and name to the disk (`fsync`), so that even a crash of the machine
            leaves the old file or the new one. Without it, which is faster for many small files,
            such a crash may leave an empty file.
        needed: returns the size in bytes for the message about a full disk; without it, the
            message says "more than" the bytes written so far.
        finish: called with the finished file's temporary name; if it raises, the old file stays.

    Raises:
        OSError: the disk is full, for example; the old file stays.
    """
    path = Path(path)
    temporary, written = None, 0

    def size() -> str:
        if needed is not None:
            return in_words(needed())
        return f"more than {in_words(written)}" if written > 0 else "more"

    with explained(path, size):
        try:
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=_begun(path), suffix=".tmp")
            temporary = Path(name)
            with os.fdopen(handle, "wb") as file:
                try:
                    yield file
                finally:
                    written = file.tell()
                if durable:
                    sync(file)
            temporary.chmod(0o666 & ~_umask())  # mkstemp makes private files
            if finish is not None:
                finish(temporary)
            temporary.replace(path)
            if durable:
                _sync_folder(path.parent)
        except BaseException:
            if temporary is not None:
                temporary.unlink(missing_ok=True)
            raise


def append(path: Path, data: bytes) -> None:
    """Append to a file, all or nothing unless the process is killed. A missing file is made.

    Raises:
        OSError: the disk is full, for example; the file is unchanged.
    """
    with explained(path, lambda: in_words(len(data))), path.open("ab", buffering=0) as file:
        end = file.tell()
        try:
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(file.fileno(), end)
            raise


@contextlib.contextmanager
def explained(path: Path, needed: Callable[[], str]) -> Iterator[None]:
    """Add the file, the room that it needs and the room on its disk to an OSError.

    Args:
        needed: returns the size in words, or "" if it isn't known.
    """
    try:
        yield
    except OSError as error:
        named = os.fsdecode(error.filename) if error.filename else ""
        hidden = named.startswith(str(path.parent / _begun(path)))
        if named and not hidden and named != str(path):
            raise  # about another file, such as an input
        reason = error.strerror or str(error)
        if error.errno in (None, *NO_ROOM):
            free = shutil.disk_usage(path.parent).free
            needs = f"it needs {size}, and " if (size := needed()) else ""
            reason += f": {needs}{in_words(free)} are free on its disk"
        raise OSError(error.errno or errno.EIO, reason, str(path)) from error


def in_words(size: int) -> str:
    """A number of bytes as `1.2 MB`."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size:,} bytes"


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Make a temporary folder to fill. It is renamed to `path`, which must be missing or an empty
    folder, if the block succeeds."""
    path = path.resolve()
    folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=_begun(path), suffix=".tmpdir"))
    try:
        yield folder
        folder.chmod(0o777 & ~_umask())
        folder.replace(path)
    except BaseException:
        shutil.rmtree(folder)
        raise


def check_new_file(
    flag: str, path: Path, endings: Sequence[str], read: Sequence[Path | None] = ()
) -> None:
    """Check before long work that a flag's file can be written.

    Args:
        endings: the allowed endings of its name.
        read: input files, which must not be overwritten.

    Raises:
        InputError: it can't.
    """
    if path.suffix.lower() not in endings:
        raise InputError(f"{flag} {path}: give a name that ends in {' or '.join(endings)}")
    if path.is_dir():
        raise InputError(f"{flag} {path}: is a folder")
    for source in filter(None, read):
        if path.exists() and source.exists() and path.samefile(source):
            raise InputError(f"{flag} {path}: is read, too; give another")
    _check_writable(flag, path, path.parent)


def check_new_folder(flag: str, path: Path) -> None:
    """Check before long work that a flag's folder is new or empty, and takes symbolic links.

    Raises:
        InputError: it isn't, or can't be written.
    """
    if path.exists() or path.is_symlink():
        if not path.is_dir() or any(path.iterdir()):
            raise InputError(f"{flag} {path}: is there already; give a new folder or an empty one")
        if path.samefile(Path.cwd()):
            raise InputError(f"{flag} {path}: is the folder that you are in; give a new one in it")
    _check_writable(flag, path, path.resolve().parent, links=True)


def _check_writable(flag: str, path: Path, parent: Path, links: bool = False) -> None:
    try:
        with tempfile.TemporaryDirectory(dir=parent) as folder:
            if links:
                Path(folder, "link").symlink_to(path)
    except OSError as error:
        raise InputError(f"{flag} {path}: cannot write there: {error.strerror}") from error


def remove_leftovers_of(path: Path) -> None:
    """Remove the temporary files of one file, left behind by a killed process."""
    for leftover in filter(Path.is_file, path.parent.glob(f"{glob.escape(_begun(path))}*.tmp")):
        leftover.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files in and below a folder, left behind by a killed process."""
    for leftover in filter(Path.is_file, folder.rglob(".?*.????????.tmp")):
        leftover.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all. Names that aren't UTF-8 keep their bytes."""
    data = text.encode("utf-8", "surrogateescape")
    with atomic_write(path, needed=lambda: len(data)) as file:
        file.write(data)


def sha256_of(path: Path) -> "hashlib._Hash":
    """The SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256")


def make_experiment_folder(folder: Path) -> None:
    """`make_folder` for `--exp`."""
    make_folder(folder, "--exp")


def make_folder(folder: Path, flag: str) -> None:
    """Make a flag's folder if it is missing.

    Raises:
        InputError: it can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"{flag} {folder}: cannot write there: {error.strerror}") from error


def new_numbered_folder(parent: str | Path) -> Path:
    """Make the first folder of `parent/001`, `parent/002` … that doesn't exist yet."""
    Path(parent).mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = Path(parent, f"{number:03d}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1


def _begun(path: Path) -> str:
    """The start of a temporary file's name; a long name is cut, to stay within 255 bytes."""
    name = path.name
    while len(os.fsencode(name)) > LONGEST_NAME:
        name = name[:-1]
    return f".{name}."


def sync(file: IO[bytes]) -> None:
    """Flush a file to the disk."""
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, if it can be opened."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems can't
            raise
    finally:
        os.close(handle)


def _umask() -> int:
    umask = os.umask(0)  # it can only be read by setting it
    os.umask(umask)
    return umask
