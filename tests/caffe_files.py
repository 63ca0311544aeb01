"""Writes our networks as Caffe files, in the styles in which people write them."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models import ConvNet
from system.normalisation import IMAGENET_MEAN, IMAGENET_STD
from tools.caffe.proto import new

MEAN, STD = np.array(IMAGENET_MEAN)[::-1], np.array(IMAGENET_STD)[::-1]  # blue, green, red
RGB_FROM_BGR = np.eye(3)[::-1]
SCALE_AND_BIAS = "scale_param { bias_term: true }"


@dataclass
class Layer:
    """`text`: the prototxt's fields beside name, type, bottom and top."""

    name: str
    type: str
    text: str = ""
    blobs: list[np.ndarray] = field(default_factory=list)


def randomised(model: ConvNet) -> ConvNet:
    """The same network with random weights and statistics, as if trained; in eval mode."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.running_var):
                assert values is not None
                nn.init.uniform_(values, 0.5, 2)
            for values in (module.bias, module.running_mean):
                assert values is not None
                nn.init.normal_(values)
        elif isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.normal_(module.weight, 0, module.weight[0].numel() ** -0.5)
            assert module.bias is not None
            nn.init.normal_(module.bias)
    return model.eval()


def front(kind: str) -> tuple[list[Layer], np.ndarray]:
    """Layers that prepare BGR pixels for the first convolution, in one of three ways, and the
    matrix by which that convolution's weights have to be multiplied."""
    scale, shift = 1 / (255 * STD), -MEAN / STD
    if kind == "scale":
        normalise = Layer("scale", "Scale", SCALE_AND_BIAS, [scale, shift])
        return [normalise], RGB_FROM_BGR
    if kind == "power, batch norm":
        power = Layer("power", "Power", f"power_param {{ scale: {1 / 255} shift: 0.5 }}")
        sums = [(MEAN + 0.5) * 7, (STD**2 - 1e-5) * 7, np.array([7.0])]
        return [power, Layer("statistics", "BatchNorm", "", sums)], RGB_FROM_BGR
    assert kind == "mixture"
    mixture = np.diag(scale)[::-1]
    return [convolution("mixture", mixture[:, :, None, None], shift[::-1])], np.eye(3)


def edges(model: ConvNet, kind: str) -> list[Layer]:
    """A network's layers up to its Sobel filters, in one of several ways."""
    assert model.sobel is not None
    grey, sobel = (module.state_dict() for module in model.sobel)
    mixture, offset = grey["weight"].numpy()[:, :, 0, 0], grey["bias"].numpy()
    filters, bias = sobel["weight"].numpy(), sobel["bias"].numpy()
    if kind == "one convolution":
        layers, matrix = front("scale")
        joined = filters * (mixture @ matrix)[:, :, None, None]
        bias = bias + offset * filters.sum((1, 2, 3))  # with an offset, right but for the edges
        return [*layers, convolution("sobel", joined, bias, 1, 1)]
    if kind == "grey":
        (normalise,), _ = front("mixture")
        weight = mixture @ normalise.blobs[0][:, :, 0, 0]
        layers = [
            convolution("grey", weight[:, :, None, None], mixture @ normalise.blobs[1] + offset)
        ]
    else:
        layers, matrix = front(kind)
        layers.append(convolution("grey", (mixture @ matrix)[:, :, None, None], offset))
    return [
        *layers,
        convolution("sobel", filters / 3, (bias - 1) / 3, 1, 1),
        Layer("brighter", "Power", "power_param { scale: 3 shift: 1 }"),
    ]


def layers_of(
    model: ConvNet, front_kind: str, norm: str = "layers", top: bool = True, softmax: bool = False
) -> list[Layer]:
    """The layers of a network.

    Args:
        front_kind: how the image is prepared; "folded" (without Sobel): in the first convolution.
        norm: batch norm as "layers" (BatchNorm and Scale), or "folded" into the convolutions.
    """
    if model.sobel is not None:
        layers, matrix = edges(model, front_kind), np.eye(2)
    elif front_kind == "folded":
        layers, matrix = [], np.diag(1 / (255 * STD))[::-1]
    else:
        layers, matrix = front(front_kind)
    modules = list(model.features)
    for index, module in enumerate(modules):
        if isinstance(module, nn.Conv2d):
            assert module.bias is not None
            weight, bias = module.weight.detach().numpy(), module.bias.detach().numpy()
            if index == 0:
                weight = np.einsum("ocyx,ci->oiyx", weight, matrix)
                if front_kind == "folded":
                    bias = bias + np.einsum("oiyx,i->o", weight, -255 * MEAN)
            scale, shift, statistics = normalisation(modules[index + 1], str(index))
            stride, padding = module.stride[0], int(module.padding[0])
            if norm == "folded":
                weight, bias = scale[:, None, None, None] * weight, scale * bias + shift
            layers.append(convolution(f"conv{index}", weight, bias, stride, padding))
            if norm == "layers":
                layers += statistics
        elif isinstance(module, nn.ReLU):
            layers.append(Layer(f"relu{index}", "ReLU"))
        elif isinstance(module, nn.MaxPool2d):
            sizes = f"kernel_size: {module.kernel_size} stride: {module.stride}"
            layers.append(Layer(f"pool{index}", "Pooling", f"pooling_param {{ {sizes} }}"))
    for index, module in enumerate(model.classifier):
        if isinstance(module, nn.Linear):
            layers.append(linear(f"fc{index}", module))
        else:
            layers.append(Layer(f"fc_{index}", type(module).__name__))
    if top:
        assert model.top_layer is not None
        layers.append(linear("top", model.top_layer))
    return [*layers, Layer("prob", "Softmax")] if softmax else layers


def normalisation(module: nn.Module, name: str) -> tuple[np.ndarray, np.ndarray, list[Layer]]:
    """Batch norm as one scale and shift, and as Caffe's two layers."""
    assert isinstance(module, nn.BatchNorm2d)
    state = {n: values.numpy().astype(np.float64) for n, values in module.state_dict().items()}
    mean, variance = state["running_mean"], state["running_var"]
    scale = state["weight"] / np.sqrt(variance + module.eps)
    layers = [
        Layer(f"bn{name}", "BatchNorm", "", [mean * 3, variance * 3, np.array([3.0])]),
        Layer(f"scale{name}", "Scale", SCALE_AND_BIAS, [state["weight"], state["bias"]]),
    ]
    return scale, state["bias"] - scale * mean, layers


def convolution(
    name: str, weight: np.ndarray, bias: np.ndarray, stride: int = 1, padding: int = 0
) -> Layer:
    text = (
        f"convolution_param {{ num_output: {len(weight)} kernel_size: {weight.shape[2]} "
        f"stride: {stride} pad: {padding} engine: CAFFE weight_filler {{ type: 'xavier' }} }}"
    )
    return Layer(name, "Convolution", text, [weight, bias])


def linear(name: str, module: nn.Linear) -> Layer:
    text = f"inner_product_param {{ num_output: {module.out_features} }}"
    blobs = [module.weight.detach().numpy(), module.bias.detach().numpy()]
    return Layer(name, "InnerProduct", text, blobs)


def write_caffe(
    folder: Path, layers: Sequence[Layer], side: int, v1: bool = False
) -> tuple[Path, Path]:
    """Write `net.prototxt` and `net.caffemodel`.

    Args:
        v1: the format before the end of 2014, whose weights have four axes.
    """
    shape = (1, 3, side, side)
    if v1:
        text = ["name: 'net' input: 'data'", *(f"input_dim: {size}" for size in shape)]
    else:
        dims = " ".join(f"dim: {size}" for size in shape)
        text = ["name: 'net' layer { name: 'data' type: 'Input' top: 'data'"]
        text.append(f"input_param {{ shape {{ {dims} }} }} }}")
    net, bottom = new("NetParameter"), "data"
    key, rates = ("layers", "blobs_lr: 1") if v1 else ("layer", "param { lr_mult: 0 }")
    for layer in layers:
        in_place = layer.type in ("BatchNorm", "Scale", "ReLU", "Dropout") and not v1
        top = bottom if in_place and bottom != "data" else layer.name
        kind = {"InnerProduct": "INNER_PRODUCT"}.get(layer.type, layer.type.upper())
        named = kind if v1 else f"'{layer.type}'"
        text.append(
            f"{key} {{ name: '{layer.name}' type: {named} bottom: '{bottom}' top: '{top}' "
            f"{rates} {layer.text} }}"
        )
        bottom = top
        written = getattr(net, key).add(name=layer.name, type=kind if v1 else layer.type)
        for values in layer.blobs:
            blob = written.blobs.add(data=np.asarray(values, np.float32).ravel())
            if v1:
                sizes = (1,) * (4 - np.ndim(values)) + np.shape(values)
                blob.num, blob.channels, blob.height, blob.width = sizes
            else:
                blob.shape.dim.extend(np.shape(values))
    return save(folder, "\n".join(text), net.SerializeToString())


write_caffe_v1 = functools.partial(write_caffe, v1=True)


def save(folder: Path, prototxt: str, caffemodel: bytes) -> tuple[Path, Path]:
    paths = folder / "net.prototxt", folder / "net.caffemodel"
    paths[0].write_text(prototxt)
    paths[1].write_bytes(caffemodel)
    return paths
