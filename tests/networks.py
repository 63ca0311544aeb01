"""Small networks for several tests."""

import torch
from conftest import tiny
from torch import nn

from models.alexnet import LAYERS
from models.convnet import ConvNet, conv_layers


def with_statistics(model: ConvNet) -> ConvNet:
    """The model in float64 and eval mode, with batch norms that look trained."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                for tensor in module.state_dict().values():
                    tensor.copy_(torch.rand(tensor.shape) + 0.3)
    return model.double().eval()


def alexnet_features(sobel: bool) -> ConvNet:
    """AlexNet without its classifier, which takes long to build."""
    features = conv_layers(2 if sobel else 3, LAYERS)
    return ConvNet("alexnet", features, 6, nn.Sequential(nn.Linear(1, 1)), 1, 2, sobel)


def vgg_like(sobel: bool = False, out: int = 1000) -> ConvNet:
    """VGG-16's 13 conv layers and names, with few channels and a small classifier."""
    table: list[tuple[int, int, int, int] | str] = []
    for layers in (2, 2, 3, 3, 3):
        table += [(3, 3, 1, 1)] * layers
        table.append("pool 2/2")
    features = conv_layers(2 if sobel else 3, table)
    linear = [nn.Linear(3 * 49, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 8), nn.ReLU()]
    return ConvNet("vgg16", features, 7, nn.Sequential(*linear), 8, out, sobel)


def plain(sobel: bool = False, out: int = 1000) -> ConvNet:
    """A network without batch norm and dropout: an image's gradient is independent of the others
    in its batch. It has only four dimensions, which whitening makes equally important; if kinds of
    images differ in all four, rounding moves no image to another cluster."""
    features = nn.Sequential(nn.Conv2d(2 if sobel else 3, 8, 5, 4), nn.ReLU(), nn.MaxPool2d(2))
    classifier = nn.Sequential(nn.Linear(8 * 9, 4), nn.ReLU())
    return ConvNet("plain", features, 3, classifier, 4, out, sobel)


def network(silent: tuple[int, ...] = ()) -> ConvNet:
    """A tiny network with fixed weights; the filters `silent` of conv2 are never active."""
    torch.manual_seed(1)
    model = with_statistics(tiny(sobel=True)).float()
    with torch.no_grad():
        model.state_dict()["features.5.bias"][list(silent)] = -1e3
    return model
