"""Which layers are judged, and how the activations of one become the vector that a linear
classifier sees."""

import argparse
from collections.abc import Sequence

from torch import Tensor, nn

from models.convnet import ConvNet
from system.errors import InputError

# Average pooling (kernel, stride, padding) after each conv layer. AlexNet: at 224 pixels to 9600,
# 9216, 9600, 9600 and 9216 dimensions, as in the paper's Table 1. ResNet-50: to 9216, 9216, 8192,
# 9216 and 8192, as in the model zoos (after Goyal et al., ICCV 2019).
POOLS = {
    "alexnet": [(6, 6, 3), (4, 4, 0), (3, 3, 1), (3, 3, 1), (2, 2, 0)],
    "resnet50": [(10, 10, 4), (16, 8, 0), (13, 5, 0), (8, 3, 0), (6, 1, 0)],
}
FEWEST, MOST = 9_000, 10_000  # dimensions that other networks are to come near

AVGPOOL = "avgpool"
Layer = int | str  # a conv layer, 1 for the first, or AVGPOOL: the last one's global average pool


def add_conv_flag(
    parser: argparse.ArgumentParser, default: str, help: str = "conv layers, from 1 on, or all"
) -> None:
    """`--conv`, which `layers_of` and `layers_or_avgpool` take: words, of which one is the
    default."""
    parser.add_argument("--conv", nargs="+", default=[default], metavar="LAYER", help=help)


def probe_pool(arch: str, layer: Layer, maps: Tensor) -> nn.Module:
    """The pooling `(N, C, h, w)` → `(N, C, p, q)` of a layer.

    Args:
        maps: some activations of its conv layer. Where no protocol says anything of a network, or
            its pooling is wider than they are, they go to the square grid that comes nearest to
            9,000 to 10,000 dimensions.
    """
    if isinstance(layer, str):
        return nn.AdaptiveAvgPool2d(1)
    if arch in POOLS:
        kernel, stride, padding = POOLS[arch][layer - 1]
        if kernel <= min(maps.shape[2:]) + 2 * padding:
            return nn.AvgPool2d(kernel, stride, padding)
    return nn.AdaptiveAvgPool2d(nearest_grid(maps.shape[1]))


def conv_layer(model: ConvNet, layer: Layer) -> int:
    """The conv layer whose activations are looked at."""
    return model.conv_layers if isinstance(layer, str) else layer


def name_of(layer: Layer) -> str:
    """What a layer is called in results."""
    return layer if isinstance(layer, str) else f"conv{layer}"


def nearest_grid(channels: int) -> int:
    """The side of the square grid whose cells times the channels come nearest to the interval."""

    def distance(side: int) -> int:
        dims = channels * side**2
        return max(FEWEST - dims, dims - MOST, 0)

    return min(range(1, 101), key=distance)


def layers_of(model: ConvNet, words: Sequence[str]) -> list[int]:
    """The conv layers that `--conv` names, in their order: numbers from 1 on, or `all`.

    Raises:
        InputError: the network has no such layer.
    """
    there = range(1, model.conv_layers + 1)
    if list(words) == ["all"]:
        return list(there)
    for word in words:
        if word not in map(str, there):
            raise InputError(
                f"--conv {word}: {model.arch} has conv layers 1 to {len(there)}; give some of "
                "them, or all"
            )
    return sorted({int(word) for word in words})


def layers_or_avgpool(model: ConvNet, words: Sequence[str]) -> list[Layer]:
    """The same, and last the global average pool, where it is named.

    Raises:
        InputError: as `layers_of`.
    """
    numbers = [word for word in words if word != AVGPOOL]
    pools = [AVGPOOL] if len(numbers) < len(words) else []
    return [*(layers_of(model, numbers) if numbers else []), *pools]
