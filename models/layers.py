"""The layers that are evaluated, and the pooling of their activations for a linear classifier."""

import argparse
from collections.abc import Sequence

from torch import Tensor, nn

from models.network import Network
from system.errors import InputError

# Average pooling (kernel, stride, padding) after each conv layer, for images of 224 pixels.
# AlexNet: to 9600, 9216, 9600, 9600 and 9216 dimensions, as in the paper's Table 1. ResNet-50: to
# 9216, 9216, 8192, 9216 and 8192, as in the model zoos (after Goyal et al., ICCV 2019). VGG-16: to
# 9216, 8192, 9216, 8192 and 8192 in its five stages, as in DeeperCluster's release.
POOLS = {
    "alexnet": [(6, 6, 3), (4, 4, 0), (3, 3, 1), (3, 3, 1), (2, 2, 0)],
    "resnet50": [(10, 10, 4), (16, 8, 0), (13, 5, 0), (8, 3, 0), (6, 1, 0)],
    "vgg16": [
        *[(18, 18, 0)] * 2, *[(14, 14, 0)] * 2, *[(9, 9, 0)] * 3, *[(6, 6, 0)] * 3,
        *[(3, 3, 0)] * 3,
    ],
}  # fmt: skip
FEWEST, MOST = 9_000, 10_000  # dimensions to aim at for other networks

AVGPOOL = "avgpool"
Layer = int | str  # a conv layer from 1 on, or AVGPOOL: the global average pool of the last one


def add_conv_flag(
    parser: argparse.ArgumentParser, default: str, help: str = "conv layers, from 1 on, or all"
) -> None:
    """`--conv`: a list of words for `layers_of` or `layers_or_avgpool`."""
    parser.add_argument("--conv", nargs="+", default=[default], metavar="LAYER", help=help)


def probe_pool(arch: str, layer: Layer, maps: Tensor) -> nn.Module:
    """The pooling `(N, C, h, w)` → `(N, C, p, q)` of a layer, from `POOLS`. If it is not there, or
    larger than the maps, the result is the square grid of `nearest_grid`.

    Args:
        maps: activations of the layer, for their shape.
    """
    if isinstance(layer, str):
        return nn.AdaptiveAvgPool2d(1)
    if arch in POOLS:
        kernel, stride, padding = POOLS[arch][layer - 1]
        if kernel <= min(maps.shape[2:]) + 2 * padding:
            return nn.AvgPool2d(kernel, stride, padding)
    return nn.AdaptiveAvgPool2d(nearest_grid(maps.shape[1]))


def conv_layer(model: Network, layer: Layer) -> int:
    """The conv layer whose activations a layer uses."""
    return model.conv_layers if isinstance(layer, str) else layer


def name_of(layer: Layer) -> str:
    """A layer's name in results."""
    return layer if isinstance(layer, str) else f"conv{layer}"


def nearest_grid(channels: int) -> int:
    """The side of the square grid with `FEWEST` to `MOST` dimensions, or as close as possible."""

    def distance(side: int) -> int:
        dims = channels * side**2
        return max(FEWEST - dims, dims - MOST, 0)

    return min(range(1, 101), key=distance)


def layers_of(model: Network, words: Sequence[str]) -> list[int]:
    """The conv layers that `--conv` names, ascending: numbers from 1 on, or `all`.

    Raises:
        InputError: the network has no such layer.
    """
    there = range(1, model.conv_layers + 1)
    if not there:
        raise InputError(f"--conv {' '.join(words)}: {model.arch} gives no maps of its layers")
    if list(words) == ["all"]:
        return list(there)
    for word in words:
        if word not in map(str, there):
            raise InputError(
                f"--conv {word}: {model.arch} has conv layers 1 to {len(there)}; give some of "
                "them, or all"
            )
    return sorted({int(word) for word in words})


def layers_or_avgpool(model: Network, words: Sequence[str]) -> list[Layer]:
    """The layers that `--conv` names: as `layers_of`, then `AVGPOOL` if it is named."""
    numbers = [word for word in words if word != AVGPOOL]
    pools = [AVGPOOL] if len(numbers) < len(words) else []
    if pools:
        layers_of(model, ["all"])  # the last layer is averaged
    return [*(layers_of(model, numbers) if numbers else []), *pools]
