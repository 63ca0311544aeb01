"""The content of a file as a checkpoint: its network under our names, and a description."""

import math
import re
import reprlib
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from checkpoints.deepercluster import HEAD, MARGIN, release_of
from checkpoints.search import (
    OUR_LEVEL,
    Contents,
    Network,
    choose,
    is_dense,
    is_plain,
    left_out,
    nearest_prefix,
    networks_in,
)
from checkpoints.swav import check_not_a_classifier, heads_beside
from checkpoints.torch_file import ZIP, Loaded
from checkpoints.torch_pickle import Placeholder
from checkpoints.weights import (
    StateDict,
    has_sobel,
    in_words,
    misfits,
    network_for,
    outputs_of,
    rename,
    some,
)
from models import MODELS
from system.errors import InputError, shorten
from system.normalisation import Std

MOST_MARGIN = 16  # pixels


class Layout(TypedDict):
    """The layout of a checkpoint's file; plain values, so that it can be saved again.

    Attributes:
        container: one of the formats of `torch_file`.
        alone: the file is only a state dict.
        prefix: in front of the network's names: the levels of the file that lead to it.
        wrappers: prefixes that were removed from names after that, such as `features.module.`.
        left_out: names of what else is there, such as heads and other networks.
        unknown: classes of objects that were not loaded.
        named: the file names its architecture; otherwise it was recognised by the weights.
        counts: batch norm has its `num_batches_tracked`, which files of 2018 lack.
        release: the kind of a file of DeeperCluster's release, in words; None for other files.
    """

    container: str
    alone: bool
    prefix: str
    wrappers: list[str]
    left_out: list[str]
    unknown: list[str]
    named: bool
    counts: bool
    release: str | None


def as_checkpoint(loaded: Loaded, path: str | Path, key: str | None = None) -> dict[str, Any]:
    """Translate the content of a file to the result of `checkpoint.read_checkpoint`.

    Args:
        key: the name of the network to take, as in `choose`.

    Raises:
        InputError: it isn't a checkpoint of a known network.
    """
    try:
        return _as_checkpoint(loaded, path, key)
    except InputError as error:
        if not loaded.unknown:
            raise
        names = some(loaded.unknown)
        raise InputError(f"{error}; it refers to {names}, which might run") from error


def _as_checkpoint(loaded: Loaded, path: str | Path, key: str | None) -> dict[str, Any]:
    if isinstance(loaded.content, Placeholder):
        raise InputError(
            f"{path}: not a checkpoint, but a whole object; if you trust its source, load it with "
            "its own code and torch.save its state_dict()"
        )
    contents = Contents(loaded.content)
    alone = _is_state_dict(loaded.content)
    state = plain_dict(loaded.content) if isinstance(loaded.content, dict) and not alone else {}
    state = {name: value for name, value in state.items() if not isinstance(value, Placeholder)}
    named = state.get("arch")
    archs = [named] if isinstance(named, str) and named in MODELS else list(MODELS)
    networks = networks_in(contents, archs)
    network = choose(networks, key, path) if networks else _nearest(contents, state, alone, path)
    _check_settings(state.get("settings", {}), path)
    if "std" in state:
        state["std"] = _std_of(state["std"], path)
    if "margin" in state:
        _check_margin(state["margin"], path)
    release = release_of(network, contents, named)
    layout = Layout(
        container=loaded.container,
        alone=alone,
        prefix=network.prefix,
        wrappers=network.wrappers,
        left_out=left_out(network, networks, contents) + ([HEAD] if HEAD in state else []),
        unknown=loaded.unknown,
        named=network.arch == named,
        counts=any(name.endswith("num_batches_tracked") for name in network.weights),
        release=release,
    )
    prefixes = (each.prefix for each in networks)
    above = {prefix[: dot.start()] for prefix in prefixes for dot in re.finditer(r"\.", prefix)}
    rest = {name: value for name, value in state.items() if name not in above}
    margin = {"margin": MARGIN} if release else {}
    rest = {**heads_beside(network, contents), **margin, **rest}
    return {**rest, "state_dict": network.weights, "arch": network.arch, "layout": layout}


def describe(state: dict[str, Any]) -> str:
    """A checkpoint of `as_checkpoint` in one line."""
    weights = state["state_dict"]
    sobel = "with Sobel filters" if has_sobel(weights) else "without Sobel filters"
    outputs = outputs_of(weights)
    std = f", std {' '.join(map(str, state['std']))}" if "std" in state else ""
    margin = f", margin of {state['margin']} px" if state.get("margin") else ""
    parts = [
        f"{state['arch']} {sobel}{std}{margin}",
        "no top layer" if outputs is None else f"{outputs} outputs",
        f"epoch {state['epoch']}" if isinstance(state.get("epoch"), int) else "no epoch",
    ]
    return f"{', '.join(parts)}; {layout_in_words(state['layout'])}"


def layout_in_words(layout: Layout) -> str:
    """A layout in one line."""
    container, wrappers = layout["container"], layout["wrappers"]
    parts = ["zip of torch 1.6 or later" if container == ZIP else container]
    if layout["release"]:
        parts.append(f"of {layout['release']}")
    if layout["alone"]:
        parts.append("a state dict alone")
    if not layout["named"]:
        parts.append("architecture recognised by the weights")
    if wrappers:
        parts.append(f"names with {' and '.join(wrappers)}")
    if not layout["counts"]:
        parts.append("no num_batches_tracked")
    return "; ".join([", ".join(parts), *remarks(layout)])


def remarks(layout: Layout) -> list[str]:
    """What was taken of another program's file, and what was not."""
    found = []
    if layout["prefix"] not in ("", OUR_LEVEL):
        found.append(f"took {shorten(layout['prefix'].removesuffix('.'))}")
    if layout["left_out"]:
        found.append(f"left out {some(layout['left_out'])}")
    if layout["unknown"]:
        found.append(f"did not load objects of {some(layout['unknown'])}")
    return found


def plain_dict(table: dict[Any, Any]) -> dict[Any, Any]:
    """A copy without attributes that a file may have added, such as another `get`."""
    return dict(dict.items(table))


def _is_state_dict(content: Any) -> bool:
    return (
        isinstance(content, dict)
        and len(content) > 0
        and all(isinstance(n, str) and isinstance(w, Tensor) for n, w in content.items())
    )


def _check_settings(settings: Any, path: str | Path) -> None:
    if not isinstance(settings, dict) or not all(
        isinstance(name, str) and _is_setting(value) for name, value in settings.items()
    ):
        raise InputError(f"{path}: its settings are not a table of names and values")


def _std_of(value: Any, path: str | Path) -> Std:
    values = value if isinstance(value, list | tuple) else []
    match [number for number in values if type(number) is float and 0 < number < math.inf]:
        case [red, green, blue] if len(values) == 3:
            return red, green, blue
    raise InputError(f"{path}: its std is {shorten(value)}; it should be three numbers above 0")


def _check_margin(value: Any, path: str | Path) -> None:
    if type(value) is not int or not 0 <= value <= MOST_MARGIN:
        raise InputError(
            f"{path}: its margin is {shorten(value)}; it should be 0 to {MOST_MARGIN} pixels"
        )


def _is_setting(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return all(map(is_plain, values))


def _nearest(contents: Contents, state: dict[str, Any], alone: bool, path: str | Path) -> Network:
    """The weights that are nearest to a network, if the file names its architecture.

    Raises:
        InputError: it doesn't, or there are no weights; names the nearest architecture and the
            weights that don't fit it.
    """
    named = state.get("arch")
    prefix = nearest_prefix(contents)
    if prefix is None and not alone and not isinstance(state.get("state_dict"), dict):
        raise InputError(f"{path}: not a checkpoint of DeepCluster: it holds no 'state_dict'")
    if prefix is None:
        prefix = "" if alone else OUR_LEVEL
    names, wrappers = rename(contents.below(prefix), path)
    check_not_a_classifier(names, path)
    weights = {name: contents.values[full] for name, full in names.items()}
    for name, weight in weights.items():
        if not is_dense(weight):
            shown = reprlib.repr(names[name][len(prefix) :])
            raise InputError(f"{path}: its state_dict holds something other than weights: {shown}")
    arch = _architecture(named, weights, path)
    return Network(prefix, arch, weights, wrappers, set(names.values()))


def _architecture(named: Any, weights: StateDict, path: str | Path) -> str:
    """The architecture that the file names.

    Raises:
        InputError: it is unknown; names the nearest, and the weights that don't fit it.
    """
    if isinstance(named, str) and named in MODELS:
        return named
    known = ", ".join(MODELS)
    if named is not None and not isinstance(named, str):
        raise InputError(f"{path}: its architecture is {reprlib.repr(named)}, not one of {known}")
    with torch.device("meta"):
        wrong = {arch: misfits(network_for(arch, weights), weights) for arch in MODELS}
    nearest = min(wrong, key=lambda arch: sum(map(len, wrong[arch].values())))
    what = "not named" if named is None else reprlib.repr(named)
    raise InputError(
        f"{path}: its architecture is {what}, and its weights fit none of {known}; "
        f"{nearest} is nearest: {in_words(wrong[nearest])}"
    )
