"""The heads of SwAV and DeepCluster-v2, and the forward pass of several crops (Caron et al., 2020).

A projection head maps features to embeddings of unit length; prototypes score an embedding by its
products with them. Parameter names follow the released files: `projection_head.*`, `prototypes.*`.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.convnet import ConvNet
from system.device import full_float32
from system.errors import InputError

Outputs = tuple[Tensor, list[Tensor]]

# Names in a state dict: the last layer of a projection head without hidden layer, without batch
# norm, and with both; and the first of several sets of prototypes.
LAST_LAYERS = ["projection_head.weight", "projection_head.2.weight", "projection_head.3.weight"]
FIRST_OF_SEVERAL = "prototypes.prototypes0.weight"


class Heads(nn.Module):
    """A projection head and one or several sets of prototypes.

    Weights start with PyTorch's defaults for linear layers, as in the released code.

    Args:
        features: width D of the network's output.
        feat_dim: width d of the embedding.
        hidden: width of the projection head's hidden layer; 0: a single linear layer.
        prototypes: number of prototypes K_h of each set.
        batch_norm: put batch norm behind the hidden layer; the published ResNet-50 w5 has none.
    """

    def __init__(
        self,
        features: int,
        feat_dim: int = 128,
        hidden: int = 2048,
        prototypes: Sequence[int] = (3000,),
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        self.projection_head = projection_head(features, hidden, feat_dim, batch_norm)
        self.prototypes = prototype_layers(feat_dim, prototypes)

    def forward(self, features: Tensor) -> Outputs:
        """`(R, D)` features → `(R, d)` embeddings of unit length, and the scores `(R, K_h)` of each
        set of prototypes. Both are float32, and so is their computation under autocast."""
        projected = self.projection_head(features)
        with torch.autocast(projected.device.type, enabled=False):
            embedding = F.normalize(projected.float(), dim=1)
            with full_float32():
                return embedding, [layer(embedding) for layer in self.prototype_sets()]

    def prototype_sets(self) -> list[nn.Linear]:
        """The prototypes, one linear layer with weights `(K_h, d)` for each set."""
        return [layer for layer in self.prototypes.modules() if isinstance(layer, nn.Linear)]


class MultiCropNet(nn.Module):
    """A network without top layer, and heads: the forward pass of crops of several resolutions."""

    def __init__(self, network: ConvNet, heads: Heads) -> None:
        super().__init__()
        self.network = network
        self.heads = heads

    def forward(self, groups: Sequence[Tensor]) -> Outputs:
        """Embeddings and scores of all crops, as from `Heads.forward`.

        The network sees each resolution separately, and so does its batch norm; the heads see the
        rows of all crops at once.

        Args:
            groups: normalised crops `(n·B, 3, s, s)` of each resolution.

        Returns:
            Rows in the order of the groups.
        """
        return self.heads(torch.cat([self.network(crops) for crops in groups]))


def projection_head(features: int, hidden: int, feat_dim: int, batch_norm: bool) -> nn.Module:
    """Linear, batch norm, ReLU, linear; or a single linear layer if `hidden` is 0."""
    if hidden == 0:
        return nn.Linear(features, feat_dim)
    norm = [nn.BatchNorm1d(hidden)] if batch_norm else []
    relu = nn.ReLU(inplace=True)
    return nn.Sequential(nn.Linear(features, hidden), *norm, relu, nn.Linear(hidden, feat_dim))


def prototype_layers(feat_dim: int, counts: Sequence[int]) -> nn.Module:
    """Linear layers without bias: a single one, or the children `prototypes0`, `prototypes1`, … of
    a module."""
    layers = [nn.Linear(feat_dim, count, bias=False) for count in counts]
    if len(layers) == 1:
        return layers[0]
    return nn.ModuleDict({f"prototypes{i}": layer for i, layer in enumerate(layers)})


def heads_for(weights: Mapping[str, Tensor]) -> Heads:
    """The heads with these weights, in float32 on their device: with any hidden layer or none, with
    or without batch norm, with any number of sets of prototypes or none.

    Args:
        weights: by the names of a state dict of `Heads`. A single set of prototypes may be called
            `prototypes.prototypes0.weight`.

    Raises:
        InputError: they are not the weights of such heads; names those that don't fit.
    """
    weights = dict(weights)
    if not all(isinstance(n, str) and isinstance(w, Tensor) for n, w in weights.items()):
        raise InputError("not the heads of SwAV or DeepCluster-v2: not tensors by name")
    if "prototypes.prototypes1.weight" not in weights and FIRST_OF_SEVERAL in weights:
        weights["prototypes.weight"] = weights.pop(FIRST_OF_SEVERAL)
    with torch.device("meta"):
        heads = _empty_heads(weights)
    own = heads.state_dict()
    shared = own.keys() & weights.keys()
    wrong = (own.keys() ^ weights.keys()) | {n for n in shared if own[n].shape != weights[n].shape}
    if wrong:
        raise InputError(f"not the heads of SwAV or DeepCluster-v2: {', '.join(sorted(wrong))}")
    heads.to_empty(device=next(iter(weights.values())).device).load_state_dict(weights)
    return heads


def _empty_heads(weights: Mapping[str, Tensor]) -> Heads:
    """Heads with the sizes of these weights, as far as they tell."""
    shapes = {name: tuple(weight.shape) for name, weight in weights.items() if weight.ndim == 2}
    last = [name for name in LAST_LAYERS if name in shapes]
    first = last[0] if last == ["projection_head.weight"] else "projection_head.0.weight"
    if len(last) != 1 or first not in shapes:
        raise InputError("no projection head of SwAV or DeepCluster-v2")
    return Heads(
        features=shapes[first][1],
        feat_dim=shapes[last[0]][0],
        hidden=0 if first == last[0] else shapes[first][0],
        prototypes=[shape[0] for name, shape in shapes.items() if name.startswith("prototypes.")],
        batch_norm=last[0] == "projection_head.3.weight",
    )
