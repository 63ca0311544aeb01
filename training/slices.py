"""Slices of a checkpoint: tensors too large for it, of which each process has its own part.

Each process writes its slice, the entry `slices` of its contents, to a file of its own in `heads/`.
The checkpoint keeps the digests of these files instead. A file's name has the place in the run, so
the files of older checkpoints stay until these are gone.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from checkpoints.checkpoint import save_checkpoint
from checkpoints.folder import checkpoints_of, folder_of, place_of, sound_checkpoints
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
    place = checkpoint["epoch"], checkpoint["step"]
    file = _file(folder_of(path), place)
    try:
        problem = "" if sha256_of(file).hexdigest() == digests[rank()] else "is another one"
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    if problem:
        raise InputError(
            f"{file}: was saved with {path} and {problem}; {_earlier(folder_of(path), place)}"
        )
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


def _earlier(folder: Path, place: tuple[int, int]) -> str:
    """Advice: the last sound checkpoint before a place."""
    others = sound_checkpoints(folder)
    before = next((path for path in others if (place_of(path) or place) < place), None)
    return f"give --resume {before}" if before else "there is no earlier checkpoint"
