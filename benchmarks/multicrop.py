"""Images per second of multi-crop, from JPEG files to batches, each image decoded once for all its
crops; beside decoding it again for each crop."""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.photos import add_images_flag, write_photos
from benchmarks.timing import add_rounds_flag, timed
from data.images import ImageList, find_images
from data.loading import Draw, ImageDataset, Sample, add_decode_flag, load_in_order
from data.multicrop import Crops, MultiCrop, add_crop_flags, crops_of
from system import flags
from system.device import select_compute


class DecodedForEachCrop(ImageDataset):
    """The plain way: an image is opened and decoded again for each of its crops."""

    def __init__(self, images: ImageList, crops: Crops, blur: str, decode: str) -> None:
        views = [
            MultiCrop(Crops((1,), (size,), (least,), (most,)), blur)
            for count, size, least, most in zip(*crops, strict=True)
            for _ in range(count)
        ]
        self.parts = [ImageDataset(images, view, n, decode) for n, view in enumerate(views)]
        super().__init__(images, views[0], decode=decode)

    def __getitem__(self, draw: Draw) -> Sample:
        crops = [part[draw][1] for part in self.parts]
        return draw, torch.cat([crop for crop in crops if isinstance(crop, Tensor)])


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print images per second of both ways, and their ratio. Returns the same as a dict."""
    crops = crops_of(args)
    kinds = " + ".join(f"{n} × {size}" for n, size in crops.resolutions)
    sys.stdout.write(
        f"{args.images} photos of 500 × 375, crops {kinds}, blur {args.blur}, batch {args.batch}, "
        f"{args.workers} workers\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        write_photos(Path(folder), args.images)
        rates = measure(find_images(Path(folder)), crops, args)
    ratio = rates["decoded once"] / rates["decoded for each crop"]
    lines = [f"{name:24}{rate:10.1f} images/s" for name, rate in rates.items()]
    sys.stdout.write("\n".join([*lines, f"{'ratio':24}{ratio:10.2f}"]) + "\n")
    return {"images_per_second": rates, "ratio": ratio}


def measure(images: ImageList, crops: Crops, args: argparse.Namespace) -> dict[str, float]:
    """Images per second of each way: the median of rounds in which the ways take turns."""
    datasets = {
        "decoded once": ImageDataset(images, MultiCrop(crops, args.blur), decode=args.decode),
        "decoded for each crop": DecodedForEachCrop(images, crops, args.blur, args.decode),
    }
    device = select_compute(args.device).device
    loaders = {
        name: load_in_order(dataset, args.batch, args.workers, device)
        for name, dataset in datasets.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(1 + args.rounds):  # the first starts the workers
        for name, loader in loaders.items():
            seconds[name].append(timed(list, (None for _ in loader)).seconds)
    return {name: len(images) / float(np.median(each[1:])) for name, each in seconds.items()}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `run`, except the device."""
    add_images_flag(parser, 256)
    add_crop_flags(parser)
    flags.add_batch(parser, 64)
    flags.add_workers(parser, 2)
    add_rounds_flag(parser)
    add_decode_flag(parser)
