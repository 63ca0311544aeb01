"""Makes the index of containers in several processes, and keeps it: beside the images, or where
that can't be written in the folder that `DEEPCLUSTER_CACHE` names."""

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from data.packed.containers import Containers
from data.packed.entries import Entries
from data.packed.index import Index, load_index, write_index
from data.packed.kinds import INDEX_FOLDER
from data.packed.parquet import read_parquet
from data.packed.tars import read_tar
from data.packed.zips import read_zip
from parallel.signals import ignore_signals
from system.cores import allowed_cores
from system.errors import Fault, InputError
from system.extras import check_installed
from system.files import atomic_folder
from system.kept import Key
from system.locks import sole_user
from system.names import digest_of_names
from system.progress import progress

FORMAT = 2  # of the index; another one is made anew
CACHE = "DEEPCLUSTER_CACHE"  # the variable that names another place
UNUSED = 30 * 24 * 3600  # seconds without use, after which a newer index replaces an older one
READERS: dict[str, Callable[[Path], Entries]] = {
    "tar": read_tar,
    "zip": read_zip,
    "parquet": read_parquet,
}


def index_of(containers: Containers) -> Index:
    """The index, kept or made now.

    Raises:
        InputError: a container is damaged, or the index can't be written anywhere.
    """
    if containers.kind == "parquet":
        check_installed(str(containers.root / containers.names[0]), "pyarrow")
    key, sizes = key_of(containers)
    names = [containers.kind, *containers.names]
    above = str(containers.root.resolve())  # the cache has the indexes of many folders
    folders = [
        folder_of(containers.root, names, key),
        folder_of(_cache(), [above, *names], key),
    ]
    for folder in folders:
        if (index := load_index(folder, key)) is not None:
            with contextlib.suppress(OSError):
                os.utime(folder)  # it is in use, see `_remove_unused`
            return index
    folder = _writable(folders)
    with sole_user(folder.with_name(f".{folder.name}.lock"), busy=None):
        index = load_index(folder, key)  # made by another process meanwhile
        if index is None:
            try:
                _make(folder, key, containers, sizes)
                reason = "it can't be read back"
            except OSError as error:  # where locks don't work, another process may be first
                reason = error.strerror or str(error)
            index = load_index(folder, key)
    if index is None:
        raise InputError(
            f"{folder}: cannot write the index of the images: {reason}; set {CACHE} to a folder "
            "that can be written"
        )
    return index


def folder_of(place: Path, names: Sequence[str], key: Key) -> Path:
    """The folder of an index at a place: beside the images, or in the cache."""
    version = hashlib.sha256(repr(key).encode()).hexdigest()
    return place / INDEX_FOLDER / f"{digest_of_names(names)[:16]}-{version[:16]}"


def key_of(containers: Containers) -> tuple[Key, list[int]]:
    """What identifies containers: names, sizes and times of change; and the sizes in bytes.

    Raises:
        InputError: one has vanished.
    """
    digest, sizes = hashlib.sha256(), []
    for name in containers.names:
        path = containers.root / name
        try:
            status = path.stat()
        except OSError as error:
            raise InputError(f"{path}: cannot read this container: {error.strerror}") from error
        sizes.append(status.st_size)
        line = f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return {"format": FORMAT, "kind": containers.kind, "containers": digest.hexdigest()}, sizes


def _make(folder: Path, key: Key, containers: Containers, sizes: list[int]) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # damaged
    with atomic_folder(folder) as temporary:
        write_index(temporary, key, containers.names, sizes, _read_all(containers))
    _remove_unused(folder)


def _remove_unused(folder: Path) -> None:
    """Remove indexes of containers with the same names that are out of use. Another machine may
    have the containers with other times, and still read its index."""
    names, _, _ = folder.name.partition("-")
    for other in folder.parent.glob(f"{names}-*"):
        with contextlib.suppress(OSError):
            if time.time() - other.stat().st_mtime > UNUSED:
                shutil.rmtree(other)


def _read_all(containers: Containers) -> Iterator[Entries]:
    """The entries of each container, in order; a process for each core reads one at a time."""
    tasks = [(containers.kind, containers.root / name) for name in containers.names]
    workers = min(allowed_cores(), len(tasks))
    with progress("indexing", len(tasks), "containers") as advance:
        if workers == 1:
            for task in tasks:
                yield _read(task)
                advance(1)
            return
        try:
            with ProcessPoolExecutor(workers, initializer=ignore_signals) as pool:
                for entries in pool.map(_read, tasks):
                    yield entries
                    advance(1)
        except BrokenProcessPool as error:
            raise Fault(f"{containers.root}: a process that indexes it was killed") from error


def _read(task: tuple[str, Path]) -> Entries:
    kind, path = task
    try:
        return READERS[kind](path)
    except OSError as error:
        raise InputError(f"{path}: cannot read this container: {error.strerror}") from error


def _cache() -> Path:
    if named := os.environ.get(CACHE):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "deepcluster"


def _writable(folders: list[Path]) -> Path:
    """The first folder that can be made."""
    for folder in folders:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            if os.access(folder.parent, os.W_OK):
                return folder
        except (OSError, RuntimeError):  # without a home
            continue
    raise InputError(
        f"{folders[0].parent}: cannot write the index of the images there, nor in "
        f"{folders[-1].parent}; set "
        f"{CACHE} to a folder that can be written"
    )
