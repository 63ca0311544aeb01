"""A network as safetensors: weights under the names of a checkpoint, and metadata."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from models import ConvNet
from system.files import atomic_write
from system.names import utf8_name


def save_weights(path: str | Path, model: ConvNet, about: dict[str, str]) -> None:
    """Write a network, whole or not at all.

    Args:
        about: the file's metadata; `read_weights` reads `arch`, `epoch`, `std`, `margin`, `size`,
            `exif`, `range` and `channels`.
    """
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with atomic_write(path) as file:
        file.write(safetensors.torch.save(weights, about))


def read_weights(path: str | Path) -> dict[str, Any]:
    """A checkpoint with the keys that the file has: `arch`, `state_dict`, `epoch`, `std`,
    `margin`, and `size`, `exif`, `range` and `channels` among the settings. On a damaged file it
    may raise any exception."""
    with utf8_name(path) as name, safetensors.safe_open(name, framework="pt") as file:
        about = file.metadata() or {}
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    state: dict[str, Any] = {"arch": about.get("arch"), "state_dict": weights}
    if "epoch" in about:
        state["epoch"] = int(about["epoch"])
    if "margin" in about:
        state["margin"] = int(about["margin"])
    if "std" in about:
        state["std"] = _numbers(about["std"])
    kinds: dict[str, Callable[[str], Any]] = {
        "size": int, "exif": str, "range": _numbers, "channels": _whole_numbers,
    }  # fmt: skip
    if settings := {name: read(about[name]) for name, read in kinds.items() if name in about}:
        state["settings"] = settings
    return state


def _whole_numbers(text: str) -> list[int]:
    return [int(number) for number in text.split()]


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split()]
