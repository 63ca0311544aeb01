"""The networks that tools.compare compares: what each checkpoint is, and which are runs of one
setting."""

import argparse
import json
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpoints.checkpoint import digest_of
from checkpoints.folder import NEWEST
from checkpoints.networks import open_network
from data.reading import Reading, chosen_reading
from models import Network, fit_size, untrained
from models.timm_names import NONE, TimmName, timm_name
from models.timm_network import timm_network
from system.errors import InputError
from system.normalisation import Std
from training.resume import OWN_SETTINGS

# Settings in which runs of one row may differ: these don't change what is trained, but for the seed
FREE_SETTINGS = {*OWN_SETTINGS, "seed", "checkpoints", "keep", "probe"}


@dataclass(frozen=True)
class Kind:
    """Networks with the same untrained ones, on the same pixels.

    Attributes:
        plain: the classifier starts with PyTorch's initial weights, as in DeeperCluster.
        std, margin: as in `Network`.
        size: side of the input in pixels.
    """

    arch: str
    sobel: bool
    plain: bool
    std: Std
    margin: int
    size: int
    reading: Reading

    def untrained(self, seed: int) -> Network:
        """The untrained network of a seed."""
        if found := timm_name(self.arch):
            timms = timm_network(TimmName(found.name, NONE), seed=seed)
            fit_size(timms, self.size)
            return timms
        model = untrained(self.arch, self.sobel, 2, seed, plain_linear=self.plain)
        model.std, model.margin = self.std, self.margin
        return model

    def among(self, kinds: Sequence["Kind"], fields: Container[str] | None = None) -> str:
        """What tells it from other kinds, in words; empty if it is the only one.

        Args:
            fields: the attributes that count; None: all.
        """
        words = {
            "arch": self.arch,
            "sobel": "with Sobel filters" if self.sobel else "without Sobel filters",
            "plain": "PyTorch's initial weights" if self.plain else "the paper's initial weights",
            "std": f"std {' '.join(map(str, self.std))}",
            "margin": f"margin {self.margin}",
            "size": f"{self.size} pixels",
            "reading": ", ".join(f"{n} {v}" for n, v in self.reading.settings.items() if v),
        }
        differ = (name for name in words if len({getattr(kind, name) for kind in kinds}) > 1)
        return ", ".join(words[name] for name in differ if fields is None or name in fields)


@dataclass(frozen=True)
class Contender:
    """A checkpoint, or a network of timm's, to compare.

    Attributes:
        digest: of its network, as in `digest_of`.
        about: as in `Opened`.
        seed: of its run; None if main.py did not write it.
        setting: all of its run but the seed, as text; its path if main.py did not write it.
    """

    path: Path
    kind: Kind
    digest: str
    about: dict[str, Any]
    seed: int | None
    setting: str


def look_at(path: Path, args: argparse.Namespace) -> Contender:
    """Load a checkpoint, and describe its network and its run.

    Raises:
        InputError: its network can't be loaded, or not be compared with these flags.
    """
    opened = open_network(path, args.network_key, args.size)
    checkpoint, model, settings = opened.checkpoint, opened.model, opened.settings
    method, sobel = checkpoint.get("method"), model.sobel is not None
    plain = method == "deepercluster" and len(model.classifier) > 0
    reading = chosen_reading(args, settings, path)
    kind = Kind(model.arch, sobel, plain, model.std, model.margin, opened.size, reading)
    seed = settings.get("seed")
    if method is None or type(seed) is not int or seed < 0:
        return Contender(path, kind, digest_of(model), opened.about, None, str(path))
    of_run = {name: value for name, value in settings.items() if name not in FREE_SETTINGS}
    place = [checkpoint.get(name) for name in ("epoch", "step", "images_digest")]
    setting = json.dumps([method, model.arch, place, of_run], sort_keys=True, default=repr)
    return Contender(path, kind, digest_of(model), opened.about, seed, setting)


def look_at_all(paths: Sequence[Path], args: argparse.Namespace) -> list[list[Contender]]:
    """The checkpoints, those that differ only by their seed together, in the order of the first of
    each. A second run of the same seed begins another group.

    Raises:
        InputError: as `look_at`; or a checkpoint is given twice.
    """
    groups: dict[tuple[str, int], list[Contender]] = {}
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise InputError(f"{path}: is given twice; give each checkpoint once")
        seen.add(path.resolve())
        found, number = look_at(path, args), 0
        while found.seed in {other.seed for other in groups.get((found.setting, number), [])}:
            number += 1
        groups.setdefault((found.setting, number), []).append(found)
    return list(groups.values())


def names_of(groups: Sequence[Sequence[Contender]], given: Sequence[str] | None) -> list[str]:
    """The rows' names: those given, or else of the checkpoints' files.

    Raises:
        InputError: there are more or fewer than rows, or two are the same.
    """
    files = [_name_of(group) for group in groups]
    names = files if given is None else list(given)
    if len(names) != len(groups):
        rows = ", ".join(files)
        raise InputError(f"--names {' '.join(names)}: give one for each of {len(files)}: {rows}")
    if given is not None and len(set(names)) < len(names):
        raise InputError(f"--names {' '.join(names)}: give each row its own name")
    return names


def _name_of(group: Sequence[Contender]) -> str:
    """The first run's folder, or another checkpoint's file, and the number of the others."""
    path = group[0].path
    in_run = path.name == NEWEST and timm_name(path) is None
    name = str(path.parent if in_run else path)
    return name if len(group) == 1 else f"{name} and {len(group) - 1} more"
