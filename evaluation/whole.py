"""Fine-tuning on labelled images: the whole network in the place of a probe's classifiers."""

import torch
from torch import Tensor, nn

from evaluation.finetuning import class_scores
from evaluation.linear import Heads
from models import Network
from models.layers import Layer
from system.device import Compute

NETWORK = "network"  # the only "layer"


class Whole(Heads):
    """A network as the classifier that `linear.train_epoch` trains, on rows that are the images.

    Args:
        network: with a top layer.
        size: side of the input in pixels.
        compute: the precision of the forward pass.
    """

    def __init__(self, network: Network, size: int, compute: Compute) -> None:
        nn.Module.__init__(self)
        self.network, self.size, self.compute = network, size, compute
        self.pools: dict[Layer, nn.Module] = {NETWORK: nn.Flatten()}

    @property
    def dimensions(self) -> dict[Layer, int]:
        return {NETWORK: 3 * self.size**2}

    def pooled(self, model: Network, x: Tensor) -> dict[Layer, Tensor]:
        """Images `(N, 3, S, S)` → the same as rows `(N, 3·S·S)`."""
        return {NETWORK: x.float().flatten(1)}

    def normed(self, pooled: dict[Layer, Tensor]) -> dict[Layer, Tensor]:
        return pooled

    def forward(self, seen: dict[Layer, Tensor]) -> dict[Layer, Tensor]:
        x = seen[NETWORK].unflatten(1, (3, self.size, self.size))
        x = x.contiguous(memory_format=torch.channels_last)
        with self.compute.autocast():
            return {NETWORK: class_scores(self.network, x)}
