"""Read and write `Clusters`, in a checkpoint or in a file of `--save-clusters`."""

import reprlib
from pathlib import Path
from typing import Any

from checkpoints.checkpoint import save_checkpoint
from checkpoints.released import plain_dict
from checkpoints.torch_file import load_torch_file
from cluster.clusters import Clusters
from system.errors import InputError


def clusters_of(state: dict[str, Any], path: Path, dim: int) -> Clusters | None:
    """The clusters in a checkpoint; None if it has none, like the released ones.

    Args:
        state: the checkpoint.
        path: its file, for messages.
        dim: dimensions of the features to assign.

    Raises:
        InputError: the clusters are malformed, or of features with other dimensions.
    """
    if state.get("clusters") is None:
        return None
    try:
        clusters = Clusters.from_plain(state["clusters"])
        sound = clusters.is_sound()
    except Exception:  # malformed values may raise anything
        sound = False
    if not sound:
        raise InputError(f"{path}: its clusters are malformed")
    if clusters.dim != dim:
        raise InputError(
            f"{path}: its clusters need features of {clusters.dim} dimensions; "
            f"the network's have {dim}"
        )
    return clusters


def load_clusters(path: Path, dim: int, network: str, size: int) -> Clusters:
    """The clusters in a file of `save_clusters`, or in a checkpoint.

    Args:
        dim, network, size: dimensions, network's digest and image side in pixels of the features
            to assign.

    Raises:
        InputError: the file cannot be loaded, or holds no clusters, malformed ones, or those of
            other features.
    """
    state = load_torch_file(path).content
    state = plain_dict(state) if isinstance(state, dict) else {}
    if state.get("clusters") is None:
        raise InputError(f"{path}: holds no clusters")
    side = state.get("size")  # looked at first: some of timm's networks are others at other sizes
    if not isinstance(side, int | None) or side not in (None, size):
        raise InputError(
            f"{path}: its clusters were made with --size {reprlib.repr(side)}, not {size}"
        )
    if not isinstance(found := state.get("network"), str | None) or found not in (None, network):
        more = ", or at another --size" if side is None else ""
        raise InputError(f"{path}: its clusters were made with another network{more}")
    clusters = clusters_of(state, path, dim)
    assert clusters is not None
    return clusters


def save_clusters(
    path: Path, clusters: Clusters, network: str | None = None, size: int | None = None
) -> None:
    """Write clusters as in a checkpoint, with the network's digest and the image side in pixels
    where these are known."""
    save_checkpoint(path, {"clusters": clusters.to_plain(), "network": network, "size": size})
