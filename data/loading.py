"""Batches of pixels with the indices of their images.

A draw (an image, and what seeds its crop) goes to the workers, and the index comes back with the
pixels, so a batch never depends on its place in the loop. The workers live as long as the loader: a
new epoch with another order does not restart them.
"""

import argparse
import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision.transforms import v2

from data.batch import Batch, Draw, Sample, collate
from data.decode import MAX_PIXELS, UnreadableImageError, limit_pixels, pixel_limit
from data.images import ImageList
from data.loader import Loader
from data.order import EpochBatches, Pieces, WholePages
from data.parcel import collate_parcel
from data.transforms import apply_seeded, rotated
from parallel.signals import ignore_signals
from system import cli
from system.seeding import derive_seed

DECODE = ("auto", "pil")
LEAST_AHEAD = 8  # batches read ahead, enough to bridge a slow read
SMALL, ALL_SMALL = 3 * 64 * 64, 2**26  # bytes of a decoded image that is kept, and of all of them


def add_decode_flag(parser: argparse.ArgumentParser) -> None:
    """`--decode`, which `ImageDataset` takes."""
    decode_help = "auto: fast, Pillow's pixels up to rounding; pil: Pillow"
    parser.add_argument("--decode", choices=DECODE, default="auto", help=decode_help)


def add_max_pixels_flag(parser: argparse.ArgumentParser) -> None:
    """`--max-pixels`, which `data.decode.limit_pixels` takes."""
    max_help = "images with more pixels are left out (a small file can claim a huge size)"
    add = parser.add_argument
    add("--max-pixels", metavar="N", type=cli.whole_number(1), default=MAX_PIXELS, help=max_help)


class ImageDataset(Dataset[Any]):
    """Images by draw: (draw, pixels), or (draw, reason) for an image that cannot be decoded.

    Opening and decoding a small image takes longer than its crop. So each worker keeps the pixels
    of images up to 64 × 64, 64 MiB of them at most, for the next time (not with Pillow's decoder),
    and does not notice when such a file changes meanwhile.

    Args:
        seed: of the random crops.
        decode: "auto" for fast decoding of JPEGs and resizing of tensors; "pil" for Pillow.
    """

    def __init__(
        self, images: ImageList, transform: v2.Transform, seed: int = 0, decode: str = "auto"
    ) -> None:
        self.images = images
        self.transform = transform
        self.seed = seed
        self.decode = decode
        self._kept: dict[int, Tensor] = {}
        self._free = ALL_SMALL

    def __getitem__(self, draw: Draw) -> Sample:
        seed = derive_seed(self.seed, "crop", draw.epoch, draw.position)
        try:
            image = self._read(draw.image)
        except UnreadableImageError as error:
            return draw, str(error)
        return draw, rotated(apply_seeded(self.transform, image, seed), draw.turns)

    def _read(self, image: int) -> Image.Image | Tensor:
        if self.decode == "pil":
            return self.images.read_image(image)
        if (kept := self._kept.get(image)) is not None:
            return kept
        pixels = self.images.read_pixels(image)
        if pixels.nbytes <= min(SMALL, self._free):
            self._kept[image] = pixels
            self._free -= pixels.nbytes
        return pixels


def make_loader(
    dataset: Dataset[Any],
    batches: EpochBatches,
    workers: int,
    device: torch.device,
    while_waiting: Callable[[float], None] = lambda seconds: None,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    in_order: bool = False,
) -> Loader[Any]:
    """A loader whose workers stay from one epoch to the next.

    Args:
        dataset: its items may be anything if `collate_fn` is given; it has `images`.
        while_waiting: called about twice a second while no batch comes, with the seconds of this
            wait; may raise.
        collate_fn: makes a batch of some items; None for a `Batch` of an `ImageDataset`'s.
        in_order: the batches go through the images in order, so workers share no page of a
            container; a batch of `collate_fn` is a list.
    """
    collate_fn = collate_fn or (collate_parcel if workers > 0 else collate)
    sampler: Sampler[Any] = batches
    if in_order and workers > 1:
        sampler = WholePages(batches, dataset.images.source)  # type: ignore[attr-defined]
        dataset, collate_fn = Pieces(dataset, collate_fn), list
    # The user has chosen the number of workers: no warning about it
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    options: dict[str, Any] = {
        "batch_sampler": sampler,
        "num_workers": workers,
        "prefetch_factor": max(2, -(-LEAST_AHEAD // workers)) if workers > 0 else None,
        "persistent_workers": workers > 0,
        "worker_init_fn": functools.partial(_start_worker, pixel_limit()),
        "generator": torch.Generator(),  # instead of draws from the global one
        "collate_fn": collate_fn,
    }
    return Loader(dataset, while_waiting=while_waiting, pin=device.type == "cuda", **options)


def _start_worker(most_pixels: int, worker: int) -> None:
    ignore_signals()
    limit_pixels(most_pixels)


def load_in_order(
    dataset: ImageDataset,
    batch_size: int,
    workers: int,
    device: torch.device,
    images: Sequence[int] | np.ndarray | None = None,
    epoch: int = 0,
    while_waiting: Callable[[float], None] = lambda seconds: None,
) -> Loader[Batch]:
    """A loader that goes through some images, or all, in their order, each time it is iterated.

    Args:
        epoch: a seed of the random crops.
        while_waiting: see `make_loader`.
    """
    batches = EpochBatches(batch_size)
    chosen = range(len(dataset.images)) if images is None else images
    batches.start_epoch(epoch, np.array(chosen, np.int64))
    return make_loader(dataset, batches, workers, device, while_waiting, in_order=True)
