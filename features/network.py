"""A trained network and the images that it is applied to: the flags that scripts share, and the
checked inputs that they give."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from checkpoints.clusters import clusters_of
from checkpoints.networks import MODEL_HELP, SIZE, open_network
from cluster.clusters import Clusters
from cluster.components import AUTO, Components
from data.decode import limit_pixels
from data.images import IMAGES_HELP, ImageList, find_all_images
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
from data.unreadable import NameUnreadable
from features.forward import Features, compute_features
from models import Network
from models.timm_network import TimmNetwork
from parallel.collectives import shard_of
from system import device, flags
from system.device import Compute, select_compute

DATA_HELP = f"images, of each: {IMAGES_HELP}"
SIZE_HELP = f"side of the input in pixels; left out: as in training or timm's, or {SIZE}"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """`MODEL DIR…`, `--key`, and the flags of reading images and of the forward pass."""
    add = parser.add_argument
    add("model", metavar="MODEL", type=Path, help=MODEL_HELP)
    flags.add_key(parser)
    add("data", metavar="DIR", type=Path, nargs="+", help=DATA_HELP)
    add_size_flag(parser)
    add_pass_flags(parser)


def add_size_flag(parser: argparse.ArgumentParser) -> None:
    """`--size`, which `open_network` takes."""
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
        name: the network's, as `--model` takes it.
        checkpoint, about: as in `Opened`.
        model: on the device, in eval mode.
        images: named by their paths, as by `find_all_images`.
        size: side of the input in pixels.
        dataset: the images in the network's view.
        own: the indices of this process's images.
        loader: goes through these in order.
    """

    name: Path
    checkpoint: dict[str, Any]
    about: dict[str, Any]
    model: Network
    images: ImageList
    size: int
    compute: Compute
    dataset: ImageDataset
    own: range
    loader: DataLoader[Batch]

    @property
    def usual_pca(self) -> Components:
        """Dimensions to whiten features to for clusters; timm's networks give good ones without."""
        return 0 if isinstance(self.model, TimmNetwork) else AUTO

    @property
    def own_clusters(self) -> Clusters | None:
        """The clusters of this network's own features, if the checkpoint has them. Until a run
        ends, its clusters are those of the network at the start of the epoch.

        Raises:
            InputError: they are malformed.
        """
        clusters = clusters_of(self.checkpoint, self.name, self.model.embedding_dim)
        place = self.checkpoint.get("epoch"), self.checkpoint.get("step", 0)
        return clusters if clusters and (clusters.epoch, 0) == place else None

    def features(self, advance: Callable[[int], None]) -> Features:
        """The embeddings of this process's images; unreadable ones are named on stderr."""
        unreadable = NameUnreadable(self.images)
        return compute_features(
            self.loader, self.model, self.own, self.compute, unreadable, advance
        )


def open_inputs(args: argparse.Namespace, images: ImageList | None = None) -> Applied:
    """List the images and read the checkpoint, in this order: timm may have to fetch a network.

    Args:
        images: used in place of `args.data`, with the `reading` of the flags or the checkpoint.

    Raises:
        InputError: naming the flag or file that is wrong.
    """
    compute = select_compute(args.device, args.precision)
    if images is None:  # not all scripts use labels
        images = find_all_images(args.data, vars(args).get("labels"))
    found = open_network(args.model, args.network_key, args.size)
    model, size = found.model.eval(), found.size
    limit_pixels(args.max_pixels)
    images = replace(images, reading=chosen_reading(args, found.settings, args.model))
    warn_of_lost_levels(images)
    own = shard_of(len(images))
    model.to(compute.device).to(memory_format=torch.channels_last)
    dataset = ImageDataset(images, central_crop(size, model.crop), decode=args.decode)
    loader = load_in_order(dataset, args.batch, args.workers, compute.device, own)
    return Applied(
        args.model, found.checkpoint, found.about, model, images, size, compute, dataset, own,
        loader,
    )  # fmt: skip
