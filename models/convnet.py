"""The parts that all networks share: Sobel, convolutional features, classifier, top layer.

Parameter names follow the released checkpoints: `sobel.0.*`, `sobel.1.*`, `features.N.*`,
`classifier.N.*`, `top_layer.*`.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Self

from torch import Tensor, nn
from torch.nn import functional as F

from models.network import Network
from models.sobel import sobel_filters, sobel_to_rgb
from system.errors import InputError


class ConvNet(Network):
    """A convnet for DeepCluster.

    Args:
        arch: the name in the registry, for messages and checkpoints.
        features: the convolutional part, each convolution followed by batch norm and ReLU.
        grid: side of the classifier's input map, which is that of `features` at 224 pixels.
        classifier: the hidden layers, ending in a ReLU; empty for a residual network.
        embedding_dim: width D of the last hidden layer, or of the pooled feature map.
        out: width of the top layer.
        sobel: put the fixed Sobel filters in front; `features` then takes 2 channels.
        ends: index in `features` of the last module of each layer; None: the ReLUs.

    The forward pass maps `(N, 3, H, W)` float images (less ImageNet's mean, divided by `std`) to
    `(N, out)` logits, or to the classifier's `(N, D)` output if `top_layer` is None.

    Attributes:
        std: the standard deviation of each channel that training divided images by; a new network
            has ImageNet's.
        margin: zeros around the normalised image, in pixels. DeeperCluster's released networks have
            1, so that their maps begin with 226 × 226; others have 0.
    """

    def __init__(
        self,
        arch: str,
        features: nn.Sequential,
        grid: int,
        classifier: nn.Sequential,
        embedding_dim: int,
        out: int,
        sobel: bool,
        ends: list[int] | None = None,
    ) -> None:
        super().__init__(arch, embedding_dim)
        self.sobel = sobel_filters() if sobel else None
        self.features = features.apply(initialise)
        self._held = 0  # modules of `features` that are frozen
        self._ends = ends or [i for i, module in enumerate(features) if isinstance(module, nn.ReLU)]
        self.pool = nn.AdaptiveAvgPool2d(grid)  # the identity at 224 pixels
        self.classifier = classifier.apply(initialise)
        self.top_layer = nn.Linear(embedding_dim, out).apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        x = self.classifier(self._flat_features(x))
        return x if self.top_layer is None else self.top_layer(x)

    def embedding(self, x: Tensor) -> Tensor:
        """`(N, 3, H, W)` images → `(N, D)`, the features that are clustered: the last hidden layer
        before its ReLU (paper, section 4), or a residual network's global average pool."""
        return self.classifier[:-1](self._flat_features(x))

    def body(self) -> list[nn.Parameter]:
        """The parameters that are kept from one clustering to the next: all but those of the Sobel
        filters and the top layer."""
        return [*self.features.parameters(), *self.classifier.parameters()]

    def freeze(self, layers: int) -> None:
        """Keep the weights of the first conv layers, or of the stem and the first stages, and their
        batch norms' statistics, which then normalise also in training mode; 0 frees all.

        Raises:
            ValueError: as `conv_features`.
        """
        self._held = self._end_of(layers) + 1 if layers else 0
        self.features.requires_grad_(True)
        self.features[: self._held].requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.features[: self._held].eval()
        return self

    def merge_sobel(self) -> None:
        """Replace the Sobel filters and the first convolution by one convolution of RGB with the
        same results. Without a `margin`, the results differ at the edges of the maps.

        Raises:
            InputError: the network has no Sobel filters.
        """
        first = self.features[0]
        if self.sobel is None or not isinstance(first, nn.Conv2d):
            super().merge_sobel()
            return
        weight, bias = sobel_to_rgb(first.weight.detach(), first.bias)
        self.features[0] = merged = nn.Conv2d(
            3, len(weight), weight.shape[2], first.stride[0], int(first.padding[0]) + 1,
            bias=bias is not None,
        )  # fmt: skip
        merged.weight, merged.bias = nn.Parameter(weight), bias
        self.sobel = None

    @property
    def conv_layers(self) -> int:
        """Number of conv layers, or of a residual network's stem and stages."""
        return len(self._ends)

    def each_conv_features(self, x: Tensor, layers: Iterable[int]) -> Iterator[tuple[int, Tensor]]:
        """As in `Network`: activations after the ReLU of a conv layer, the first being 1 as in the
        paper's tables, or of a residual network's stem and stages."""
        stops = {layer: self._end_of(layer) + 1 for layer in sorted(set(layers))}
        x, start = self._edges(x), 0
        for layer, stop in stops.items():
            x = self.features[start:stop](x)
            yield layer, x
            start = stop

    def modules_before_relu(self, layer: int) -> list[nn.Module]:
        """The modules from the image to a conv layer's activations before its ReLU, in order: the
        margin, convolutions (with those of the Sobel filters), batch norms, ReLUs and max-pools.

        Raises:
            ValueError: as `conv_features`.
            InputError: the layer is a stage of residual blocks.
        """
        if not isinstance(self.features[self._end_of(layer)], nn.ReLU):
            raise InputError(
                f"{self.arch}: layer {layer} is a stage of residual blocks, whose filters cannot "
                "be pictured; layer 1's can, and those of alexnet and vgg16"
            )
        margin = [nn.ZeroPad2d(self.margin)] if self.margin else []
        return [*margin, *(self.sobel or ()), *self.features[: self._end_of(layer)]]

    def _end_of(self, layer: int) -> int:
        self._check_layer(layer)
        return self._ends[layer - 1]

    def _flat_features(self, x: Tensor) -> Tensor:
        return self.pool(self.features(self._edges(x))).flatten(1)

    def _edges(self, x: Tensor) -> Tensor:
        x = F.pad(x, [self.margin] * 4) if self.margin else x
        return x if self.sobel is None else self.sobel(x)


def conv_layers(in_channels: int, table: list[tuple[int, int, int, int] | str]) -> nn.Sequential:
    """Convolution, batch norm and ReLU for each row (channels, kernel, stride, padding) of a table,
    and a max-pool for each row such as "pool 3/2" (kernel/stride)."""
    modules: list[nn.Module] = []
    for row in table:
        if isinstance(row, str):
            kernel, stride = map(int, row.removeprefix("pool ").split("/"))
            modules.append(nn.MaxPool2d(kernel, stride))
        else:
            channels, kernel, stride, padding = row
            modules.append(nn.Conv2d(in_channels, channels, kernel, stride, padding))
            modules += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
            in_channels = channels
    return nn.Sequential(*modules)


def initialise(module: nn.Module) -> None:
    """Weights before training: convolutions N(0, √(2 / (k·k·out))), linear layers N(0, 0.01),
    batch norm 1, biases 0."""
    if isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
        nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.ones_(module.weight)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.01)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
