"""A Caffe network without branches, as the steps that it computes.

The prototxt lists the layers; the caffemodel has the weights of each under the layer's name.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from system.errors import InputError, shorten
from tools.caffe.layers import Reader, Step
from tools.caffe.proto import read_caffemodel, read_prototxt

V1_TYPES = {  # names of layer types before the end of 2014
    "CONVOLUTION": "Convolution", "DROPOUT": "Dropout", "FLATTEN": "Flatten",
    "INNER_PRODUCT": "InnerProduct", "POOLING": "Pooling", "POWER": "Power", "RELU": "ReLU",
    "SOFTMAX": "Softmax",
}  # fmt: skip


@dataclass(frozen=True)
class Net:
    """`side`: of the input in pixels; None if the prototxt does not give it."""

    prototxt: str | Path
    side: int | None
    steps: list[Step]


def read_net(prototxt: str | Path, caffemodel: str | Path) -> Net:
    """Read both files.

    Raises:
        InputError: a file is damaged, or has a layer that can't be read; the message names both.
    """
    definition, trained = read_prototxt(prototxt), read_caffemodel(caffemodel)
    blobs = {layer.name: layer.blobs for layer in [*trained.layer, *trained.layers]}
    if not blobs:
        raise InputError(f"{caffemodel}: not a caffemodel: it has no layers")
    steps: list[Step] = []
    for layer, kind in _chain(definition, prototxt):
        step = Reader(layer, blobs.get(layer.name, []), prototxt, caffemodel).step(kind)
        if step is not None:
            steps.append(step)
    return Net(prototxt, _input_side(definition, prototxt), steps)


def _chain(net: Any, path: str | Path) -> Iterator[tuple[Any, str]]:
    """Each layer and its type, in order, without the inputs."""
    layers = [(layer, layer.type) for layer in net.layer]
    for layer in net.layers:
        kind = layer.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number[layer.type].name
        layers.append((layer, V1_TYPES.get(kind, kind)))
    current = [*net.input, *(layer.top[0] for layer, kind in layers if _is_input(layer, kind))]
    if len(current) != 1:
        raise InputError(f"{path}: has {len(current)} inputs, not one ('input' or an Input layer)")
    finished = False
    for layer, kind in layers:
        if _is_input(layer, kind):
            continue
        where = f"{path}: layer {shorten(layer.name)!r}"
        if finished:
            raise InputError(f"{where}: comes after a softmax, which ends a network")
        if list(layer.bottom) != current or len(layer.top) != 1:
            raise InputError(
                f"{where}: takes {_some(layer.bottom)} and gives {_some(layer.top)}, but should "
                f"take {_some(current)} and give one output; a net with branches can't be read"
            )
        current, finished = list(layer.top), kind == "Softmax"
        yield layer, kind


def _is_input(layer: Any, kind: str) -> bool:
    return kind == "Input" and len(layer.top) == 1


def _some(names: Sequence[str]) -> list[str]:
    return [shorten(name, 60) for name in names[:5]]


def _input_side(net: Any, path: str | Path) -> int | None:
    shapes = [list(shape.dim) for shape in net.input_shape]
    shapes += [list(s.dim) for layer in net.layer for s in layer.input_param.shape]
    shape = shapes[0] if shapes else list(net.input_dim)
    if not shape:
        return None
    if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or shape[2] < 1:
        raise InputError(f"{path}: its input is {shape}, not [N, 3, side, side]")
    return shape[2]
