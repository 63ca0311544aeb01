"""A layer of a Caffe network as the step that it computes, with its weights.

Dropout, flattening and the softmax at the end have no step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from system.errors import InputError, shorten

WITHOUT_STEP = ("Dropout", "Flatten", "Softmax")


@dataclass(frozen=True, eq=False)
class Step:
    """`where`: the file and the layer, for messages."""

    where: str


@dataclass(frozen=True, eq=False)
class Convolution(Step):
    """`weight` (out, in, kernel, kernel), `bias` (out,), float32; padding is with zeros."""

    weight: np.ndarray
    bias: np.ndarray
    stride: int
    padding: int


@dataclass(frozen=True, eq=False)
class Linear(Step):
    """`weight` (out, in), `bias` (out,), float32."""

    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class Scaling(Step):
    """x → scale · x + shift, `(C,)` or `(1,)` float64 each."""

    scale: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True, eq=False)
class BatchNorm(Scaling):
    """(x − mean) / √variance, `(C,)` float64 each; the variance includes eps."""

    mean: np.ndarray
    variance: np.ndarray


@dataclass(frozen=True, eq=False)
class ReLU(Step):
    pass


@dataclass(frozen=True, eq=False)
class MaxPool(Step):
    """`rounds_up`: as in Caffe, a last window that reaches over the edge counts."""

    kernel: int
    stride: int
    padding: int
    rounds_up: bool


def compose(steps: Sequence[Scaling], channels: int) -> tuple[np.ndarray, np.ndarray]:
    """The scale and shift of all steps together, `(channels,)` float64 each.

    Raises:
        InputError: a step scales another number of channels.
    """
    scale, shift = np.ones(channels), np.zeros(channels)
    for step in steps:
        if len(step.scale) not in (1, channels):
            raise InputError(
                f"{step.where}: scales {len(step.scale)} channels, of which there are {channels}"
            )
        scale, shift = step.scale * scale, step.scale * shift + step.shift
    return scale, shift


class Reader:
    """Reads a layer: each method below makes the step of one layer type."""

    def __init__(
        self, layer: Any, blobs: Sequence[Any], prototxt: str | Path, caffemodel: str | Path
    ) -> None:
        self.layer, self.blobs = layer, blobs
        name = repr(shorten(layer.name))
        self.where, self.where_blobs = f"{prototxt}: layer {name}", f"{caffemodel}: layer {name}"

    def step(self, kind: str) -> Step | None:
        if kind in WITHOUT_STEP:
            return None
        if kind not in STEPS:
            known = ", ".join(sorted((*STEPS, *WITHOUT_STEP, "Input")))
            raise self.error(f"is of type {shorten(kind)!r}, not one of {known}")
        return STEPS[kind](self)

    def error(self, message: str) -> InputError:
        return InputError(f"{self.where}: {message}")

    def convolution(self) -> Convolution:
        of = self.layer.convolution_param
        if of.group != 1 or any(d != 1 for d in of.dilation) or of.axis != 1:
            raise self.error(
                f"has {of.group} groups, or dilation; only plain convolutions can be read"
            )
        kernel, stride, padding = self._windows(of)
        weight = self._blob(0, of.num_output, None, kernel, kernel)
        return Convolution(self.where, weight, self._bias(of), stride, padding)

    def linear(self) -> Linear:
        of = self.layer.inner_product_param
        if of.axis != 1:
            raise self.error(f"works from axis {of.axis} on, not from axis 1")
        if of.transpose:
            weight = self._blob(0, None, of.num_output).T
        else:
            weight = self._blob(0, of.num_output, None)
        return Linear(self.where, weight, self._bias(of))

    def batch_norm(self) -> BatchNorm:
        mean = self._blob(0, None).astype(np.float64)
        variance = self._blob(1, len(mean)).astype(np.float64)
        count = self._blob(2, 1).astype(np.float64)
        if count[0] != 0:  # Caffe saves sums
            mean, variance = mean / count[0], variance / count[0]
        variance = variance + self.layer.batch_norm_param.eps
        if not (variance > 0).all():
            raise InputError(f"{self.where_blobs}: has a variance of 0 or below")
        scale = 1 / np.sqrt(variance)
        return BatchNorm(self.where, scale, -mean * scale, mean, variance)

    def scale(self) -> Scaling:
        of = self.layer.scale_param
        scale = self._per_channel(of)
        shift = np.zeros_like(scale)
        if of.bias_term:
            shift = self._blob(1, len(scale)).astype(np.float64)
        return Scaling(self.where, scale, shift)

    def bias(self) -> Scaling:
        shift = self._per_channel(self.layer.bias_param)
        return Scaling(self.where, np.ones_like(shift), shift)

    def power(self) -> Scaling:
        of = self.layer.power_param
        if of.power != 1:
            raise self.error(f"raises to the power {of.power:g}, not 1")
        if not math.isfinite(of.scale) or not math.isfinite(of.shift):
            raise self.error(f"scales by {of.scale} and shifts by {of.shift}")
        return Scaling(self.where, np.array([of.scale]), np.array([of.shift]))

    def relu(self) -> ReLU:
        if self.layer.relu_param.negative_slope != 0:
            raise self.error("is a leaky ReLU, not a plain one")
        return ReLU(self.where)

    def max_pool(self) -> MaxPool:
        of = self.layer.pooling_param
        if of.pool != 0 or of.global_pooling:
            raise self.error("pools the average or the whole map, not the maximum of windows")
        kernel, stride, padding = self._windows(of)
        return MaxPool(self.where, kernel, stride, padding, rounds_up=of.round_mode == 0)

    def _windows(self, of: Any) -> tuple[int, int, int]:
        """Kernel, stride and padding, each the same in both directions."""
        kernel = self._side("kernel", of.kernel_size, of.kernel_h, of.kernel_w)
        stride = self._side("stride", of.stride or 1, of.stride_h, of.stride_w)
        padding = self._side("pad", of.pad, of.pad_h, of.pad_w)
        if min(kernel, stride) < 1:
            raise self.error(f"has kernel {kernel} and stride {stride}, not 1 or more")
        return kernel, stride, padding

    def _side(self, name: str, both: Any, high: int, wide: int) -> int:
        """A size that is given for both directions (as a number or a list), or for each alone."""
        given = {high, wide} if high or wide else {both} if isinstance(both, int) else {*both}
        if len(given) > 1:
            raise self.error(f"has a {name} of {' × '.join(map(str, sorted(given)))}, not a square")
        return given.pop() if given else 0

    def _per_channel(self, of: Any) -> np.ndarray:
        values = self._blob(0, None).astype(np.float64)
        if len(values) > 1 and (of.axis != 1 or of.num_axes != 1):
            raise self.error(f"works on axis {of.axis} and {of.num_axes} axes, not on the channels")
        return values

    def _bias(self, of: Any) -> np.ndarray:
        if not of.bias_term:
            return np.zeros(of.num_output, np.float32)
        return self._blob(1, of.num_output)

    def _blob(self, index: int, *shape: int | None) -> np.ndarray:
        """The blob as float32. `shape` is the expected one, with None for any size; axes of size 1
        that old files put in front are dropped."""
        if index >= len(self.blobs):
            raise InputError(f"{self.where_blobs}: has {len(self.blobs)} blobs of weights, too few")
        blob = self.blobs[index]
        legacy = [blob.num, blob.channels, blob.height, blob.width]
        sizes = (list(blob.shape.dim) or [1]) if blob.HasField("shape") else legacy
        in_front = max(len(sizes) - len(shape), 0)
        if all(size == 1 for size in sizes[:in_front]):
            sizes = sizes[in_front:]
        with np.errstate(over="ignore"):  # too large for float32: infinite, see below
            data = np.array(blob.data or blob.double_data, np.float32)
        fits = len(sizes) == len(shape) and all(map(_fits, sizes, shape))
        if not fits or math.prod(sizes) != len(data):
            raise InputError(
                f"{self.where_blobs}: blob {index} has {len(data)} numbers and the shape "
                f"{_in_words(sizes[:5])}, not {_in_words(shape)}"
            )
        if not np.isfinite(data).all():
            raise InputError(f"{self.where_blobs}: blob {index} has NaN or infinite numbers")
        return data.reshape(sizes)


def _fits(size: int, expected: int | None) -> bool:
    return size > 0 and expected in (None, size)


def _in_words(shape: Sequence[int | None]) -> str:
    return " × ".join("…" if size is None else str(size) for size in shape)


STEPS = {
    "BatchNorm": Reader.batch_norm,
    "Bias": Reader.bias,
    "Convolution": Reader.convolution,
    "InnerProduct": Reader.linear,
    "Pooling": Reader.max_pool,
    "Power": Reader.power,
    "ReLU": Reader.relu,
    "Scale": Reader.scale,
}
