"""AlexNet with batch norm, as in the paper (section 4): no groups, no local response norm."""

from torch import nn

from models.convnet import ConvNet, conv_layers

LAYERS: list[tuple[int, int, int, int] | str] = [  # (channels, kernel, stride, padding)
    (96, 11, 4, 2),
    "pool 3/2",
    (256, 5, 1, 2),
    "pool 3/2",
    (384, 3, 1, 1),
    (384, 3, 1, 1),
    (256, 3, 1, 1),
    "pool 3/2",
]


def alexnet(sobel: bool = False, out: int = 1000) -> ConvNet:
    """AlexNet with `out` outputs; five conv layers, embedding of 4096."""
    classifier = nn.Sequential(
        nn.Dropout(0.5),
        nn.Linear(256 * 6 * 6, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
    )
    features = conv_layers(2 if sobel else 3, LAYERS)
    return ConvNet("alexnet", features, 6, classifier, 4096, out, sobel)
