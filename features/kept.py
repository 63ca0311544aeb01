"""Embeddings of a data set's central crops that are kept: a later evaluation of the same network,
images and settings reads them from a file."""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from checkpoints.checkpoint import digest_of
from data.batch import Batch
from data.decode import pixel_limit
from data.images import ImageList, content_digest
from data.loading import ImageDataset, load_in_order
from data.transforms import central_crop
from data.unreadable import NameUnreadable
from features.forward import OnInfinite, collect, evaluating, forward_pass
from models import Network
from parallel.collectives import rank, shard_of
from system.device import Compute
from system.errors import InputError
from system.kept import Key, Store
from system.progress import progress

NOWHERE = Store(None)


@dataclass(frozen=True)
class Embedded:
    """The embeddings of one process's share of N images.

    Attributes:
        rows: `(M, D) float16`, of the images that can be read, in data-set order.
        present: `(n,) bool`, whether an image of the share has a row.
        reasons: why the others have none, by their number in the data set.
    """

    rows: np.ndarray
    present: np.ndarray
    reasons: dict[int, str]


@dataclass(frozen=True)
class Pass:
    """How embeddings are computed and kept.

    Attributes:
        size: side of the input in pixels.
        batch: images at a time, in each process.
        workers: processes that read images.
        store: keeps the embeddings, if each image can be read.
        verbose: show progress.
    """

    size: int
    compute: Compute
    batch: int = 256
    workers: int = 4
    store: Store = NOWHERE
    verbose: bool = False

    def embed(
        self,
        model: Network,
        images: ImageList,
        label: str,
        on_infinite: OnInfinite | None = None,
        watch: Callable[[Batch], None] = lambda batch: None,
    ) -> Embedded:
        """Compute the embeddings of this process's images, or find those that were kept. Unreadable
        images are named on stderr.

        Args:
            model: moved to the device.
            label: of the data set, for the progress bar and the file's name.
            on_infinite: as in `forward_pass`.
            watch: called with each batch that is read.
        """
        own = shard_of(len(images))
        key = self._key(model, images.take(own))
        store = self.store if key else NOWHERE
        if kept := store.find(label, key):
            if rank() == 0:
                sys.stderr.write(f"features of {label}: {store.path(label, key)}, kept before\n")
            return Embedded(kept["rows"], np.ones(len(own), bool), {})
        model.to(self.compute.device).to(memory_format=torch.channels_last)
        dataset = ImageDataset(images, central_crop(self.size, model.crop))
        unreadable = NameUnreadable(images)
        loader = load_in_order(dataset, self.batch, self.workers, self.compute.device, own)
        with (
            torch.inference_mode(),
            evaluating(model),
            progress(f"features of {label}", len(own), "images", self.verbose) as advance,
        ):
            steps = forward_pass(
                _watched(loader, watch), model.embedding, model.std, self.compute, unreadable,
                advance, on_infinite=on_infinite,
            )  # fmt: skip
            found = collect(steps, own, model.embedding_dim)
        if found.present.all() and len(own) > 0:
            store.keep(label, key, {"rows": found.rows})
        return Embedded(found.rows, found.present, unreadable.named)

    def _key(self, model: Network, images: ImageList) -> Key:
        """All that the embeddings depend on; empty if an image is missing."""
        if (digest := known_by(images)) is None:
            return {}
        return {
            "features": "embedding of the central crop",
            "network": digest_of(model)[:12],
            "images": digest,
            "size": self.size,
            **conditions(self.compute),
            **images.reading.key,
        }


def _watched(loader: Iterable[Batch], watch: Callable[[Batch], None]) -> Iterator[Batch]:
    for batch in loader:
        watch(batch)
        yield batch


def conditions(compute: Compute) -> Key:
    """Where and how embeddings are computed, as part of a key: the device's type, the precision,
    and the limit of `--max-pixels`."""
    device, most = compute.device.type, pixel_limit()
    return {"device": device, "precision": compute.precision, "max_pixels": most}


def known_by(images: ImageList) -> str | None:
    """The start of `content_digest`, as part of a key; None if an image is missing, which a pass
    over the images will name."""
    try:
        return content_digest(images)[:12]
    except InputError:
        return None
