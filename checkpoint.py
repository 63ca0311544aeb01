"""Checkpoints: saved whole or not at all, loaded without running what is in them.

A checkpoint is a dict with the original's keys `epoch` (the next one to run), `arch`, `state_dict`
and `optimizer`, and ours beside them (see `main.py`).
"""

import hashlib
import re
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from errors import InputError
from files import atomic_write
from models import MODELS, ConvNet, untrained

StateDict = dict[str, Tensor]


def save_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """Save a dict of tensors, numbers, strings, lists and dicts."""
    with atomic_write(path) as file:
        torch.save(state, file)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint to the CPU, with its parameter names as the models here have them.

    Raises:
        InputError: the file is missing or is no checkpoint of a network known here.
    """
    try:
        with Path(path).open("rb") as file:
            state = _load_safely(file, path)
    except OSError as error:
        raise InputError(f"{path}: cannot read this checkpoint: {error.strerror}") from error
    if not isinstance(state, dict) or not isinstance(state.get("state_dict"), dict):
        raise InputError(f"{path}: not a checkpoint of DeepCluster: it holds no 'state_dict'")
    arch = state.get("arch")
    if not isinstance(arch, str) or arch not in MODELS:
        raise InputError(f"{path}: its architecture is {arch!r}, not one of {', '.join(MODELS)}")
    for name, weight in state["state_dict"].items():
        if not isinstance(name, str) or not isinstance(weight, Tensor):
            raise InputError(f"{path}: its state_dict holds something else than weights: {name!r}")
    settings = state.get("settings", {})
    if not isinstance(settings, dict) or not all(isinstance(name, str) for name in settings):
        raise InputError(f"{path}: its settings are not a table of names and values")
    state["state_dict"] = _without_wrappers(state["state_dict"])
    return state


def place_of(path: str | Path) -> tuple[int, int] | None:
    """The epoch and the batch of it that a checkpoint was saved at, without reading its weights;
    None for a file that is no checkpoint."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return int(state["epoch"]), int(state.get("step", 0))
    except Exception:  # damaged bytes make torch.load raise almost anything
        return None


def load_model(path: str | Path) -> ConvNet:
    """The network of a checkpoint, on the CPU.

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
    weights = state["state_dict"]
    top_layer = weights.get("top_layer.weight")
    model = MODELS[state["arch"]](
        sobel=has_sobel(weights), out=1 if top_layer is None else len(top_layer)
    )
    if top_layer is None:
        model.top_layer = None
    load_weights(model, weights, path)
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


def has_sobel(weights: StateDict) -> bool:
    """Whether the network of these weights starts with the Sobel filters."""
    return any(name.startswith("sobel.") for name in weights)


def load_weights(model: ConvNet, weights: StateDict, path: str | Path) -> None:
    """Copy weights into a network, all of them.

    Batch norm's `num_batches_tracked`, which files of 2018 lack, is the only entry that may be
    missing.

    Raises:
        InputError: entries that are missing, unexpected, of another shape or not finite, by name.
    """
    own = model.state_dict()
    wrong = {
        "missing": [n for n in own if n not in weights and not n.endswith("num_batches_tracked")],
        "unexpected": [n for n in weights if n not in own],
        "of another shape": [n for n in weights if n in own and weights[n].shape != own[n].shape],
        "not finite": [n for n in weights if n in own and not weights[n].isfinite().all()],
    }
    if any(wrong.values()):
        found = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in wrong.items() if names)
        raise InputError(f"{path}: its weights do not fit {model.arch}: {found}")
    model.load_state_dict(weights, strict=False)


def _load_safely(file: IO[bytes], path: str | Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make torch.load raise almost anything
        raise InputError(f"{path}: not a checkpoint, or a damaged one") from error


def _without_wrappers(weights: StateDict) -> StateDict:
    """Names without the `module.` that DataParallel puts in front of what it wraps."""
    return {re.sub(r"(^|\.)module\.", r"\1", name): value for name, value in weights.items()}
