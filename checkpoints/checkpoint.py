"""Save checkpoints whole or not at all, and load them safely. A flipped bit is noticed.

The keys of a checkpoint are listed in `checkpoints/__init__.py`.
"""

import errno
import hashlib
import io
import logging
from pathlib import Path
from typing import IO, Any

import torch

from checkpoints.folder import sound_before
from checkpoints.released import as_checkpoint, describe, remarks
from checkpoints.torch_file import is_intact, load_torch_file
from checkpoints.weights import StateDict, has_sobel, in_words, misfits, network_for
from models import ConvNet, Network, untrained
from system import cli
from system.errors import InputError
from system.files import atomic_write
from system.normalisation import CENTRAL, IMAGENET_MEAN, IMAGENET_STD

log = logging.getLogger("deepcluster")


def save_checkpoint(path: str | Path, state: dict[str, Any], previous: Path | None = None) -> None:
    """Save a dict of tensors, numbers, strings, lists and dicts.

    The file is read back, with its checksums, before it is renamed to `path`.

    Args:
        previous: new name for the file that it replaces.

    Raises:
        OSError: for example a full disk, with the room needed. The old file is still there.
    """
    path = Path(path)

    def finish(written: Path) -> None:
        if not is_intact(written):
            raise OSError(errno.EIO, "the new file cannot be read back", str(path))
        if previous is not None and path.exists():
            _rename(path, previous)

    with atomic_write(path, needed=lambda: _size_of(state), finish=finish) as file:
        _write(state, file)


def network_entries(model: Network) -> dict[str, Any]:
    """The keys of a checkpoint that `model_of` makes the network from: `arch`, `state_dict`, `std`
    if it isn't ImageNet's, and `margin` if it isn't 0."""
    entries: dict[str, Any] = {"arch": model.arch, "state_dict": model.state_dict()}
    if model.std != IMAGENET_STD:
        entries["std"] = list(model.std)
    return {**entries, "margin": model.margin} if model.margin else entries


def read_checkpoint(path: str | Path, key: str | None = None) -> dict[str, Any]:
    """Load a checkpoint, or safetensors of `tools/export.py`, to the CPU. Warns of what another
    program's file holds beside the network.

    Args:
        key: of several networks in the file, the one with this name, such as `teacher`.

    Returns:
        The checkpoint, with parameters named as in `models`. `arch` is always a name in `MODELS`:
        if the file has none, it is recognised by the weights. `layout`, a `Layout`, is added.

    Raises:
        InputError: the file is missing, damaged, or not a checkpoint of a known network. Names the
            last sound checkpoint of the run before it, if there is one.
    """
    try:
        state = as_checkpoint(load_torch_file(path), path, key)
    except InputError as error:
        if sound := sound_before(Path(path)):
            raise InputError(f"{error}; the earlier checkpoint {sound} is sound") from error
        raise
    if found := remarks(state["layout"]):
        cli.warn(f"{path}: {'; '.join(found)}")
    return state


def load_model(path: str | Path, key: str | None = None) -> ConvNet:
    """The network of a checkpoint, on the CPU, with its architecture, Sobel filters, `std`,
    `margin` and number of outputs; `top_layer` is None if the checkpoint has none. Logs a
    description. `key` as for `read_checkpoint`.

    Raises:
        InputError: not a checkpoint, or its weights do not fit its architecture.
    """
    return model_of(read_checkpoint(path, key), path)


def model_of(state: dict[str, Any], path: str | Path) -> ConvNet:
    """The network of a checkpoint that `read_checkpoint` returned; `path` is for messages."""
    arch, weights = state["arch"], state["state_dict"]
    with torch.device("meta"):  # fails early, without time and memory for weights
        check_weights(network_for(arch, weights), weights, path)
    model = network_for(arch, weights)
    model.load_state_dict(weights, strict=False)
    set_input(model, state)
    log.info("%s: %s", path, describe(state))
    return model


def set_input(model: ConvNet, state: dict[str, Any]) -> None:
    """Give a network the `std` and the `margin` of a checkpoint, which go with its weights."""
    model.std, model.margin = state.get("std", IMAGENET_STD), state.get("margin", 0)


def untrained_of(state: dict[str, Any], seed: int) -> ConvNet:
    """The untrained network of a run's seed; `seed` is used if the checkpoint has none. The run
    started from it, unless it had `--init`: then a warning says so."""
    settings = state.get("settings", {})
    if settings.get("init") is not None:
        cli.warn(
            f"the run started from --init {settings['init']}; the untrained network here is "
            "another one, with random weights"
        )
    seed = settings.get("seed", seed)
    plain = state.get("method") == "deepercluster"
    model = untrained(state["arch"], has_sobel(state["state_dict"]), 2, seed, plain_linear=plain)
    set_input(model, state)
    return model


def digest_of(model: Network) -> str:
    """SHA-256 of a network's architecture, weights, `std` if it isn't ImageNet's, `margin` if it
    isn't 0, and how one of timm's takes images otherwise, to recognise its results."""
    digest = hashlib.sha256(model.arch.encode())
    if model.std != IMAGENET_STD:
        digest.update(repr(model.std).encode())
    if model.margin:
        digest.update(f"margin {model.margin}".encode())
    if (taken := (model.mean, model.crop)) != (IMAGENET_MEAN, CENTRAL):
        digest.update(repr(taken).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_weights(model: ConvNet, weights: StateDict, path: str | Path) -> None:
    """Copy all weights into a network, after `check_weights`."""
    check_weights(model, weights, path)
    model.load_state_dict(weights, strict=False)


def check_weights(model: ConvNet, weights: StateDict, path: str | Path) -> None:
    """Check that weights are finite and fit a network, which may be on the device `meta`.

    Raises:
        InputError: naming entries that are not finite, or as in `misfits`.
    """
    found = misfits(model, weights)
    if not found and (infinite := [n for n, w in weights.items() if not w.isfinite().all()]):
        found = {"not finite": infinite}
    if found:
        raise InputError(f"{path}: its weights do not fit {model.arch}: {in_words(found)}")


def _rename(path: Path, other: Path) -> None:
    """Give a file another name, replacing a file of that name. With hard links, it also keeps its
    own name, so that a crash leaves no gap."""
    other.unlink(missing_ok=True)
    try:
        other.hardlink_to(path)
    except OSError:  # not every file system has such links
        path.replace(other)


def _write(state: dict[str, Any], file: IO[bytes]) -> None:
    try:
        torch.save(state, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):  # torch hides the disk's error
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
