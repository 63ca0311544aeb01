"""A Caffe network without branches, as the steps that it computes.

The prototxt lists the layers; the caffemodel has the weights of each under the layer's name. Of a
prototxt for training, the network of phase TEST between the data and the loss is read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from system.errors import InputError, shorten
from tools.caffe.layers import Reader, Scaling, Step
from tools.caffe.proto import TEST, read_caffemodel, read_prototxt

V1_TYPES = {  # names of layer types before the end of 2014
    "ACCURACY": "Accuracy", "CONVOLUTION": "Convolution", "DATA": "Data", "DROPOUT": "Dropout",
    "FLATTEN": "Flatten", "HDF5_DATA": "HDF5Data", "IMAGE_DATA": "ImageData",
    "INNER_PRODUCT": "InnerProduct", "MEMORY_DATA": "MemoryData", "POOLING": "Pooling",
    "POWER": "Power", "RELU": "ReLU", "SILENCE": "Silence", "SOFTMAX": "Softmax",
    "WINDOW_DATA": "WindowData",
}  # fmt: skip
DATA = ("Data", "HDF5Data", "ImageData", "MemoryData", "WindowData")
Layers = list[tuple[Any, str]]  # with their types


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
    layers = _layers(definition)
    side = _input_side(definition, prototxt)
    steps: list[Step] = []
    for layer, kind in layers:
        if kind in DATA:
            crop, scaling = _transform(layer, prototxt)
            side, steps = side or crop, [*steps, *scaling]
    for layer, kind in _chain(definition, layers, prototxt):
        step = Reader(layer, blobs.get(layer.name, []), prototxt, caffemodel).step(kind)
        if step is not None:
            steps.append(step)
    return Net(prototxt, side, steps)


def _layers(net: Any) -> Layers:
    """The layers of phase TEST, without those that only measure."""
    layers = [(layer, layer.type) for layer in net.layer]
    for layer in net.layers:
        kind = layer.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number[layer.type].name
        layers.append((layer, V1_TYPES.get(kind, kind)))
    return [(each, kind) for each, kind in layers if _is_tested(each) and not _measures(kind)]


def _is_tested(layer: Any) -> bool:
    """Whether a layer is there in phase TEST, at level 0 and without stages."""
    if layer.include:
        return any(map(_is_met, layer.include))
    return not any(map(_is_met, layer.exclude))


def _is_met(rule: Any) -> bool:
    in_phase = not rule.HasField("phase") or rule.phase == TEST
    return in_phase and rule.min_level <= 0 <= rule.max_level and not rule.stage


def _measures(kind: str) -> bool:
    return kind in ("Accuracy", "Silence") or kind.upper().endswith("LOSS")


def _chain(net: Any, layers: Layers, path: str | Path) -> Iterator[tuple[Any, str]]:
    """Each layer and its type, in order, without the inputs."""
    current = [*net.input, *(layer.top[0] for layer, kind in layers if _is_input(layer, kind))]
    if len(current) != 1:
        raise InputError(
            f"{path}: has {len(current)} inputs, not one ('input', an Input layer, or a data layer "
            "of phase TEST)"
        )
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
    return (kind == "Input" and len(layer.top) == 1) or (kind in DATA and len(layer.top) > 0)


def _transform(layer: Any, path: str | Path) -> tuple[int | None, list[Scaling]]:
    """What a data layer does to images: the side to which it crops them, and its mean and scale."""
    where = f"{path}: layer {shorten(layer.name)!r}"
    of, old = layer.transform_param, layer.data_param  # old: before the end of 2014
    if file := of.mean_file or old.mean_file:
        raise InputError(
            f"{where}: subtracts the mean in {shorten(file)}, which can't be read; give each "
            "channel's mean in its place: mean_value: BLUE mean_value: GREEN mean_value: RED"
        )
    mean, scale = np.array(of.mean_value or [0.0]), of.scale * old.scale
    if not np.isfinite([*mean, scale]).all():
        raise InputError(f"{where}: has a mean or scale that is not finite")
    plain = scale == 1 and not mean.any()
    scaling = Scaling(where, np.full_like(mean, scale), -mean * scale)
    return of.crop_size or old.crop_size or None, [] if plain else [scaling]


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
