"""The prototypes in a checkpoint of SwAV or DeepCluster-v2, as clusters for new images."""

from pathlib import Path
from typing import Any

from models import Network
from models.heads import heads_for
from models.prototypes import Prototypes
from system.errors import InputError


def prototypes_of(state: dict[str, Any], path: Path, model: Network) -> Prototypes:
    """The prototypes in a checkpoint.

    Args:
        state: the checkpoint.
        path: its file, for messages.
        model: its network.

    Raises:
        InputError: it has none, or they do not fit the network.
    """
    weights = state.get("heads")
    if not weights or "super.weight" in weights:
        raise InputError(f"{path}: holds no prototypes; only SwAV and DeepCluster-v2 have them")
    try:
        heads = heads_for(weights).eval()
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    dim = next(heads.projection_head.parameters()).shape[1]
    if not heads.prototype_sets():
        raise InputError(f"{path}: its heads have no prototypes")
    if dim != model.embedding_dim:
        raise InputError(
            f"{path}: its heads take features of {dim} dimensions; the network's have "
            f"{model.embedding_dim}"
        )
    return Prototypes.of(heads, model)
