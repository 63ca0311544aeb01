"""Files that appear whole or not at all."""

import contextlib
import errno
import glob
import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from system.errors import InputError

LONGEST_NAME = 230  # bytes; of 255, with room for what is added
# What a disk says that has no room: it is full, its quota is used up, the limit of a file's size is
# reached, it can only be read.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextlib.contextmanager
def atomic_write(
    path: str | Path,
    durable: bool = True,
    needed: Callable[[], int] | None = None,
    finish: Callable[[Path], None] | None = None,
) -> Iterator[IO[bytes]]:
    """Open `path` for binary writing; it takes its name only when the block ends without an error.

    Args:
        durable: the data reaches the disk before the name does, and the name before this returns,
            so that a crash of the machine, too, leaves either the old file or the new one. For
            many small files that takes longer than to write them; without it, such a crash may
            leave an empty file.
        needed: the size in bytes, asked for where the disk is full; left out: more than what was
            written by then.
        finish: called with the finished file's temporary name, the last that may refuse it.

    Raises:
        OSError: the disk is full, for example; the file as it was before is still there.
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
    """Write behind the end of a file, which is made where it is missing: all or nothing, as far as
    this process lives to see to it.

    Raises:
        OSError: the disk is full, for example; the file is as it was before.
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
                os.ftruncate(file.fileno(), end)  # half a line would be no line
            raise


@contextlib.contextmanager
def explained(path: Path, needed: Callable[[], str]) -> Iterator[None]:
    """Have a disk that does not take a file say which one, how much room it needs, in words (or ""
    where that is not known), and how much is free; it says none of it by itself."""
    try:
        yield
    except OSError as error:
        named = os.fsdecode(error.filename) if error.filename else ""
        hidden = named.startswith(str(path.parent / _begun(path)))
        if named and not hidden and named != str(path):  # another file, such as one that was read
            raise
        reason = error.strerror or str(error)
        if error.errno in (None, *NO_ROOM):
            free = shutil.disk_usage(path.parent).free
            needs = f"it needs {size}, and " if (size := needed()) else ""
            reason += f": {needs}{in_words(free)} are free on its disk"
        raise OSError(error.errno or errno.EIO, reason, str(path)) from error


def in_words(size: int) -> str:
    """A number of bytes."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size:,} bytes"


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Make a folder to fill; it takes its name, which nothing or an empty folder may have, only
    when the block ends without an error."""
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
    """Check that a file can be written where a flag wants it, before long work.

    Args:
        endings: of the name, one of which says the format.
        read: files that the program reads, none of which this may be.

    Raises:
        InputError: it cannot.
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
    """The same of a folder of links, which has to be new or empty.

    Raises:
        InputError: it is not, or cannot be written, or there are no symbolic links.
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
    """Remove what `atomic_write` had begun of one file when its process was killed."""
    for leftover in filter(Path.is_file, path.parent.glob(f"{glob.escape(_begun(path))}*.tmp")):
        leftover.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove what `atomic_write` had begun in a folder or below when its process was killed: files
    that are called as `mkstemp` does it."""
    for leftover in filter(Path.is_file, folder.rglob(".?*.????????.tmp")):
        leftover.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole. File names that are not UTF-8 keep their bytes."""
    data = text.encode("utf-8", "surrogateescape")
    with atomic_write(path, needed=lambda: len(data)) as file:
        file.write(data)


def sha256_of(path: Path) -> "hashlib._Hash":
    """The SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest


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


def _begun(path: Path) -> str:
    """How the name of what is begun of a file begins. As the whole of it may not be longer than a
    name may be, a long one's own end is left off."""
    name = path.name
    while len(os.fsencode(name)) > LONGEST_NAME:
        name = name[:-1]
    return f".{name}."


def sync(file: IO[bytes]) -> None:
    """Have what was written to a file reach the disk."""
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder reach the disk, where it can be opened and the disk is asked."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # from file systems that cannot
            raise
    finally:
        os.close(handle)


def _umask() -> int:
    umask = os.umask(0)  # the only way to read it is to set it
    os.umask(umask)
    return umask
