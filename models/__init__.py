"""The networks, by the name that `--arch` takes.

In: normalised images `(B, 3, H, W)`. Out: logits `(B, k)`, the embedding that is clustered, or
the activations of a conv layer. A new architecture is one file and a row of `MODELS`. Imports
system/.

    network.py      Network, the questions that all code asks: embedding, conv layers, preprocessing
    convnet.py      ConvNet, the class of our networks: Sobel, conv layers, classifier, top layer
    timm_network.py  a network of timm's as one of ours
    timm_names.py   the names of timm's networks, `timm:NAME[@FILE]`
    timm_weights.py  their weights: from timm's cache, the Hub or a file
    sobel.py        the Sobel filters, and their merge into the first convolution
    alexnet.py      AlexNet with batch norm
    vgg16.py        VGG-16 with batch norm
    resnet.py       ResNet-50, also wider, ResNet-18, and a ResNet-18 for small images
    convnet_small.py  four conv layers, for small images on a CPU
    heads.py        the heads of SwAV and DeepCluster-v2, and the forward pass of several crops
    prototypes.py   their prototypes, as clusters of images
    layers.py       the layers of a linear probe, and how they are pooled: `POOLS`
    frozen.py       freeze a network, and check that it did not change
    pretrained.py   torchvision's VGG-16 as one of ours, for retrieval
"""

import argparse
import itertools
from collections.abc import Callable

import torch
from torch import nn

from models.alexnet import alexnet
from models.convnet import ConvNet
from models.convnet_small import convnet_small
from models.network import Network
from models.resnet import (
    resnet18,
    resnet18_small,
    resnet50,
    resnet50w2,
    resnet50w4,
    resnet50w5,
)
from models.timm_network import TimmNetwork
from models.vgg16 import vgg16
from system.errors import InputError
from system.seeding import derive_seed

MODELS: dict[str, Callable[..., ConvNet]] = {
    "alexnet": alexnet,
    "vgg16": vgg16,
    "resnet50": resnet50,
    "resnet50w2": resnet50w2,
    "resnet50w4": resnet50w4,
    "resnet50w5": resnet50w5,
    "resnet18": resnet18,
    "resnet18_small": resnet18_small,
    "convnet_small": convnet_small,
}

MOST_SIZE = 2**14  # pixels, of `--size`


def add_arch_flag(
    parser: argparse.ArgumentParser,
    *names: str,
    default: str | None = "alexnet",
    help: str = "architecture",
) -> None:
    """`--arch`, one of `MODELS`; `names` are further names of the flag, such as `-a`."""
    parser.add_argument(*names, "--arch", choices=list(MODELS), default=default, help=help)


def untrained(arch: str, sobel: bool, out: int, seed: int, plain_linear: bool = False) -> ConvNet:
    """The network that a run with this seed starts from.

    Args:
        plain_linear: the classifier's linear layers have PyTorch's initialisation, as in
            DeeperCluster.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "initial weights"))
        model = MODELS[arch](sobel=sobel, out=out)
        for layer in model.classifier if plain_linear else ():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
    return model


def fit_size(model: Network, size: int) -> None:
    """Check that a network works with `--size`, and adapt one of timm's to it.

    Raises:
        InputError: it doesn't.
    """
    if size > MOST_SIZE or not isinstance(model, TimmNetwork):
        check_size(model.arch, size)
    else:
        model.take_size(size)


def check_size(arch: str, size: int) -> None:
    """Check that a network works with `--size`.

    Raises:
        InputError: with the smallest or largest size that works.
    """
    if size > MOST_SIZE:
        raise InputError(f"--size {size}: more than {MOST_SIZE} pixels a side; give less")
    if not accepts_size(arch, size):
        least = next(side for side in itertools.count(size) if accepts_size(arch, side))
        raise InputError(f"--size {size}: too small for {arch}; give {least} or more")


def accepts_size(arch: str, size: int) -> bool:
    """Whether a network can be trained on images of `size` × `size` pixels, even one at a time."""
    with torch.device("meta"):
        try:
            MODELS[arch]()(torch.empty(1, 3, size, size))
        except (RuntimeError, ValueError):  # a map shrank to nothing, or to one value per channel
            return False
    return True
