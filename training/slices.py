"""Slices of a checkpoint: what is too large for it and differs between the processes.

Each process writes its slice, the entry `slices` of its contents, to a file of its own in `heads/`.
The checkpoint keeps the digests of these files instead. A file's name has the place in the run, so
the files of older checkpoints stay until these are gone.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from checkpoints.checkpoint import save_checkpoint
from checkpoints.folder import checkpoints_of, folder_of, place_of, sound_before
from checkpoints.torch_file import load_torch_file
from parallel.collectives import gather_objects, rank, together, world_size
from system import cli
from system.errors import InputError
from system.files import sha256_of

FOLDER = "heads"


@contextlib.contextmanager
def slices_apart(folder: Path | None, contents: dict[str, Any]) -> Iterator[None]:
    """Within this block, save a checkpoint whose slices, if it has any, are in files of their own.
    They are written before it, and those that no checkpoint needs any more are removed after it.

    Args:
        folder: the experiment folder; only process 0 has to give it.
        contents: of the checkpoint.

    Raises:
        InputError: a process can't write its file; the old files are still there.
    """
    if "slices" not in contents:
        yield
        return
    folder = gather_objects(folder)[0]
    place = contents["epoch"], contents["step"]
    with together():
        try:
            digest = _write(_file(folder, place), contents["slices"])
        except OSError as error:
            raise InputError(cli.reason_of(error)) from error
    contents["slices"] = gather_objects(digest)
    yield
    places = map(place_of, checkpoints_of(folder)) if rank() == 0 else []
    needed = {_file(folder, each) for each in gather_objects(list(places))[0] if each}
    for file in (folder / FOLDER).glob(f"*.{_number()}"):
        if file not in needed:
            file.unlink()


def read_slices(checkpoint: dict[str, Any], path: Path) -> None:
    """Put this process's slice of a checkpoint in its place: its entries join those of the same
    names.

    Args:
        path: of the checkpoint.

    Raises:
        InputError: there are other processes than those that saved it, or the file is missing or
            not the one that was saved.
    """
    digests = checkpoint.get("slices")
    if digests is None:
        return
    if not isinstance(digests, list) or not digests:
        raise InputError(f"--resume {path}: its 'slices' are malformed")
    if len(digests) != world_size():
        raise InputError(
            f"--resume {path}: its heads are in the files of {len(digests)} processes; resume with "
            f"as many, not with {world_size()}"
        )
    file = _file(folder_of(path), (checkpoint["epoch"], checkpoint["step"]))
    try:
        if sha256_of(file).hexdigest() != digests[rank()]:
            raise InputError(f"{file}: is not the file that was saved with {path}{_earlier(path)}")
    except OSError as error:
        reason = f"{file}: cannot read these heads of {path}: {error.strerror}"
        raise InputError(f"{reason}{_earlier(path)}") from error
    for name, part in load_torch_file(file).content.items():
        checkpoint[name] = {**checkpoint.get(name, {}), **part}


def _write(file: Path, content: dict[str, Any]) -> str:
    """Write a file, and return its digest."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(file, content)
    return sha256_of(file).hexdigest()


def _file(folder: Path, place: tuple[int, int]) -> Path:
    epoch, step = place
    return folder / FOLDER / f"epoch_{epoch:04d}_step_{step:06d}.{_number()}"


def _number() -> str:
    """The end of the name of each of this process's files."""
    return f"{rank()}_of_{world_size()}.pth.tar"


def _earlier(path: Path) -> str:
    before = sound_before(path)
    return f"; the earlier checkpoint {before} is sound" if before else ""
