"""The prototypes in a checkpoint of SwAV or DeepCluster-v2, as clusters for new images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster.nearest import CPU
from models import ConvNet
from models.heads import Heads, heads_for
from system.device import full_float32
from system.errors import InputError

BLOCK = 16384  # rows at a time


@dataclass(frozen=True)
class Prototypes:
    """The first head's prototypes; an image belongs to the one with the largest score.

    Attributes:
        heads: in eval mode.
        rectified: whether the heads take features after a ReLU, as of AlexNet and VGG-16.
    """

    heads: Heads
    rectified: bool

    @property
    def centroids(self) -> np.ndarray:
        """`(K, d) float32`, the prototypes at unit length."""
        weight = self.heads.prototype_sets()[0].weight.detach().cpu()
        return torch.nn.functional.normalize(weight).numpy()

    @torch.inference_mode()
    def assign(
        self, features: np.ndarray, device: torch.device = CPU
    ) -> tuple[np.ndarray, np.ndarray]:
        """The prototype of each of `(M, D)` rows of features.

        Returns:
            Its number, `(M,) int64`, and the Euclidean distance between it and the row's embedding,
            both of unit length, `(M,) float32`: 0 to 2.
        """
        heads, prototypes = self.heads.to(device), torch.from_numpy(self.centroids).to(device)
        found = np.empty(len(features), np.int64)
        distances = np.empty(len(features), np.float32)
        for start in range(0, len(features), BLOCK):
            rows = torch.from_numpy(features[start : start + BLOCK]).to(device).float()
            embedding, _ = heads(rows.relu() if self.rectified else rows)
            with full_float32():
                cosines, nearest = (embedding @ prototypes.T).max(dim=1)
            found[start : start + BLOCK] = nearest.cpu().numpy()
            gaps = (2 - 2 * cosines.cpu().double()).clamp(min=0).sqrt()
            distances[start : start + BLOCK] = gaps.numpy()
        return found, distances


def prototypes_of(state: dict[str, Any], path: Path, model: ConvNet) -> Prototypes:
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
    return Prototypes(heads, rectified=len(model.classifier) > 0)
