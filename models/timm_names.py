"""The names of timm's networks, and what timm knows of them.

`timm:NAME` has the weights that timm finds in its cache or on the Hub, `timm:NAME@FILE` those of a
file, `timm:NAME@none` random ones.
"""

import difflib
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from system.errors import InputError
from system.extras import check_installed

PREFIX = "timm:"
NONE = "none"
DEFAULT = "timm:vit_small_patch14_dinov2.lvd142m"  # without --model
DEFAULT_SIZE = 224  # of DEFAULT's input; timm's own is 518
MOST_NAMES = 5  # in a message


class TimmName(NamedTuple):
    """A name that `--model` takes, in parts.

    Attributes:
        name: timm's, with or without the tag of its weights.
        weights: what follows "@": a file, or `NONE`; None without it.
    """

    name: str
    weights: str | None

    @property
    def untrained(self) -> bool:
        """Whether its weights are random."""
        return self.weights == NONE

    @property
    def file(self) -> Path | None:
        """The file of its weights, if one is given."""
        return None if self.weights in (None, NONE) else Path(str(self.weights))


def timm_name(model: str | Path) -> TimmName | None:
    """The parts of a `--model`, or None if it isn't one of timm's."""
    text = str(model)
    if not text.startswith(PREFIX):
        return None
    name, _, weights = text.removeprefix(PREFIX).partition("@")
    return TimmName(name, weights or None)


def weights_of(model: TimmName) -> dict[str, str]:
    """The `weights` and their `licence`, for results."""
    config = library().get_pretrained_cfg(model.name)
    licence = (config and config.license) or "not known"
    if model.untrained:
        return {"weights": "random"}
    if model.file is not None:
        return {"weights": str(model.file), "licence": f"not known (timm's own weights: {licence})"}
    return {"weights": config.hf_hub_id or config.url, "licence": licence}


def check_name(name: str) -> None:
    """Check that timm knows a name.

    Raises:
        InputError: it doesn't; has the nearest ones.
    """
    timm = library()
    arch, _, tag = name.partition(".")
    if not timm.is_model(arch):
        near = difflib.get_close_matches(arch, timm.list_models(), MOST_NAMES, cutoff=0.4)
        raise InputError(
            f"{PREFIX}{name}: timm {timm.__version__} has no such network; "
            f"the nearest names: {', '.join(near) or 'none'}"
        )
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{arch}.*")]
    if tag and tag not in tags:
        known = ", ".join(tags) or "none"
        raise InputError(f"{PREFIX}{name}: timm has no weights {tag} of {arch}, but: {known}")


def library() -> ModuleType:
    """timm, which is imported only here, as it takes seconds.

    Raises:
        InputError: it is not installed.
    """
    check_installed(PREFIX + "NAME", "timm", extra="images")
    import timm

    return timm
