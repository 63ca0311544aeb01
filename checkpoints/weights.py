"""A network's weights by name: under our names, for a network, compared with a network.

To support another layout, add a row to `RENAMES`; for another network, a row to `models.MODELS`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from models import MODELS, ConvNet
from system.errors import InputError, shorten

StateDict = dict[str, Tensor]

WRAPPER = r"\w*module|_orig_mod"  # of DataParallel, torch.compile and the like

RENAMES = [  # (pattern in a weight's name, replacement)
    (re.compile(rf"(^|\.)(({WRAPPER})\.)+"), r"\1"),
    (re.compile(r"^body\."), ""),  # DeeperCluster's
    # the model zoos' residual networks, with torchvision's names
    (re.compile(r"^backbone\."), ""),
    (re.compile(r"^sobel_layer\.(sobel\.)?"), "sobel."),
    (re.compile(r"^(?=(conv1|bn1|layer[1-4])\.)"), "features."),
    (re.compile(r"^(head\.fc_cls|fc)\.(?=(weight|bias)$)"), "top_layer."),
]

MOST_NAMES = 20  # of each kind in a message
LONGEST_NAME = 60  # characters in a message


def our_name(name: str) -> tuple[str, set[str]]:
    """A weight's name in our models, and the prefixes that were removed."""
    wrappers: set[str] = set()
    for pattern, replacement in RENAMES:
        wrappers.update(filter(None, (name[: match.end()] for match in pattern.finditer(name))))
        name = pattern.sub(replacement, name)
    return name, wrappers


def rename(weights: Mapping[str, Any], path: str | Path) -> tuple[dict[str, Any], list[str]]:
    """Weights under our models' names, and the prefixes that were removed.

    Raises:
        InputError: two weights get the same name.
    """
    renamed: dict[str, Any] = {}
    wrappers: set[str] = set()
    for name, weight in weights.items():
        new, removed = our_name(name)
        wrappers |= removed
        if new in renamed:
            twice = f"{shorten(new)} twice, once as {shorten(name)}"
            raise InputError(f"{path}: its state_dict has {twice}")
        renamed[new] = weight
    return renamed, sorted(wrappers)


def has_sobel(weights: StateDict) -> bool:
    """Whether the network of these weights starts with the Sobel filters."""
    return any(name.startswith("sobel.") for name in weights)


def outputs_of(weights: StateDict) -> int | None:
    """Width of the top layer; None without one."""
    top_layer = weights.get("top_layer.weight")
    return None if top_layer is None else top_layer.shape[:1].numel()


def network_for(arch: str, weights: StateDict) -> ConvNet:
    """A new network with the Sobel filters and top layer that these weights have. Its first
    convolution is wider if they were trained after `ConvNet.merge_sobel`."""
    outputs = outputs_of(weights)
    out = 1 if outputs is None else outputs
    model = MODELS[arch](sobel=has_sobel(weights), out=out)
    name, first = next(iter(model.features.named_parameters()))
    found = weights.get(f"features.{name}")
    if found is not None and found.shape[2:] == (first.shape[2] + 2, first.shape[3] + 2):
        model = MODELS[arch](sobel=True, out=out)
        model.merge_sobel()
    if outputs is None:
        model.top_layer = None
    return model


def misfits(model: ConvNet, weights: StateDict) -> dict[str, list[str]]:
    """Names of weights that don't fit a network, by the kind of fault; empty if all fit. Only batch
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
    return "; ".join(f"{kind}: {some(names)}" for kind, names in wrong.items())


def some(names: list[str]) -> str:
    """The first of some names, and how many more there are."""
    more = len(names) - MOST_NAMES
    whole = [name if name.isprintable() else repr(name) for name in names[:MOST_NAMES]]
    shown = [shorten(name, LONGEST_NAME) for name in whole]
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
