"""Checkpoints: saved whole or not at all, loaded without running what is in them, and not loaded
where a bit has flipped.

A checkpoint is a dict with the original's keys `epoch` (the next one to run), `arch`, `state_dict`
and `optimizer`, and ours beside them (see `main.py`).
"""

import errno
import hashlib
import io
import logging
from pathlib import Path
from typing import IO, Any

import torch

from checkpoints.folder import sound_before
from checkpoints.released import (
    StateDict,
    as_checkpoint,
    describe,
    has_sobel,
    in_words,
    misfits,
    network_for,
)
from checkpoints.torch_file import is_intact, load_torch_file
from models import ConvNet, untrained
from system.errors import InputError
from system.files import atomic_write

log = logging.getLogger("deepcluster")


def save_checkpoint(path: str | Path, state: dict[str, Any], previous: Path | None = None) -> None:
    """Save a dict of tensors, numbers, strings, lists and dicts.

    The file takes its name when it is on the disk and its header and the checksums of its records
    have been read back.

    Args:
        previous: the name that the file that is there now gets instead.

    Raises:
        OSError: the disk is full, for example, and says how much is needed. The file of before is
            still there.
    """
    path = Path(path)

    def finish(written: Path) -> None:
        if not is_intact(written):
            raise OSError(errno.EIO, "what was written cannot be read back", str(path))
        if previous is not None and path.exists():
            _rename(path, previous)

    with atomic_write(path, needed=lambda: _size_of(state), finish=finish) as file:
        _write(state, file)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint, or the safetensors of `tools/export.py`, to the CPU, with its parameters
    named as in the models here.

    Its `arch` is the name of a network known here, also where the file names none or is a state
    dict alone; `layout` is added, the `Layout` that was found.

    Raises:
        InputError: the file is missing, damaged, or no checkpoint of a network known here; says
            which other one of its run is sound.
    """
    try:
        return as_checkpoint(*load_torch_file(path), path)
    except InputError as error:
        if sound := sound_before(Path(path)):
            raise InputError(f"{error}; {sound}, from before it, is sound") from error
        raise


def load_model(path: str | Path) -> ConvNet:
    """The network of a checkpoint, on the CPU; what was found is logged.

    Architecture, Sobel and the number of outputs are the checkpoint's; `top_layer` is None where
    it has none.

    Raises:
        InputError: no checkpoint, or one whose parameters do not fit the architecture it names.
    """
    return model_of(read_checkpoint(path), path)


def model_of(state: dict[str, Any], path: str | Path) -> ConvNet:
    """The same, of a checkpoint that is read already.

    Raises:
        InputError: as `load_model`, naming the file.
    """
    arch, weights = state["arch"], state["state_dict"]
    with torch.device("meta"):  # before it takes time and memory
        check_weights(network_for(arch, weights), weights, path)
    model = network_for(arch, weights)
    model.load_state_dict(weights, strict=False)
    log.info("%s: %s", path, describe(state))
    return model


def untrained_of(state: dict[str, Any], seed: int) -> ConvNet:
    """The network that the run of a checkpoint started from.

    Args:
        state: what `read_checkpoint` gives.
        seed: the run's, where the checkpoint does not tell it.
    """
    seed = state.get("settings", {}).get("seed", seed)
    return untrained(state["arch"], has_sobel(state["state_dict"]), 2, seed)


def digest_of(model: ConvNet) -> str:
    """SHA-256 of the weights, by which the results of a network are known."""
    digest = hashlib.sha256(model.arch.encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_weights(model: ConvNet, weights: StateDict, path: str | Path) -> None:
    """Copy weights into a network, all of them.

    Raises:
        InputError: as `check_weights`.
    """
    check_weights(model, weights, path)
    model.load_state_dict(weights, strict=False)


def check_weights(model: ConvNet, weights: StateDict, path: str | Path) -> None:
    """Check that weights fit a network, which may be without any itself, on the device `meta`.

    Batch norm's `num_batches_tracked`, which files of 2018 lack, is the only entry that may be
    missing.

    Raises:
        InputError: entries that are missing, unexpected, of another shape or not finite, by name.
    """
    found = misfits(model, weights)
    if not found and (infinite := [n for n, w in weights.items() if not w.isfinite().all()]):
        found = {"not finite": infinite}
    if found:
        raise InputError(f"{path}: its weights do not fit {model.arch}: {in_words(found)}")


def _rename(path: Path, other: Path) -> None:
    """Give a file another name, which may be taken; it keeps its own until that is taken, too."""
    other.unlink(missing_ok=True)
    try:
        other.hardlink_to(path)
    except OSError:  # not every file system has such links
        path.replace(other)


def _write(state: dict[str, Any], file: IO[bytes]) -> None:
    try:
        torch.save(state, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):  # torch hides what the disk has said
            raise error.__context__ from None
        raise


def _size_of(state: dict[str, Any]) -> int:
    counter = _Counter()
    torch.save(state, counter)
    return counter.size


class _Counter(io.BytesIO):
    """A file that only counts its bytes."""

    size = 0

    def write(self, data: Any) -> int:
        self.size += len(data)
        return len(data)
