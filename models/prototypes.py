"""Prototypes of SwAV and DeepCluster-v2 as clusters: an image belongs to the one with the largest
score."""

from dataclasses import dataclass

import numpy as np
import torch

from models.heads import Heads
from models.network import Network
from system.device import full_float32

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

    @classmethod
    def of(cls, heads: Heads, network: Network) -> "Prototypes":
        """Those of heads, in eval mode, of a network."""
        return cls(heads, rectified=len(network.classifier) > 0)

    @property
    def centroids(self) -> np.ndarray:
        """`(K, d) float32`, the prototypes at unit length."""
        weight = self.heads.prototype_sets()[0].weight.detach().cpu()
        return torch.nn.functional.normalize(weight).numpy()

    @torch.inference_mode()
    def assign(self, features: np.ndarray, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
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
