"""Small networks that several tests look into."""

import torch
from conftest import tiny
from torch import nn

from models.alexnet import LAYERS
from models.convnet import ConvNet, conv_layers


def with_statistics(model: ConvNet) -> ConvNet:
    """The model in float64 and eval mode, with batch norms as after training."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                for tensor in module.state_dict().values():
                    tensor.copy_(torch.rand(tensor.shape) + 0.3)
    return model.double().eval()


def alexnet_features(sobel: bool) -> ConvNet:
    """AlexNet without its classifier, which takes long to make."""
    features = conv_layers(2 if sobel else 3, LAYERS)
    return ConvNet("alexnet", features, 6, nn.Sequential(nn.Linear(1, 1)), 1, 2, sobel)


def network(silent: tuple[int, ...] = ()) -> ConvNet:
    """A tiny one, always the same, with some filters of conv2 that are never active."""
    torch.manual_seed(1)
    model = with_statistics(tiny(sobel=True)).float()
    with torch.no_grad():
        model.state_dict()["features.5.bias"][list(silent)] = -1e3
    return model
