"""The receptive field of the places of a conv layer's map."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

Spatial = nn.Conv2d | nn.MaxPool2d | nn.ZeroPad2d


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
    """The receptive field after these modules. Only padding, convolutions and max-pools change
    it."""
    field = ReceptiveField()
    for module in modules:
        if isinstance(module, Spatial):
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
        if isinstance(module, Spatial):
            kernel, stride, padding = _geometry(module)
            side = (side + 2 * padding - kernel) // stride + 1 if side > 0 else 0
    return side


def _geometry(module: nn.Module) -> tuple[int, int, int]:
    """Kernel, stride and padding of a square, undilated module."""
    if isinstance(module, nn.ZeroPad2d):
        return 1, 1, module.padding[0]
    assert isinstance(module, nn.Conv2d | nn.MaxPool2d)

    def one(value: int | str | tuple[int, ...]) -> int:
        return int(value[0] if isinstance(value, tuple) else value)

    return one(module.kernel_size), one(module.stride), one(module.padding)
