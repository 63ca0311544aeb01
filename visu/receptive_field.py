"""Which pixels a place of a conv layer sees."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class ReceptiveField:
    """Along either axis, place i of a map sees the pixels from `start + i · stride` on, `size` of
    them; those below 0 and beyond the image are padding."""

    start: int = 0
    stride: int = 1
    size: int = 1

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """What a place sees, as Pillow's (left, top, right, bottom), the last two exclusive."""
        left, top = (self.start + place * self.stride for place in (column, row))
        return left, top, left + self.size, top + self.size


def receptive_field(modules: Iterable[nn.Module]) -> ReceptiveField:
    """The receptive field after these modules, of which all but convolutions and max-pools leave
    places alone."""
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
    """Side of the map that these modules make of a square image; below 1 where it is too small."""
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
