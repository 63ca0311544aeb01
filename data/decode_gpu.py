"""Batches whose JPEGs are decoded, cropped and resized on the GPU.

The workers read files and send the JPEGs on as they are, each with the seed of its crop; what the
GPU cannot decode they decode themselves. The crop is the one that a worker would have made, since
the transforms draw on the CPU wherever the pixels are.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg
from torchvision.transforms import v2

from data.batch import Batch, collate
from data.decode import UnreadableImageError, read_pixels
from data.images import ImageList
from data.transforms import apply_seeded
from system.errors import InputError


class Jpeg(NamedTuple):
    """A file's bytes `(L,) uint8`, and the seed of the crop."""

    data: Tensor
    seed: int


@dataclass
class JpegBatch:
    """The files of the images `index`, one behind the other in `data` (many tensors would cost a
    file descriptor each on their way from the worker), and what the worker has `decoded`."""

    data: Tensor
    lengths: list[int]
    index: list[int]
    seeds: list[int]
    decoded: Batch


class GpuDecodingLoader(DataLoader[Batch]):
    """A loader of an `ImageDataset` with decode "gpu"; its batches have their pixels on the
    device, those that the GPU decoded first."""

    def __init__(self, dataset: Any, device: torch.device, **options: Any) -> None:
        super().__init__(dataset, collate_fn=collate_jpegs, **options)
        self.device = device

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        dataset: Any = self.dataset
        for batch in super().__iter__():
            yield decode_batch(batch, dataset.images, dataset.transform, self.device)


def check_decode(decode: str, device: torch.device) -> None:
    """Check that the run's device can decode.

    Raises:
        InputError: `--decode gpu` without a CUDA GPU, or without its decoder.
    """
    if decode != "gpu":
        return
    if device.type != "cuda":
        raise InputError(
            f"--decode gpu: needs a CUDA GPU, and this run is on {device}; "
            "give --decode auto or --decode pil"
        )
    try:
        decode_jpeg(encode_jpeg(torch.zeros(3, 16, 16, dtype=torch.uint8)), device=device)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"--decode gpu: torchvision cannot decode on {device} ({reason}); give --decode auto"
        ) from error


def collate_jpegs(samples: list[tuple[int, Tensor | str | Jpeg]]) -> Any:
    """A `JpegBatch` of what the workers have read."""
    jpegs = [(index, jpeg) for index, jpeg in samples if isinstance(jpeg, Jpeg)]
    others = [(index, other) for index, other in samples if not isinstance(other, Jpeg)]
    files = [jpeg.data for _, jpeg in jpegs]
    return JpegBatch(
        torch.cat(files) if files else torch.empty(0, dtype=torch.uint8),
        [len(file) for file in files],
        [index for index, _ in jpegs],
        [jpeg.seed for _, jpeg in jpegs],
        collate(others),
    )


def decode_batch(
    batch: JpegBatch, images: ImageList, transform: v2.Transform, device: torch.device
) -> Batch:
    """Decode and crop on the device, and join what the workers decoded."""
    files = list(batch.data.split(batch.lengths))
    samples: list[tuple[int, Tensor | str]] = []
    found = _decode(files, batch.index, images, device)
    for i, image, seed in zip(batch.index, found, batch.seeds, strict=True):
        crop = image if isinstance(image, str) else apply_seeded(transform, image, seed)
        samples.append((i, crop))
    on_device, decoded = collate(samples), batch.decoded
    unreadable = on_device.unreadable | decoded.unreadable
    if len(decoded.index) == 0:
        return Batch(on_device.pixels, on_device.index, unreadable)
    pixels = decoded.pixels.to(device, non_blocking=True)
    if len(on_device.index) == 0:
        return Batch(pixels, decoded.index, unreadable)
    index = torch.cat([on_device.index, decoded.index])
    return Batch(torch.cat([on_device.pixels, pixels]), index, unreadable)


def _decode(
    files: list[Tensor], index: list[int], images: ImageList, device: torch.device
) -> list[Tensor | str]:
    """`(3, H, W) uint8` pixels on the device, or why there are none."""
    try:
        return list(decode_jpeg(files, mode=ImageReadMode.RGB, device=device)) if files else []
    except RuntimeError:  # one file spoils the call, and it is not said which
        return [_read(images, i, device) for i in index]


def _read(images: ImageList, index: int, device: torch.device) -> Tensor | str:
    try:
        with images.open(index) as file:
            return read_pixels(file, images.max_pixels).to(device)
    except UnreadableImageError as error:
        return str(error)
