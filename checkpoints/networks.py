"""A network by the name that `--model` takes: a checkpoint's file, or `timm:NAME`."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpoints.checkpoint import model_of, read_checkpoint, untrained_of
from checkpoints.released import as_checkpoint, plain_dict
from checkpoints.search import is_dense
from checkpoints.torch_file import Loaded, load_torch_file
from models import MODELS, Network, check_size, fit_size
from models.timm_names import NONE, PREFIX, TimmName, timm_name, weights_of
from models.timm_network import TimmNetwork, timm_network
from system.errors import InputError
from system.normalisation import IMAGENET_MEAN

log = logging.getLogger("deepcluster")

SIZE = 224  # side of the input if the checkpoint has none
LARGEST = 10_000
MODEL_HELP = f"checkpoint, or {PREFIX}NAME[@FILE] of timm's networks, @{NONE} for random weights"
# where files of timm and of its users hold the weights; the mean of a training's weights first
TABLES = ("state_dict_ema", "model_ema", "state_dict", "model")


@dataclass(frozen=True)
class Opened:
    """A network that works with images of `size`.

    Attributes:
        name: what `--model` was given.
        checkpoint: as `read_checkpoint` returns it; of timm's networks only `arch`.
        model: on the CPU.
        size: side of the input in pixels.
    """

    name: Path
    checkpoint: dict[str, Any]
    model: Network
    size: int

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of its training; empty if they are not known."""
        return self.checkpoint.get("settings", {})

    @property
    def about(self) -> dict[str, Any]:
        """What results say of it: the architecture, and of timm's networks the weights, their
        licence, and the preprocessing."""
        found, arch = timm_name(self.name), {"arch": self.model.arch}
        if found is None or not isinstance(self.model, TimmNetwork):
            return arch
        return {**arch, **weights_of(found), "preprocessing": self.model.preprocessing}

    def untrained(self, seed: int) -> Network:
        """The untrained network: of a checkpoint as `untrained_of`, else with this seed."""
        found = timm_name(self.name)
        if found is None:
            return untrained_of(self.checkpoint, seed)
        model = timm_network(TimmName(found.name, NONE), seed=seed)
        fit_size(model, self.size)
        return model


def open_network(name: Path, key: str | None, size: int | None) -> Opened:
    """Open a network, and check that it works with the size.

    Args:
        key: as for `read_checkpoint`.
        size: `--size`; None takes that of the checkpoint's training, or timm's.

    Raises:
        InputError: there is no such network, or it does not take the size.
    """
    found = timm_name(name)
    if found is None:
        checkpoint = read_checkpoint(name, key)
        model: Network = model_of(checkpoint, name)
        size = input_size(size, checkpoint)
        check_size(model.arch, size)
        return Opened(name, checkpoint, model, size)
    if key is not None:
        raise InputError(f"--key {key}: names a network in a checkpoint; {name} is one network")
    timms = timm_network(found, None if found.file is None else weights_in(found.file))
    fit_size(timms, size or timms.size)
    opened = Opened(name, {"arch": timms.arch}, timms, timms.size)
    log.info("%s: %s", name, opened.about)
    return opened


def init_checkpoint(name: Path, key: str | None) -> dict[str, Any]:
    """The checkpoint of `--init`: as `read_checkpoint` returns it, also of a network of timm's
    that has an architecture of ours.

    Raises:
        InputError: there is no such network, or none of ours has its architecture.
    """
    found = timm_name(name)
    if found is None:
        return read_checkpoint(name, key)
    model = open_network(name, key, None).model
    assert isinstance(model, TimmNetwork)
    content = {"state_dict": model.body.state_dict(), "std": list(model.std)}
    try:
        state = as_checkpoint(Loaded(content, f"timm {found.name}", []), name)
    except InputError as error:
        raise InputError(
            f"--init {name}: its weights fit none of the architectures that main.py trains: "
            f"{', '.join(MODELS)}"
        ) from error
    if model.mean != IMAGENET_MEAN:
        raise InputError(
            f"--init {name}: takes images less {model.mean}, not ImageNet's mean; choose other "
            "weights"
        )
    return state


def input_size(size: int | None, checkpoint: dict[str, Any]) -> int:
    """The side of the input in pixels: `--size`, or else that of the checkpoint's training.

    Raises:
        InputError: the checkpoint's size is not a possible one.
    """
    found = size or checkpoint.get("settings", {}).get("size", SIZE)
    if type(found) is not int or not 1 <= found <= LARGEST:
        raise InputError(f"--size: the checkpoint has {found!r}; give 1 to {LARGEST} pixels")
    return found


def weights_in(path: Path) -> dict[str, Any]:
    """The weights in a file of any program, by the names that they have there.

    Raises:
        InputError: the file can't be read, or holds none.
    """
    content = load_torch_file(path).content
    table = plain_dict(content) if isinstance(content, dict) else {}
    table = next((plain_dict(table[n]) for n in TABLES if isinstance(table.get(n), dict)), table)
    if not table or not all(isinstance(n, str) and is_dense(w) for n, w in table.items()):
        raise InputError(f"{path}: holds no table of weights by name")
    return table
