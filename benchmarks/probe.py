"""Linear classifiers on conv layers of a frozen network, trained from JPEG files: on each layer
alone, and on all layers at once with one forward pass.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.photos import add_images_flag, write_photos
from benchmarks.timing import add_rounds_flag, number, timed
from data.images import find_images
from data.loading import EpochBatches, ImageDataset, make_loader
from data.transforms import probe_crop
from evaluation.linear import Heads, train_epoch
from models import ConvNet, add_arch_flag, untrained
from models.frozen import frozen
from system import cli, flags
from system.device import Compute, add_precision_flag, select_compute

SIZE = 224


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print a line for each layer and for all. Returns the same as a dict."""
    compute = select_compute(args.device, args.precision)
    model = untrained(args.arch, True, 2, seed=0).to(compute.device)
    model.to(memory_format=torch.channels_last)
    each = range(1, model.conv_layers + 1)
    ways = {f"conv{layer}": [layer] for layer in each} | {"all": list(each)}
    sys.stdout.write(
        f"{args.arch}, {args.images} photos, {args.classes} classes, batch {args.batch}; "
        f"{compute.device} in {compute.precision}, {torch.get_num_threads()} threads\n"
    )
    with tempfile.TemporaryDirectory() as folder, frozen(model):
        write_photos(Path(folder), args.images)
        epochs = {
            name: epoch_of(model, layers, folder, args, compute) for name, layers in ways.items()
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(1 + args.rounds):
            for name, epoch in epochs.items():
                seconds[name].append(timed(epoch).seconds)
    medians = {name: float(np.median(times[1:])) for name, times in seconds.items()}
    sys.stdout.write(f"{'layers':8}{'images/s':>10}{'time of all':>14}\n")
    for name, median in medians.items():
        ratio = medians["all"] / median
        sys.stdout.write(f"{name:8}{number(args.images / median, 10, 1)}{number(ratio, 13, 2)}×\n")
    return {"seconds": medians}


def epoch_of(
    model: ConvNet, layers: list[int], folder: str, args: argparse.Namespace, compute: Compute
) -> Callable[[], None]:
    """A function that trains on some layers for an epoch."""
    images = find_images(folder)
    heads = Heads(model, layers, args.classes, SIZE, seed=0).to(compute.device)
    optimizer = torch.optim.SGD(heads.parameters(), 0.01, 0.9, fused=True)
    labels = torch.arange(len(images), device=compute.device) % args.classes
    batches = EpochBatches(args.batch)
    dataset = ImageDataset(images, probe_crop(SIZE))
    loader = make_loader(dataset, batches, args.workers, compute.device)

    def train() -> None:
        batches.start_epoch(0, np.arange(len(images)))
        train_epoch(
            model, heads, optimizer, loader, labels, compute, set_rate=lambda batch: None,
            on_unreadable=lambda unreadable: None, advance=lambda done: None,
        )  # fmt: skip

    return train


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `run`, except the device."""
    add_arch_flag(parser)
    add_images_flag(parser)
    classes_help = "number of classes"
    parser.add_argument("--classes", type=cli.whole_number(2), default=1000, help=classes_help)
    flags.add_batch(parser, 64, least=2)
    flags.add_workers(parser, 2)
    add_rounds_flag(parser)
    add_precision_flag(parser)
