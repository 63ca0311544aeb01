"""Find the network among all that a file holds.

Programs save weights at many levels (`state_dict`, `model`, `teacher`) and under many prefixes
(`module.`, `encoder_q.`). Both are treated alike: the full name of a weight is its path through the
dicts, and a network is a prefix after which all weights of one of our architectures follow.
"""

import functools
import itertools
import re
import reprlib
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from checkpoints.weights import (
    WRAPPER,
    StateDict,
    misfits,
    network_for,
    our_name,
    rename,
    some,
)
from models import MODELS, ConvNet
from system.errors import InputError, shorten

DEEPEST = 8  # dicts in dicts
MOST_PARTS = 32  # of a weight's full name; more prefixes aren't tried
OUR_LEVEL = "state_dict."  # where our checkpoints have the network
OURS = ("sobel.", "features.", "classifier.", "top_layer.")
NUMBERS = {
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool,
}  # fmt: skip

# Words of a prefix by which one of several networks is taken
QUERY = {"q", "query", "online", "base"}
TEACHER = {"teacher"}
COPY = {"k", "key", "momentum", "target", "ema", "average", "student"}


class Contents:
    """All that a file holds, by full name.

    Attributes:
        values: everything but dicts; None in place of a value whose name is no text.
        levels: the prefix of the dict that holds each.
    """

    def __init__(self, content: Any) -> None:
        self.values: dict[str, Any] = {}
        self.levels: dict[str, str] = {}
        left, seen = [("", content, 0)], set[int]()
        for prefix, table, depth in left:  # grows in the loop
            if not isinstance(table, dict) or depth > DEEPEST or id(table) in seen:
                continue
            seen.add(id(table))
            for name, value in dict.items(table):
                is_text = isinstance(name, str)
                full = prefix + (name if is_text else reprlib.repr(name))
                if isinstance(value, dict):
                    left.append((f"{full}.", value, depth + 1))
                elif full not in self.values:
                    self.values[full] = _plain(value) if is_text else None
                    self.levels[full] = prefix
        self._sorted = sorted((full, number) for number, full in enumerate(self.values))

    def below(self, prefix: str) -> dict[str, str]:
        """The full names that begin with a prefix, by what follows it, in the order of the file.

        The time grows with their number, and not with that of all names: a hostile file can have
        very many names and very many prefixes.
        """

        def start(entry: tuple[str, int]) -> str:
            return entry[0][: len(prefix)]

        first = bisect_left(self._sorted, prefix, key=start)
        last = bisect_right(self._sorted, prefix, first, key=start)
        found = sorted((number, full) for full, number in self._sorted[first:last])
        return {full[len(prefix) :]: full for _, full in found}


@dataclass(frozen=True)
class Network:
    """A network in a file.

    Attributes:
        prefix: in front of its weights' full names: empty, or with a dot at its end.
        arch: its architecture.
        weights: under our names.
        wrappers: prefixes that were removed from names after `prefix`.
        used: the full names of its weights.
    """

    prefix: str
    arch: str
    weights: StateDict
    wrappers: list[str]
    used: set[str]


def networks_in(contents: Contents, archs: Sequence[str]) -> list[Network]:
    """The networks of these architectures whose bodies are whole."""
    found: list[Network] = []
    used: set[str] = set()
    for prefix, firsts in _places(contents).items():
        if used.isdisjoint(firsts):
            network = _network_at(prefix, contents, archs)
            if network is not None:
                found.append(network)
                used |= network.used
    return found


def choose(networks: Sequence[Network], key: str | None, path: str | Path) -> Network:
    """One of several networks: of those with the name `key` the query encoder, else the teacher.

    Raises:
        InputError: no name, or no single network, fits; lists the names.
    """
    names = [_shown(network.prefix) for network in networks]
    named = [each for each in networks if key is None or f".{key}." in f".{each.prefix}"]
    if not named:
        raise InputError(f"{path}: --key {key}: it has no such network, but {some(names)}")
    ranks = [_rank(network.prefix) for network in named]
    best = [network for network, rank in zip(named, ranks, strict=True) if rank == min(ranks)]
    best = [each for each in best if each.prefix.startswith(OUR_LEVEL)] or best
    if len(best) > 1:
        names = [_shown(network.prefix) for network in best]
        raise InputError(f"{path}: holds several networks: {some(names)}; choose with --key NAME")
    return best[0]


def left_out(network: Network, networks: Sequence[Network], contents: Contents) -> list[str]:
    """What a file holds beside a network, by name: other networks, and in the same dict all but
    plain values."""
    levels = {contents.levels[full] for full in network.used}
    beside = Counter[str]()
    for full, value in contents.values.items():
        if contents.levels[full] in levels and full not in network.used and not is_plain(value):
            parts = _parts(full) or [full]
            pairs = zip(parts[:-1], _parts(network.prefix), strict=False)
            shared = itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)
            beside[parts[len(list(shared))]] += 1
    names = [f"{name} ({count})" if count > 1 else name for name, count in beside.items()]
    elsewhere = [each for each in networks if not each.prefix.startswith(tuple(levels))]
    if "trunk." in network.prefix:  # VISSL has heads in a dict beside that of the trunk
        level = f"{network.prefix.partition('trunk.')[0]}heads."
        count = sum(full.startswith(level) for full in contents.values)
        names += [f"heads ({count})"] if count > 0 else []
    return names + [_shown(each.prefix) for each in elsewhere]


def nearest_prefix(contents: Contents) -> str | None:
    """The prefix with the most weights named like ours; None without the first one of a network."""

    def count(prefix: str) -> int:
        return sum(our_name(name)[0].startswith(OURS) for name in contents.below(prefix))

    return max(_places(contents), key=count, default=None)


def is_dense(weight: Any) -> bool:
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


def _places(contents: Contents) -> dict[str, list[str]]:
    """The prefixes after which the first weight of a network follows, the shortest prefix first,
    with the full names of these weights."""
    firsts = {_body(make)[0] for make in MODELS.values()}
    ends = tuple(first.removeprefix("features.") for first in firsts)
    places: dict[str, list[str]] = {}
    for full in contents.values:
        if full.endswith(ends) and full.count(".") < MOST_PARTS:
            starts = [0, *(match.end() for match in re.finditer(r"\.", full))]
            for prefix in (full[:i] for i in starts if our_name(full[i:])[0] in firsts):
                places.setdefault(prefix, []).append(full)
    return dict(sorted(places.items(), key=lambda place: len(place[0])))


@functools.cache
def _body(make: Callable[[], ConvNet]) -> list[str]:
    """The names of a network's learned weights up to the top layer, in order."""
    with torch.device("meta"):
        names = make().state_dict()
    body = [name for name in names if name.startswith(("features.", "classifier."))]
    return [name for name in body if not name.endswith("num_batches_tracked")]


def _network_at(prefix: str, contents: Contents, archs: Sequence[str]) -> Network | None:
    try:
        names, wrappers = rename(contents.below(prefix), prefix)
    except InputError:
        return None
    names = {name: full for name, full in names.items() if name.startswith(OURS)}
    top = [name for name in names if name.startswith("top_layer.")]
    if len(top) == 1 and "top_layer" not in names[top[0]]:
        del names[top[0]]  # another program's head without a bias
    weights = {name: contents.values[full] for name, full in names.items()}
    if not all(map(is_dense, weights.values())):
        return None
    for arch in archs:
        if not weights.keys() >= {*_body(MODELS[arch])}:
            continue
        with torch.device("meta"):
            fits = not misfits(network_for(arch, weights), weights)
        if fits:
            return Network(prefix, arch, weights, wrappers, set(names.values()))
    return None


def _rank(prefix: str) -> int:
    words = set(re.split(r"[._]", prefix))
    return 0 if words & QUERY else 1 if words & TEACHER else 3 if words & COPY else 2


def _parts(name: str) -> list[str]:
    """The parts of a name, without those that only wrap a network."""
    return [part for part in name.split(".") if part and not re.fullmatch(WRAPPER, part)]


def _shown(prefix: str) -> str:
    return shorten(prefix.removesuffix(".")) or "the network at the top"


def is_plain(value: Any) -> bool:
    """Whether it is a number, a text or None."""
    return value is None or isinstance(value, str | int | float)


def _plain(value: Any) -> Any:
    """A tensor without attributes that a file may have added; other values unchanged."""
    return Tensor.detach(value) if type(value) in (Tensor, torch.nn.Parameter) else value
