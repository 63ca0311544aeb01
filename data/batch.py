"""A batch of pixels with the data-set indices of its images, and the draws that it is made of."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


class Draw(NamedTuple):
    """One image of an epoch; `position` counts the epoch's draws. Its view is turned
    counter-clockwise by 90° times `turns`."""

    image: int
    epoch: int
    position: int
    turns: int = 0


Sample = tuple[Draw, Tensor | str]  # the pixels of a draw, or why its image can't be read


def _none() -> Tensor:
    return torch.empty(0, dtype=torch.int64)


@dataclass
class Batch:
    """`pixels` (B, 3, H, W) uint8 of the images `index` (B,) int64, each turned by the quarter
    turns `turns` (B,) int64; `unreadable` maps the index of each missing image to the reason."""

    pixels: Tensor
    index: Tensor
    unreadable: dict[int, str]
    turns: Tensor = field(default_factory=_none)

    def pin_memory(self) -> "Batch":
        pixels, index = self.pixels.pin_memory(), self.index.pin_memory()
        return Batch(pixels, index, self.unreadable, self.turns.pin_memory())


def collate(samples: list[Sample]) -> Batch:
    """Stack the readable images of a batch and separate the others."""
    readable = [(draw, pixels) for draw, pixels in samples if isinstance(pixels, Tensor)]
    unreadable = {draw.image: reason for draw, reason in samples if isinstance(reason, str)}
    if not readable:
        return Batch(torch.empty(0, 3, 0, 0, dtype=torch.uint8), _none(), unreadable)
    draws, pixels = zip(*readable, strict=True)
    index = torch.tensor([draw.image for draw in draws])
    turns = torch.tensor([draw.turns for draw in draws])
    return Batch(torch.stack(pixels), index, unreadable, turns)


def blank_batch(pixels: Tensor, images: int = 1) -> Batch:
    """A placeholder batch for a process without images: black images, number −1, of weight 0.

    Args:
        pixels: of any image, for their shape.
        images: their number.
    """
    black, none = pixels.new_zeros(images, *pixels.shape), torch.full((images,), -1)
    return Batch(black, none, {}, torch.zeros(images, dtype=torch.int64))
