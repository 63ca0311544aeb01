"""A trained network and the images that it is applied to: the flags that scripts share, and the
checked inputs that they give."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from checkpoints.checkpoint import model_of, read_checkpoint
from checkpoints.clusters import clusters_of
from cluster.clusters import Clusters
from data.decode import limit_pixels
from data.images import IMAGES_HELP, ImageList, NameUnreadable, find_all_images
from data.levels import warn_of_lost_levels
from data.loading import (
    Batch,
    ImageDataset,
    add_decode_flag,
    add_max_pixels_flag,
    load_in_order,
)
from data.reading import add_reading_flags, chosen_reading
from data.transforms import central_crop
from features.forward import Features, compute_features
from models import ConvNet, check_size
from parallel.collectives import shard_of
from system import device, flags
from system.device import Compute, select_compute
from system.errors import InputError

SIZE = 224  # side of the input if the checkpoint has none
LARGEST = 10_000
DATA_HELP = f"images, of each: {IMAGES_HELP}"
SIZE_HELP = f"side of the input in pixels; left out: as in training, or {SIZE}"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """`MODEL DIR…`, `--key`, and the flags of reading images and of the forward pass."""
    add = parser.add_argument
    add("model", metavar="MODEL", type=Path, help="checkpoint of a network")
    flags.add_key(parser)
    add("data", metavar="DIR", type=Path, nargs="+", help=DATA_HELP)
    add_size_flag(parser)
    add_pass_flags(parser)


def add_size_flag(parser: argparse.ArgumentParser) -> None:
    """`--size`, which `input_size` takes."""
    flags.add_size(parser, None, SIZE_HELP)


def add_pass_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of reading images and of the forward pass, without `--size`."""
    flags.add_batch(parser, 256, "images at a time")
    flags.add_workers(parser)
    add_decode_flag(parser)
    add_max_pixels_flag(parser)
    add_reading_flags(parser)
    device.add_flags(parser)


@dataclass(frozen=True)
class Applied:
    """A network and images, checked.

    Attributes:
        file: the checkpoint's.
        checkpoint: as `read_checkpoint` returns it.
        model: on the device, in eval mode.
        images: named by their paths, as by `find_all_images`.
        size: side of the input in pixels.
        dataset: the images in the network's view.
        own: the indices of this process's images.
        loader: goes through these in order.
    """

    file: Path
    checkpoint: dict[str, Any]
    model: ConvNet
    images: ImageList
    size: int
    compute: Compute
    dataset: ImageDataset
    own: range
    loader: DataLoader[Batch]

    @property
    def own_clusters(self) -> Clusters | None:
        """The clusters of this network's own features, if the checkpoint has them. Until a run
        ends, its clusters are those of the network at the start of the epoch.

        Raises:
            InputError: they are malformed.
        """
        clusters = clusters_of(self.checkpoint, self.file, self.model.embedding_dim)
        place = self.checkpoint.get("epoch"), self.checkpoint.get("step", 0)
        return clusters if clusters and (clusters.epoch, 0) == place else None

    def features(self, advance: Callable[[int], None]) -> Features:
        """The embeddings of this process's images; unreadable ones are named on stderr."""
        unreadable = NameUnreadable(self.images)
        return compute_features(
            self.loader, self.model, self.own, self.compute, unreadable, advance
        )


def open_inputs(args: argparse.Namespace, images: ImageList | None = None) -> Applied:
    """Read the checkpoint and list the images.

    Args:
        images: used in place of `args.data`, with the `reading` of the flags or the checkpoint.

    Raises:
        InputError: naming the flag or file that is wrong.
    """
    compute = select_compute(args.device, args.precision)
    checkpoint = read_checkpoint(args.model, args.network_key)
    model = model_of(checkpoint, args.model).eval()
    size = input_size(args.size, checkpoint)
    check_size(model.arch, size)
    limit_pixels(args.max_pixels)
    reading = chosen_reading(args, checkpoint.get("settings", {}), args.model)
    if images is None:  # not all scripts use labels
        images = find_all_images(args.data, vars(args).get("labels"))
    images = replace(images, reading=reading)
    warn_of_lost_levels(images)
    own = shard_of(len(images))
    model.to(compute.device).to(memory_format=torch.channels_last)
    dataset = ImageDataset(images, central_crop(size), decode=args.decode)
    loader = load_in_order(dataset, args.batch, args.workers, compute.device, own)
    return Applied(args.model, checkpoint, model, images, size, compute, dataset, own, loader)


def input_size(size: int | None, checkpoint: dict[str, Any]) -> int:
    """The side of the input in pixels: `--size`, or else that of the checkpoint's training.

    Raises:
        InputError: the checkpoint's size is not a possible one.
    """
    found = size or checkpoint.get("settings", {}).get("size", SIZE)
    if type(found) is not int or not 1 <= found <= LARGEST:
        raise InputError(f"--size: the checkpoint has {found!r}; give 1 to {LARGEST} pixels")
    return found
