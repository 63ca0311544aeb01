"""A batch of pixels with the data-set indices of its images."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Batch:
    """`pixels` (B, 3, H, W) uint8 of the images `index` (B,) int64; `unreadable` maps the index of
    each missing image to the reason."""

    pixels: Tensor
    index: Tensor
    unreadable: dict[int, str]

    def pin_memory(self) -> "Batch":
        return Batch(self.pixels.pin_memory(), self.index.pin_memory(), self.unreadable)


def collate(samples: list[tuple[int, Tensor | str]]) -> Batch:
    """Stack the readable images of a batch and separate the others."""
    readable = [(index, pixels) for index, pixels in samples if isinstance(pixels, Tensor)]
    unreadable = {index: reason for index, reason in samples if isinstance(reason, str)}
    if not readable:
        return Batch(torch.empty(0, 3, 0, 0, dtype=torch.uint8), torch.empty(0).long(), unreadable)
    indices, pixels = zip(*readable, strict=True)
    return Batch(torch.stack(pixels), torch.tensor(indices), unreadable)


def blank_batch(pixels: Tensor, images: int = 1) -> Batch:
    """A placeholder batch for a process without images: black images, number −1, of weight 0.

    Args:
        pixels: of any image, for their shape.
        images: their number.
    """
    return Batch(pixels.new_zeros(images, *pixels.shape), torch.full((images,), -1), {})
