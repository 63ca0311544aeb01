"""Batches of pixels that know which images they are.

A draw (image index, seed of its crop) goes to the workers and the index comes back with the pixels;
what a batch means never depends on its place in the loop. The workers live as long as the loader,
so that a new epoch with new labels and another order costs no restart.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

from data.decode import UnreadableImageError, read_image
from data.images import ImageList
from data.transforms import apply_seeded
from seeding import derive_seed


class Draw(NamedTuple):
    """One image of an epoch: which, in which epoch, as which of the epoch's draws."""

    image: int
    epoch: int
    position: int


@dataclass
class Batch:
    """`pixels` (B, 3, H, W) uint8 of the images `index` (B,) int64, and why the others are missing:
    `unreadable` maps an image index to the reason."""

    pixels: Tensor
    index: Tensor
    unreadable: dict[int, str]

    def pin_memory(self) -> "Batch":
        return Batch(self.pixels.pin_memory(), self.index.pin_memory(), self.unreadable)


class ImageDataset(Dataset[Any]):
    """Images by draw: (index, pixels), or (index, reason) for an image that cannot be decoded."""

    def __init__(self, images: ImageList, transform: v2.Transform, seed: int = 0) -> None:
        self.images = images
        self.transform = transform
        self.seed = seed

    def __getitem__(self, draw: Draw) -> tuple[int, Tensor | str]:
        try:
            image = read_image(self.images.path(draw.image))
        except UnreadableImageError as error:
            return draw.image, str(error)
        seed = derive_seed(self.seed, "crop", draw.epoch, draw.position)
        return draw.image, apply_seeded(self.transform, image, seed)


class EpochBatches(Sampler[list[Draw]]):
    """The batches of one epoch, in an order that is set anew for each.

    Args:
        batch_size: images in a batch.
        part, parts: of each batch, give every `parts`-th image from number `part` on: the share of
            one of many processes. Of the last batch that may be none.
    """

    def __init__(self, batch_size: int, part: int = 0, parts: int = 1) -> None:
        self.batch_size, self.part, self.parts = batch_size, part, parts
        self.start_epoch(0, np.empty(0, np.int64))

    def start_epoch(self, epoch: int, order: np.ndarray, first_batch: int = 0) -> None:
        """Go through `order` (M,) int64 image indices, from batch `first_batch` on."""
        self.epoch, self.order, self.first_batch = epoch, order, first_batch

    def __iter__(self) -> Iterator[list[Draw]]:
        for start in range(self.first_batch * self.batch_size, len(self.order), self.batch_size):
            stop = min(start + self.batch_size, len(self.order))
            positions = range(start + self.part, stop, self.parts)
            yield [Draw(int(self.order[at]), self.epoch, at) for at in positions]

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size) - self.first_batch


def make_loader(
    dataset: ImageDataset, batches: EpochBatches, workers: int, device: torch.device
) -> DataLoader[Batch]:
    """A loader whose workers are kept from one epoch to the next."""
    # The user has chosen the number of workers; torch need not warn of it.
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # the loader must not draw from the global one
    )


def collate(samples: list[tuple[int, Tensor | str]]) -> Batch:
    """Stack the readable images of a batch and set the others apart."""
    readable = [(index, pixels) for index, pixels in samples if isinstance(pixels, Tensor)]
    unreadable = {index: reason for index, reason in samples if isinstance(reason, str)}
    if not readable:
        return Batch(torch.empty(0, 3, 0, 0, dtype=torch.uint8), torch.empty(0).long(), unreadable)
    indices, pixels = zip(*readable, strict=True)
    return Batch(torch.stack(pixels), torch.tensor(indices), unreadable)
