"""Files of SwAV and DeepCluster-v2: the heads beside the network, and classifiers without one."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from checkpoints.search import Contents, Network, is_dense
from checkpoints.weights import our_name, some
from models.heads import heads_for
from system.errors import InputError
from system.normalisation import SWAV_STD


def heads_beside(network: Network, contents: Contents) -> dict[str, Any]:
    """The keys that the heads beside a network add to its checkpoint: `heads`, which
    `models.heads.heads_for` reads, and `std`, by which the network's input was divided. Empty
    without the heads of SwAV or DeepCluster-v2."""
    names = {our_name(name)[0]: full for name, full in contents.below(network.prefix).items()}
    heads = {
        name: contents.values[full]
        for name, full in names.items()
        if name.startswith(("projection_head.", "prototypes."))
    }
    if not heads or not all(map(is_dense, heads.values())):
        return {}
    try:
        heads_for({name: weight.to("meta") for name, weight in heads.items()})
    except InputError:
        return {}
    return {"heads": heads, "std": SWAV_STD}


def check_not_a_classifier(names: Iterable[str], path: str | Path) -> None:
    """Check that weights are more than the classifier of a linear evaluation.

    Raises:
        InputError: they aren't.
    """
    shown = list(names)
    alone = {"weight", "bias"}  # a head of DeeperCluster
    if shown and (alone == {*shown} or all(n.startswith(("linear.", "bn.")) for n in shown)):
        raise InputError(
            f"{path}: holds a linear classifier alone ({some(shown)}), no network; give the file "
            "of the network on which it was trained"
        )
