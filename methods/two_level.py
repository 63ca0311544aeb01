"""Heads on two levels: one for super-classes, and for each super-class one for its sub-classes.

Caron, Bojanowski, Mairal and Joulin, "Unsupervised Pre-Training of Image Features on Non-Curated
Data", ICCV 2019. The loss is that of a softmax on two levels: −log p(s) − log p(z | s).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.convnet import ConvNet
from system.seeding import derive_seed

Scores = tuple[Tensor, Tensor]


class SubHeads(nn.Module):
    """A linear layer for each super-class, in one tensor.

    Args:
        features: D, width of the features.
        classes: S, number of super-classes.
        clusters: K, number of sub-classes of each; those without images are never a target.
    """

    def __init__(self, features: int, classes: int, clusters: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, clusters, features))
        self.bias = nn.Parameter(torch.empty(classes, clusters))


class TwoLevelHeads(nn.Module):
    """The heads of both levels, to be initialised by `reset`; arguments as of `SubHeads`."""

    def __init__(self, features: int, classes: int, clusters: int) -> None:
        super().__init__()
        self.super = nn.utils.skip_init(nn.Linear, features, classes)
        self.sub = SubHeads(features, classes, clusters)

    def forward(
        self, features: Tensor, super_target: Tensor, counts: Sequence[int] | None = None
    ) -> Scores:
        """As `two_level_scores`."""
        sub = self.sub
        weights = self.super.weight, self.super.bias, sub.weight, sub.bias
        return two_level_scores(features, *weights, super_target, counts)

    @torch.no_grad()
    def reset(self, seed: int, epoch: int, with_super: bool) -> None:
        """New weights, by PyTorch's rule for linear layers: a function of seed and epoch.

        Args:
            with_super: also those of the super head.
        """
        layers = list(zip(self.sub.weight, self.sub.bias, strict=True))
        if with_super:
            layers.append((self.super.weight, self.super.bias))
        for number, layer in enumerate(layers):
            outputs, inputs = layer[0].shape
            new = new_layer(outputs, inputs, derive_seed(seed, "heads", epoch, number))
            for weights, drawn in zip(layer, new, strict=True):
                weights.copy_(drawn)

    def losses(self, scores: Scores, super_target: Tensor, sub_target: Tensor) -> Tensor:
        """As `cross_entropies`."""
        return cross_entropies(scores, super_target, sub_target)

    def group(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The sub-heads as a group of parameters, trained with these settings."""
        return {"params": self.sub.parameters(), **settings}

    def to_plain(self) -> dict[str, Any]:
        """What a checkpoint keeps of them."""
        return {"heads": self.state_dict()}

    def load_plain(self, plain: dict[str, Any]) -> None:
        """Load what `to_plain` returned.

        Raises:
            RuntimeError: it is of other sizes.
        """
        self.load_state_dict(plain["heads"])


class TwoLevelNet(nn.Module):
    """A network without top layer, and heads."""

    def __init__(self, network: ConvNet, heads: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.heads = heads

    def forward(self, images: Tensor, super_target: Tensor, counts: Sequence[int]) -> Scores:
        """Normalised images `(B, 3, H, W)`, the super-class of each, `(B,) int64`, and the number
        of images of each super-class → scores as of `two_level_scores`."""
        return self.heads(self.network.embedding(images), super_target, counts)


def new_layer(outputs: int, inputs: int, seed: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of a linear layer, by PyTorch's rule."""
    generator, bound = torch.Generator().manual_seed(seed), 1 / math.sqrt(inputs)
    shapes = (outputs, inputs), (outputs,)
    weight, bias = (torch.empty(s).uniform_(-bound, bound, generator=generator) for s in shapes)
    return weight, bias


def two_level_losses(
    features: Tensor,
    super_weight: Tensor,
    super_bias: Tensor,
    sub_weights: Tensor,
    sub_biases: Tensor,
    super_target: Tensor,
    sub_target: Tensor,
) -> tuple[Tensor, Tensor]:
    """The cross-entropies of both levels (DeeperCluster, arXiv 1905.01278).

    Args:
        features: `(N, D)`, before the ReLU.
        super_weight, super_bias: `(S, D)`, `(S,)`.
        sub_weights, sub_biases: `(S, K, D)`, `(S, K)`.
        super_target: `(N,) int64`, the super-class of each image.
        sub_target: `(N,) int64`, its sub-class within the super-class.

    Returns:
        Two times `(N,) float32`: −log p(super-class), and −log p(sub-class | super-class).
    """
    weights = super_weight, super_bias, sub_weights, sub_biases
    scores = two_level_scores(features, *weights, super_target)
    super_losses, sub_losses = cross_entropies(scores, super_target, sub_target)
    return super_losses, sub_losses


def two_level_scores(
    features: Tensor,
    super_weight: Tensor,
    super_bias: Tensor,
    sub_weights: Tensor,
    sub_biases: Tensor,
    super_target: Tensor,
    counts: Sequence[int] | None = None,
) -> Scores:
    """The scores of the super-classes, and those of the sub-classes of each row's super-class.

    Sub-heads take one product for each super-class, with its rows only: a product of all rows with
    all sub-heads would take S times the work and memory.

    Args:
        features: `(B, D)`, before the ReLU.
        super_weight, super_bias: `(S, D)`, `(S,)`.
        sub_weights, sub_biases: `(S, K, D)`, `(S, K)`.
        super_target: `(B,) int64`, each row's super-class.
        counts: S numbers of rows, if the host knows them: asking a GPU would wait for it.

    Returns:
        `(B, S)` and `(B, K)`.
    """
    features = features.relu()
    order = super_target.argsort(stable=True)
    if counts is None:
        counts = super_target.bincount(minlength=len(sub_weights)).tolist()
    parts = features[order].split(list(counts))
    scores = [
        F.linear(part, weight, bias)
        for part, weight, bias in zip(parts, sub_weights, sub_biases, strict=True)
    ]
    return F.linear(features, super_weight, super_bias), torch.cat(scores)[order.argsort()]


def cross_entropies(scores: Scores, super_target: Tensor, sub_target: Tensor) -> Tensor:
    """`(2, B) float32`, the cross-entropies of both levels, from scores `(B, S)` and `(B, K)` and
    targets `(B,) int64`."""
    pairs = zip(scores, (super_target, sub_target), strict=True)
    return torch.stack([F.cross_entropy(s.float(), t, reduction="none") for s, t in pairs])
