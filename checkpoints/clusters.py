"""Clusters that new images can be assigned to: those of a checkpoint, or in a file of their own."""

import reprlib
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.checkpoint import save_checkpoint
from checkpoints.released import plain_dict
from checkpoints.torch_file import load_torch_file
from cluster.clusters import Clusters
from system.errors import InputError


def clusters_of(state: dict[str, Any], path: Path, dim: int) -> Clusters | None:
    """The clusters that a checkpoint holds; None where it has none, as the released ones.

    Args:
        state: its contents.
        path: its file.
        dim: D, of the features that are to be assigned.

    Raises:
        InputError: they are malformed, or of features of other dimensions.
    """
    if state.get("clusters") is None:
        return None
    try:
        clusters = Clusters.from_plain(state["clusters"])
        sound = _is_sound(clusters)
    except Exception:  # there is no end to what a malformed one may raise
        sound = False
    if not sound:
        raise InputError(f"{path}: its clusters are malformed")
    if len(clusters.whitening.mean) != dim:
        raise InputError(
            f"{path}: its clusters are of features of {len(clusters.whitening.mean)} dimensions, "
            f"the network's have {dim}"
        )
    return clusters


def load_clusters(path: Path, dim: int, network: str, size: int) -> Clusters:
    """The clusters in a file that `save_clusters` has written, or a checkpoint's.

    Args:
        network: digest of the network whose features are to be assigned.
        size: side of the images that they are of, in pixels.

    Raises:
        InputError: the file cannot be loaded, or as `clusters_of`, or there are none in it,
            or those of another network.
    """
    state, _ = load_torch_file(path)
    state = plain_dict(state) if isinstance(state, dict) else {}
    if state.get("clusters") is None:
        raise InputError(f"{path}: holds no clusters")
    if not isinstance(found := state.get("network"), str | None) or found not in (None, network):
        raise InputError(f"{path}: its clusters are of another network's features")
    if not isinstance(found := state.get("size"), int | None) or found not in (None, size):
        raise InputError(f"{path}: its clusters are of --size {reprlib.repr(found)}, not {size}")
    clusters = clusters_of(state, path, dim)
    assert clusters is not None
    return clusters


def save_clusters(
    path: Path, clusters: Clusters, network: str | None = None, size: int | None = None
) -> None:
    """Write clusters as a checkpoint holds them, without a network; where they are known, with its
    digest and the side of the images in pixels."""
    save_checkpoint(path, {"clusters": clusters.to_plain(), "network": network, "size": size})


def _is_sound(clusters: Clusters) -> bool:
    mean, matrix = clusters.whitening.mean, clusters.whitening.matrix
    arrays = mean, matrix, clusters.centroids
    return (
        isinstance(clusters.algorithm, str)
        and clusters.algorithm.isidentifier()
        and isinstance(clusters.epoch, int)
        and [array.ndim for array in arrays] == [1, 2, 2]
        and all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays)
        and matrix.shape == (len(mean), clusters.centroids.shape[1])
        and clusters.centroids.size > 0
    )
