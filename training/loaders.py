"""The batches of a run: of central crops, for features, and of training images."""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from torchvision.transforms import v2

from data.batch import blank_batch
from data.images import ImageList
from data.loading import EpochBatches, ImageDataset, load_in_order, make_loader
from data.transforms import apply_seeded, central_crop
from parallel.collectives import rank, world_size

Follow = Callable[[float], None]  # as `while_waiting` of `make_loader`


class Loaders:
    """The loaders of this process. Their workers live as long as the run.

    Args:
        view: the transform of training images.
        shard: the images whose features this process computes.
        follow: called while a batch of central crops is waited for.
        follow_training: the same for training images.

    Attributes:
        central: batches of `shard`, in order.
        augmented: batches of training images, which `start` chooses.
        blank: a batch of one blank image.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        images: ImageList,
        view: v2.Transform,
        device: torch.device,
        shard: range,
        follow: Follow,
        follow_training: Follow,
    ) -> None:
        central = ImageDataset(images, central_crop(args.size), args.seed, args.decode)
        augmented = ImageDataset(images, view, args.seed, args.decode)
        self._draws = EpochBatches(args.batch, rank(), world_size())
        self.central = load_in_order(central, args.batch, args.workers, device, shard, 0, follow)
        self.augmented = make_loader(augmented, self._draws, args.workers, device, follow_training)
        example = torch.zeros(3, args.size, args.size, dtype=torch.uint8)
        self.blank = blank_batch(apply_seeded(view, example, args.seed))

    def start(self, epoch: int, order: np.ndarray, first_batch: int = 0) -> None:
        """Choose the training images, `(M,) int64` of all processes, and the first batch."""
        self._draws.start_epoch(epoch, order, first_batch)
