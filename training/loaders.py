"""The batches of a run: of central crops, for features, and of training images."""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from torchvision.transforms import v2

from data.batch import Batch, blank_batch
from data.images import ImageList
from data.loader import Loader
from data.loading import EpochBatches, ImageDataset, make_loader
from data.transforms import apply_seeded, central_crop
from parallel.collectives import rank, world_size

Follow = Callable[[float], None]  # as `while_waiting` of `make_loader`


class Loaders:
    """The loaders of this process. Their workers live as long as the run.

    Args:
        view: the transform of training images.
        follow: called while a batch of central crops is waited for.
        follow_training: the same for training images.

    Attributes:
        augmented: batches of training images, which `start` chooses.
        blank: a batch of one blank image.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        images: ImageList,
        view: v2.Transform,
        device: torch.device,
        follow: Follow,
        follow_training: Follow,
    ) -> None:
        central = ImageDataset(images, central_crop(args.size), args.seed, args.decode)
        augmented = ImageDataset(images, view, args.seed, args.decode)
        self._draws = EpochBatches(args.batch, rank(), world_size())
        self._in_order = EpochBatches(args.batch)
        self._central = make_loader(
            central, self._in_order, args.workers, device, follow, in_order=True
        )
        self.augmented = make_loader(augmented, self._draws, args.workers, device, follow_training)
        example = torch.zeros(3, args.size, args.size, dtype=torch.uint8)
        self.blank = blank_batch(apply_seeded(view, example, args.seed))

    def central(self, images: range) -> Loader[Batch]:
        """Batches of the central crops of some images, in order."""
        self._in_order.start_epoch(0, np.array(images, np.int64))
        return self._central

    def start(self, epoch: int, order: np.ndarray, first_batch: int = 0) -> None:
        """Choose the training images, `(M,)` or `(M, 2) int64` as from `Method.draw`, of all
        processes, and the first batch."""
        self._draws.start_epoch(epoch, order, first_batch)
