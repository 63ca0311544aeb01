"""The receptive field of the places of a conv layer's map."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class ReceptiveField:
    """Along each axis, place i of a map sees `size` pixels from `start + i · stride` on. Pixels
    outside the image are padding."""

    start: int = 0
    stride: int = 1
    size: int = 1

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """The pixels of a place as Pillow's (left, top, right, bottom), the last two exclusive."""
        left, top = (self.start + place * self.stride for place in (column, row))
        return left, top, left + self.size, top + self.size


def receptive_field(modules: Iterable[nn.Module]) -> ReceptiveField:
    """The receptive field after these modules. Only convolutions and max-pools change it."""
    field = ReceptiveField()
    for module in modules:
        if isinstance(module, nn.Conv2d | nn.MaxPool2d):
            kernel, stride, padding = _geometry(module)
            field = ReceptiveField(
                field.start - padding * field.stride,
                field.stride * stride,
                field.size + (kernel - 1) * field.stride,
            )
    return field


def map_side(modules: Iterable[nn.Module], side: int) -> int:
    """The side of the map for a square image with this side; below 1 if the image is too small."""
    for module in modules:
        if isinstance(module, nn.Conv2d | nn.MaxPool2d):
            kernel, stride, padding = _geometry(module)
            side = (side + 2 * padding - kernel) // stride + 1 if side > 0 else 0
    return side


def _geometry(module: nn.Conv2d | nn.MaxPool2d) -> tuple[int, int, int]:
    """Kernel, stride and padding of a square, undilated module."""

    def one(value: int | str | tuple[int, ...]) -> int:
        return int(value[0] if isinstance(value, tuple) else value)

    return one(module.kernel_size), one(module.stride), one(module.padding)
