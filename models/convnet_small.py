"""A convnet for images of 24 to 64 pixels that a CPU trains in minutes: VGG's 3 × 3 convolutions
(Simonyan and Zisserman, ICLR 2015), fewer of them, and a global average pool."""

from torch import nn

from models.convnet import ConvNet, conv_layers

LAYERS: list[tuple[int, int, int, int] | str] = [  # (channels, kernel, stride, padding)
    (16, 5, 2, 2),
    (32, 3, 1, 1),
    "pool 2/2",
    (64, 3, 1, 1),
    "pool 2/2",
    (128, 3, 1, 1),
]


def convnet_small(sobel: bool = False, out: int = 1000) -> ConvNet:
    """Four conv layers with `out` outputs; embedding of 128, the average of the last layer."""
    features = conv_layers(2 if sobel else 3, LAYERS)
    return ConvNet("convnet_small", features, 1, nn.Sequential(), 128, out, sobel)
