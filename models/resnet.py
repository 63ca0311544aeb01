"""ResNet-50, and ResNet-18 for small data, on torchvision's blocks (He et al., CVPR 2016).

The embedding is the global average pool of the last stage; there are no hidden layers after it.
Layer 1 is the stem before its max-pool, layers 2 to 5 are the stages.
"""

from collections import OrderedDict
from collections.abc import Callable

from torch import nn
from torchvision.models import ResNet
from torchvision.models import resnet18 as torchvision_resnet18
from torchvision.models import resnet50 as torchvision_resnet50

from models.convnet import ConvNet

ENDS = ["relu", "layer1", "layer2", "layer3", "layer4"]  # the modules that layers 1 to 5 end with


def resnet50(sobel: bool = False, out: int = 1000) -> ConvNet:
    """ResNet-50 with `out` outputs; embedding of 2048."""
    return _resnet("resnet50", torchvision_resnet50, sobel, out)


def resnet18(sobel: bool = False, out: int = 1000) -> ConvNet:
    """ResNet-18 with `out` outputs; embedding of 512."""
    return _resnet("resnet18", torchvision_resnet18, sobel, out)


def resnet18_small(sobel: bool = False, out: int = 1000) -> ConvNet:
    """ResNet-18 for images of 32 to 64 pixels: a 3 × 3 convolution in place of the stem's 7 × 7
    with stride 2, and no max-pool (He et al., section 4.2)."""
    return _resnet("resnet18_small", torchvision_resnet18, sobel, out, small=True)


def _resnet(
    arch: str, build: Callable[[], ResNet], sobel: bool, out: int, small: bool = False
) -> ConvNet:
    parts = OrderedDict(build().named_children())
    embedding_dim = parts.pop("fc").in_features
    del parts["avgpool"]
    channels = 2 if sobel else 3
    if small:
        parts["conv1"] = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        del parts["maxpool"]
    elif sobel:
        parts["conv1"] = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    ends = [list(parts).index(name) for name in ENDS]
    return ConvNet(arch, nn.Sequential(parts), 1, nn.Sequential(), embedding_dim, out, sobel, ends)
