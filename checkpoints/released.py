"""Translate the layouts of released checkpoints to that of the models here.

To support another layout, add a row to `RENAMES`; for another network, a row to `models.MODELS`.
"""

import re
import reprlib
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from checkpoints.torch_file import ZIP
from models import MODELS, ConvNet
from system.errors import InputError, shorten

StateDict = dict[str, Tensor]

RENAMES = [  # (pattern in a weight's name, replacement)
    # DataParallel around `features`, DistributedDataParallel around the network
    (re.compile(r"(^|\.)module\."), r"\1"),
    # the model zoos' residual networks, with torchvision's names
    (re.compile(r"^backbone\."), ""),
    (re.compile(r"^sobel_layer\.(sobel\.)?"), "sobel."),
    (re.compile(r"^(?=(conv1|bn1|layer[1-4])\.)"), "features."),
    (re.compile(r"^(head\.fc_cls|fc)\."), "top_layer."),
]

NUMBERS = {
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool,
}  # fmt: skip

MOST_NAMES = 20  # of each kind in a message
LONGEST_NAME = 60  # characters in a message
PLAIN = (str, int, float, type(None))  # types of settings, and of those in a list


class Layout(TypedDict):
    """The layout of a checkpoint's file; plain values, so that it can be saved again.

    Attributes:
        container: one of the formats of `torch_file`.
        alone: the file is only a state dict.
        wrappers: prefixes that were removed from names, such as `features.module.`.
        named: the file names its architecture; otherwise it was recognised by the weights.
        counts: batch norm has its `num_batches_tracked`, which files of 2018 lack.
    """

    container: str
    alone: bool
    wrappers: list[str]
    named: bool
    counts: bool


def as_checkpoint(content: Any, container: str, path: str | Path) -> dict[str, Any]:
    """Translate the content of a file to the result of `checkpoint.read_checkpoint`.

    Raises:
        InputError: it isn't a checkpoint of a known network.
    """
    content = _plain(content)
    alone = _is_state_dict(content)
    state = {"state_dict": content} if alone else content
    if not isinstance(state, dict) or not isinstance(state.get("state_dict"), dict):
        raise InputError(f"{path}: not a checkpoint of DeepCluster: it holds no 'state_dict'")
    state = {name: _plain(value) for name, value in state.items()}
    for name, weight in state["state_dict"].items():
        plain = _plain(weight)
        if not isinstance(name, str) or not _is_dense(plain):
            shown = reprlib.repr(name)
            raise InputError(f"{path}: its state_dict holds something other than weights: {shown}")
        state["state_dict"][name] = plain
    settings = state.get("settings", {})
    if not isinstance(settings, dict) or not all(
        isinstance(name, str) and _is_setting(value) for name, value in settings.items()
    ):
        raise InputError(f"{path}: its settings are not a table of names and values")
    weights, wrappers = _rename(state["state_dict"], path)
    arch = _architecture(state.get("arch"), weights, path)
    layout = Layout(
        container=container,
        alone=alone,
        wrappers=wrappers,
        named=arch == state.get("arch"),
        counts=any(name.endswith("num_batches_tracked") for name in weights),
    )
    return {**state, "state_dict": weights, "arch": arch, "layout": layout}


def describe(state: dict[str, Any]) -> str:
    """A checkpoint of `as_checkpoint` in one line."""
    weights = state["state_dict"]
    sobel = "with Sobel filters" if has_sobel(weights) else "without Sobel filters"
    outputs = outputs_of(weights)
    parts = [
        f"{state['arch']} {sobel}",
        "no top layer" if outputs is None else f"{outputs} outputs",
        f"epoch {state['epoch']}" if isinstance(state.get("epoch"), int) else "no epoch",
    ]
    return f"{', '.join(parts)}; {layout_in_words(state['layout'])}"


def layout_in_words(layout: Layout) -> str:
    """A layout in one line."""
    container, wrappers = layout["container"], layout["wrappers"]
    parts = ["zip of torch 1.6 or later" if container == ZIP else container]
    if layout["alone"]:
        parts.append("a state dict alone")
    if not layout["named"]:
        parts.append("architecture recognised by the weights")
    if wrappers:
        parts.append(f"names with {' and '.join(wrappers)}")
    if not layout["counts"]:
        parts.append("no num_batches_tracked")
    return ", ".join(parts)


def has_sobel(weights: StateDict) -> bool:
    """Whether the network of these weights starts with the Sobel filters."""
    return any(name.startswith("sobel.") for name in weights)


def outputs_of(weights: StateDict) -> int | None:
    """Width of the top layer; None without one."""
    top_layer = weights.get("top_layer.weight")
    return None if top_layer is None else top_layer.shape[:1].numel()


def network_for(arch: str, weights: StateDict) -> ConvNet:
    """A new network with the Sobel filters and top layer that these weights have."""
    outputs = outputs_of(weights)
    model = MODELS[arch](sobel=has_sobel(weights), out=1 if outputs is None else outputs)
    if outputs is None:
        model.top_layer = None
    return model


def misfits(model: ConvNet, weights: StateDict) -> dict[str, list[str]]:
    """Names of weights that don't fit a network, by what is wrong; empty if all fit. Only batch
    norm's `num_batches_tracked`, which files of 2018 lack, may be missing."""
    own = model.state_dict()
    wrong = {
        "missing": [n for n in own if n not in weights and not n.endswith("num_batches_tracked")],
        "unexpected": [n for n in weights if n not in own],
        "of another shape": [n for n in weights if n in own and weights[n].shape != own[n].shape],
    }
    return {kind: names for kind, names in wrong.items() if names}


def in_words(wrong: dict[str, list[str]]) -> str:
    """The result of `misfits` in one line."""
    return "; ".join(f"{kind}: {_some(names)}" for kind, names in wrong.items())


def plain_dict(table: dict[Any, Any]) -> dict[Any, Any]:
    """A copy without attributes that a file may have added, such as another `get`."""
    return dict(dict.items(table))


def _is_state_dict(content: Any) -> bool:
    return (
        isinstance(content, dict)
        and len(content) > 0
        and all(isinstance(n, str) and isinstance(w, Tensor) for n, w in content.items())
    )


def _is_setting(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return all(isinstance(each, PLAIN) for each in values)


def _plain(content: Any) -> Any:
    """A dict or tensor without attributes that a file may have added; other values unchanged."""
    if type(content) in (Tensor, torch.nn.Parameter):
        return Tensor.detach(content)
    return plain_dict(content) if isinstance(content, dict) else content


def _is_dense(weight: Any) -> bool:
    """Whether it is a tensor of numbers with memory for each entry. (A small file can claim
    terabytes of one repeated number, or any number of empty rows.)"""
    return (
        type(weight) is Tensor
        and weight.layout == torch.strided
        and weight.device.type == "cpu"
        and weight.dtype in NUMBERS
        and weight.numel() > 0
        and weight.numel() * weight.element_size() <= weight.untyped_storage().nbytes()
    )


def _rename(weights: StateDict, path: str | Path) -> tuple[StateDict, list[str]]:
    """Weights under our models' names, and the prefixes that were removed.

    Raises:
        InputError: two weights get the same name.
    """
    renamed: StateDict = {}
    wrappers: set[str] = set()
    for name, weight in weights.items():
        new = name
        for pattern, replacement in RENAMES:
            found = (new[: match.end()] for match in pattern.finditer(new))
            wrappers.update(filter(None, found))
            new = pattern.sub(replacement, new)
        if new in renamed:
            twice = f"{shorten(new)} twice, once as {shorten(name)}"
            raise InputError(f"{path}: its state_dict has {twice}")
        renamed[new] = weight
    return renamed, sorted(wrappers)


def _architecture(named: Any, weights: StateDict, path: str | Path) -> str:
    """The architecture that the file names or, if that is unknown, the one that the weights fit.

    Raises:
        InputError: there is none; names the nearest, and the weights that don't fit it.
    """
    if isinstance(named, str) and named in MODELS:
        return named
    known = ", ".join(MODELS)
    if named is not None and not isinstance(named, str):
        raise InputError(f"{path}: its architecture is {reprlib.repr(named)}, not one of {known}")
    with torch.device("meta"):
        wrong = {arch: misfits(network_for(arch, weights), weights) for arch in MODELS}
    nearest = min(wrong, key=lambda arch: sum(map(len, wrong[arch].values())))
    if not wrong[nearest]:
        return nearest
    what = "not named" if named is None else reprlib.repr(named)
    raise InputError(
        f"{path}: its architecture is {what}, and its weights fit none of {known}; "
        f"{nearest} is nearest: {in_words(wrong[nearest])}"
    )


def _some(names: list[str]) -> str:
    more = len(names) - MOST_NAMES
    whole = [name if name.isprintable() else repr(name) for name in names[:MOST_NAMES]]
    shown = [shorten(name, LONGEST_NAME) for name in whole]
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
