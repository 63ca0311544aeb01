"""What test_sharded_training.py starts under torchrun: main.py with a small network.

Usage: sharded_training.py ARGUMENTS OF main.py; beside its own networks, `--arch` takes `tiny` and
`plain`, which has neither batch norm nor dropout.
"""

import sys

from conftest import tiny
from torch import nn

import main
from models import MODELS
from models.convnet import ConvNet
from parallel import collectives
from system import cli
from training import run


def plain(sobel: bool = False, out: int = 1000) -> ConvNet:
    """A network in which an image's gradient does not depend on the others of its batch. Whitening
    makes all of its four dimensions count alike: where kinds of images differ in all of them,
    rounding does not move an image to another cluster."""
    features = nn.Sequential(nn.Conv2d(2 if sobel else 3, 8, 5, 4), nn.ReLU(), nn.MaxPool2d(2))
    classifier = nn.Sequential(nn.Linear(8 * 9, 4), nn.ReLU())
    return ConvNet("plain", features, 3, classifier, 4, out, sobel)


def broadcast_buffers(model: nn.Module) -> None:
    """As main.py does it at the end of an epoch; what comes of it is printed."""
    collectives.broadcast_buffers(model)
    buffers = [float(buffer.double().sum()) for buffer in model.buffers()]
    sys.stdout.write(f"buffers: {buffers}\n")


if __name__ == "__main__":
    MODELS.update(tiny=tiny, plain=plain)
    run.broadcast_buffers = broadcast_buffers
    sys.exit(cli.run(main.main, main.parse_args))
