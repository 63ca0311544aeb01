"""A released Caffe network (model.prototxt, model.caffemodel) as a checkpoint.

Caffe's networks take BGR pixels from 0 to 255, ours RGB normalised with ImageNet's mean and
deviation. `pixels.py` moves this difference into our first convolution, together with all that the
Caffe network does to single pixels first (mean, scale, mixtures of the channels). Batch norm may be
layers, or folded into the convolutions: then ours is the identity. A softmax at the end is left
out, as our networks give the logits.

The outputs are the same up to rounding, with one exception: a network without Sobel filters whose
mean is not ImageNet's, or is folded into the first convolution of the features. Such a network pads
the image with black, for example, and ours with ImageNet's mean, so that maps differ at the edges.
A warning says so.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import system.interrupt

import numpy as np
import torch
from torch import nn

from checkpoints.checkpoint import load_weights, save_checkpoint
from checkpoints.weights import network_for
from models import MODELS, ConvNet
from system import cli
from system.errors import InputError
from tools.caffe.layers import (
    BatchNorm,
    Convolution,
    Linear,
    MaxPool,
    ReLU,
    Scaling,
    Step,
    compose,
)
from tools.caffe.net import Net, read_net
from tools.caffe.pixels import Pixels, bgr

SIDE = 224  # of the input in pixels, if the prototxt does not give it
COLOURS = 3  # a convolution with at most so many outputs prepares the image

Arrays = dict[str, np.ndarray]
Kind = TypeVar("Kind", bound=Step)


def load_caffe(prototxt: str | Path, caffemodel: str | Path) -> ConvNet:
    """The network of a prototxt and its caffemodel, on the CPU.

    Its layers tell its architecture; `top_layer` is None if it has none. If it ends before the last
    ReLU, its output is our `embedding`.

    Raises:
        InputError: a file is damaged, or has a layer that none of our architectures has; the
            message names both.
    """
    net = read_net(prototxt, caffemodel)
    features = [s for s in net.steps if isinstance(s, Convolution) and len(s.weight) > COLOURS]
    arch = _architecture(len(features), prototxt)
    steps = _Steps(net, arch)
    with np.errstate(over="ignore", invalid="ignore"):  # load_weights checks for infinite weights
        pixels, arrays = _before(features[0], steps)
        with torch.device("meta"):  # for its shapes
            model = MODELS[arch](sobel=bool(arrays))
        arrays |= _features(model, steps, pixels)
        arrays |= _linear_layers(model, steps)
        weights = {name: torch.from_numpy(a.astype(np.float32)) for name, a in arrays.items()}
    model = network_for(arch, weights)
    load_weights(model, weights, caffemodel)
    return model


def _architecture(convolutions: int, prototxt: str | Path) -> str:
    with torch.device("meta"):
        networks = {arch: make() for arch, make in MODELS.items()}
    # those with a classifier are chains of layers; residual networks have none
    known = {arch: net.conv_layers for arch, net in networks.items() if len(net.classifier) > 0}
    for arch, count in known.items():
        if count == convolutions:
            return arch
    expected = ", ".join(f"{count} ({arch})" for arch, count in known.items())
    raise InputError(f"{prototxt}: has {convolutions} convolutions in its features, not {expected}")


class _Steps:
    """The steps of a net, taken one after the other."""

    def __init__(self, net: Net, arch: str) -> None:
        self.net, self.arch = net, arch
        self.left = net.steps[::-1]

    def take(self, kind: type[Kind]) -> Kind:
        """The next step, which has to be of this kind."""
        if not self.left:
            raise InputError(f"{self.net.prototxt}: ends where {self.arch} has a {kind.__name__}")
        step = self.left.pop()
        if not isinstance(step, kind):
            raise self.differs(step, f"a {type(step).__name__}", f"a {kind.__name__}")
        return step

    def scalings(self) -> list[Scaling]:
        """All scalings that come next."""
        found = []
        while self.left and isinstance(self.left[-1], Scaling):
            found.append(self.take(Scaling))
        return found

    def differs(self, step: Step, found: str, expected: str) -> InputError:
        return InputError(f"{step.where}: is {found}, where {self.arch} has {expected}")


def _before(first: Convolution, steps: _Steps) -> tuple[Pixels | None, Arrays]:
    """The steps before the features: operations on single pixels, or (then None) Sobel filters."""
    pixels = bgr()
    while steps.left[-1] is not first:
        step = steps.take(Step)
        if isinstance(step, Convolution) and len(step.weight) == 2:
            return None, pixels.into_sobel(step, steps.scalings())
        pixels = pixels.then(step)
    return pixels, {}


def _features(model: ConvNet, steps: _Steps, pixels: Pixels | None) -> Arrays:
    arrays: Arrays = {}
    side = steps.net.side or SIDE
    for index, module in enumerate(model.features):
        name = f"features.{index}"
        if isinstance(module, nn.Conv2d):
            step = steps.take(Convolution)
            weight, bias = step.weight, step.bias
            if pixels is not None:
                weight, bias = pixels.into_features(step)
                pixels = None
            arrays |= {f"{name}.weight": weight, f"{name}.bias": bias}
            found = _window(weight.shape, step.stride, step.padding)
            expected = _window(tuple(module.weight.shape), module.stride[0], module.padding[0])
            if found != expected:
                raise steps.differs(step, f"a convolution of {found}", expected)
            side = (side + 2 * step.padding - weight.shape[2]) // step.stride + 1
        elif isinstance(module, nn.BatchNorm2d):
            norm = _batch_norm(steps.scalings(), module)
            arrays |= {f"{name}.{key}": values for key, values in norm.items()}
        elif isinstance(module, nn.MaxPool2d):
            side = _pooled(side, steps, module)
        else:
            steps.take(ReLU)
    if side != model.pool.output_size:
        raise InputError(
            f"{steps.net.prototxt}: an input of {steps.net.side or SIDE} pixels leaves maps of "
            f"{side} × {side} to the linear layers, where {model.arch} has "
            f"{model.pool.output_size} × {model.pool.output_size}"
        )
    return arrays


def _window(shape: tuple[int, ...], stride: object, padding: object) -> str:
    return f"{' × '.join(map(str, shape))} with stride {stride} and padding {padding}"


def _batch_norm(scalings: Sequence[Scaling], module: nn.BatchNorm2d) -> Arrays:
    """With the net's own statistics, if it has a BatchNorm layer; else with those of an identity,
    and the scalings as weight and bias."""
    channels = module.num_features
    weight, bias = compose(scalings, channels)
    mean, variance = np.zeros(channels), np.full(channels, 1 - module.eps)
    if scalings and isinstance(scalings[0], BatchNorm):
        own = scalings[0].variance - module.eps
        if (own >= 0).all():  # else Caffe's eps is smaller
            weight, bias = compose(scalings[1:], channels)
            mean, variance = scalings[0].mean, own
    return {"weight": weight, "bias": bias, "running_mean": mean, "running_var": variance}


def _pooled(side: int, steps: _Steps, module: nn.MaxPool2d) -> int:
    """The side of the map after pooling."""
    step = steps.take(MaxPool)
    found = _window((step.kernel,) * 2, step.stride, step.padding)
    assert isinstance(module.kernel_size, int)
    expected = _window((module.kernel_size,) * 2, module.stride, 0)
    if found != expected:
        raise steps.differs(step, f"max-pooling over {found}", expected)
    whole, rest = divmod(side - step.kernel, step.stride)
    if step.rounds_up and rest > 0:
        raise InputError(
            f"{step.where}: makes {whole + 2} × {whole + 2} of a map of {side} × {side}, as Caffe "
            f"rounds up, where {steps.arch} has {whole + 1} × {whole + 1}; a network with this "
            "input size can't be imported"
        )
    return whole + 1


def _linear_layers(model: ConvNet, steps: _Steps) -> Arrays:
    arrays: Arrays = {}
    last = len(model.classifier) - 1
    for index, module in enumerate(model.classifier):
        if isinstance(module, nn.Linear):
            arrays |= _linear(f"classifier.{index}", steps, module.out_features, module.in_features)
        elif isinstance(module, nn.ReLU) and not (index == last and not steps.left):
            steps.take(ReLU)
    if steps.left:
        arrays |= _linear("top_layer", steps, None, model.embedding_dim)
    if steps.left:
        raise InputError(f"{steps.left[-1].where}: comes after the end of {model.arch}")
    return arrays


def _linear(name: str, steps: _Steps, outputs: int | None, inputs: int) -> Arrays:
    step = steps.take(Linear)
    found = step.weight.shape
    if found[1] != inputs or outputs not in (None, found[0]):
        wanted = f"{outputs or '…'} × {inputs}"
        raise steps.differs(step, f"a Linear of {found[0]} × {found[1]}", wanted)
    scale, shift = compose(steps.scalings(), found[0])
    return {
        f"{name}.weight": scale[:, None] * step.weight,
        f"{name}.bias": scale * step.bias + shift,
    }


def main(args: argparse.Namespace) -> None:
    model = load_caffe(args.prototxt, args.caffemodel)
    checkpoint = {
        "epoch": 0,
        "arch": model.arch,
        "state_dict": model.state_dict(),
        "optimizer": torch.optim.SGD(model.body()).state_dict(),  # new, for `main.py --resume`
    }
    try:
        save_checkpoint(args.out, checkpoint)
    except OSError as error:
        raise InputError(f"{args.out}: cannot write it: {error.strerror}") from error
    sobel = "without" if model.sobel is None else "with"
    top = model.top_layer
    outputs = "no top layer" if top is None else f"{top.out_features} outputs"
    sys.stdout.write(f"{model.arch} {sobel} Sobel filters, {outputs}: written to {args.out}\n")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Make a checkpoint of a released Caffe network.",
        example="python -m tools.caffe.import_model model.prototxt model.caffemodel "
        "alexnet.pth.tar",
        details="docs/checkpoints.md",
    )
    add = parser.add_argument
    add("prototxt", metavar="MODEL.prototxt", type=Path, help="its layers, as text")
    add("caffemodel", metavar="MODEL.caffemodel", type=Path, help="its weights")
    add("out", metavar="OUT.pth.tar", type=Path, help="the checkpoint to write")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
