"""ResNet-50, and ResNet-18 for small data, on torchvision's blocks (He et al., CVPR 2016).

The embedding is the global average pool of the last stage; there are no hidden layers after it.
Layer 1 is the stem before its max-pool, layers 2 to 5 are the stages.
"""

from collections import OrderedDict

from torch import nn
from torchvision.models import get_model

from models.convnet import ConvNet

ENDS = ["relu", "layer1", "layer2", "layer3", "layer4"]  # the last modules of layers 1 to 5


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
