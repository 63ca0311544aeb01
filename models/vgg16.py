"""VGG-16 (configuration D of Simonyan and Zisserman) with batch norm."""

from torch import nn

from models.convnet import ConvNet, conv_layers

CHANNELS_PER_STAGE = [[64, 64], [128, 128], [256, 256, 256], [512, 512, 512], [512, 512, 512]]


def vgg16(sobel: bool = False, out: int = 1000) -> ConvNet:
    """VGG-16 with `out` outputs; thirteen conv layers, embedding of 4096."""
    layers: list[tuple[int, int, int, int] | str] = []
    for stage in CHANNELS_PER_STAGE:
        layers += [(channels, 3, 1, 1) for channels in stage]
        layers.append("pool 2/2")
    classifier = nn.Sequential(
        nn.Linear(512 * 7 * 7, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
    )
    features = conv_layers(2 if sobel else 3, layers)
    return ConvNet("vgg16", features, 7, classifier, 4096, out, sobel)
