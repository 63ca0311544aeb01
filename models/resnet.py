"""ResNet-50, also wider, and ResNet-18 for small data, on torchvision's blocks (He et al., CVPR
2016).

The embedding is the global average pool of the last stage; there are no hidden layers after it.
Layer 1 is the stem before its max-pool, layers 2 to 5 are the stages.
"""

from collections import OrderedDict

from torch import nn
from torchvision.models import get_model
from torchvision.models.resnet import Bottleneck

from models.convnet import ConvNet

ENDS = ["relu", "layer1", "layer2", "layer3", "layer4"]  # the last modules of layers 1 to 5
BLOCKS = [3, 4, 6, 3]  # of the stages of ResNet-50


def resnet50(sobel: bool = False, out: int = 1000) -> ConvNet:
    """ResNet-50 with `out` outputs; embedding of 2048."""
    return _resnet("resnet50", sobel, out)


def resnet18(sobel: bool = False, out: int = 1000) -> ConvNet:
    """ResNet-18 with `out` outputs; embedding of 512."""
    return _resnet("resnet18", sobel, out)


def resnet18_small(sobel: bool = False, out: int = 1000) -> ConvNet:
    """ResNet-18 for images of 32 to 64 pixels: a 3 × 3 convolution in place of the stem's 7 × 7
    with stride 2, and no max-pool (He et al., section 4.2)."""
    return _resnet("resnet18_small", sobel, out)


def resnet50w2(sobel: bool = False, out: int = 1000) -> ConvNet:
    """ResNet-50 with twice the channels; embedding of 4096."""
    return wide_resnet50("resnet50w2", 2, sobel, out)


def resnet50w4(sobel: bool = False, out: int = 1000) -> ConvNet:
    """ResNet-50 with four times the channels; embedding of 8192."""
    return wide_resnet50("resnet50w4", 4, sobel, out)


def resnet50w5(sobel: bool = False, out: int = 1000) -> ConvNet:
    """ResNet-50 with five times the channels; embedding of 10240."""
    return wide_resnet50("resnet50w5", 5, sobel, out)


def wide_resnet50(arch: str, width: int, sobel: bool, out: int) -> ConvNet:
    """ResNet-50 with `width` times the channels in every layer, as in SwAV (Caron et al., 2020). In
    torchvision's `wide_resnet50_2`, only the 3 × 3 convolutions are wider."""
    channels = 64 * width
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(2 if sobel else 3, channels, 7, stride=2, padding=3, bias=False),
        bn1=nn.BatchNorm2d(channels),
        relu=nn.ReLU(inplace=True),
        maxpool=nn.MaxPool2d(3, stride=2, padding=1),
    )
    for stage, blocks in enumerate(BLOCKS):
        inner = 64 * width * 2**stage
        parts[f"layer{stage + 1}"] = _stage(channels, inner, blocks, stride=1 if stage == 0 else 2)
        channels = Bottleneck.expansion * inner
    ends = [list(parts).index(name) for name in ENDS]
    return ConvNet(arch, nn.Sequential(parts), 1, nn.Sequential(), channels, out, sobel, ends)


def _stage(channels: int, inner: int, blocks: int, stride: int) -> nn.Sequential:
    """Residual blocks `(N, channels, h, w)` → `(N, 4 · inner, h / stride, w / stride)`."""
    outer = Bottleneck.expansion * inner
    convolution = nn.Conv2d(channels, outer, 1, stride, bias=False)
    shortcut = nn.Sequential(convolution, nn.BatchNorm2d(outer))
    first = Bottleneck(channels, inner, stride, shortcut)
    return nn.Sequential(first, *(Bottleneck(outer, inner) for _ in range(blocks - 1)))


def _resnet(arch: str, sobel: bool, out: int) -> ConvNet:
    parts = OrderedDict(get_model(arch.removesuffix("_small")).named_children())
    embedding_dim = parts.pop("fc").in_features
    del parts["avgpool"]
    channels = 2 if sobel else 3
    if arch.endswith("_small"):
        parts["conv1"] = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        del parts["maxpool"]
    elif sobel:
        parts["conv1"] = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    ends = [list(parts).index(name) for name in ENDS]
    return ConvNet(arch, nn.Sequential(parts), 1, nn.Sequential(), embedding_dim, out, sobel, ends)
