"""Labelled images as rows, by a network or as raw pixels, and the measures of these rows."""

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import numpy as np
import torch
from torch import nn

from data.batch import Batch
from data.coded import coded
from data.images import ImageList
from data.labelled import Labelled, check_readable
from data.loading import ImageDataset, load_in_order
from data.transforms import central_crop
from data.unreadable import NameUnreadable
from evaluation.learned import measures, raw_pixels
from features.forward import raise_on_infinite
from features.kept import Pass
from models import Network
from parallel.collectives import all_reduce, shard_of
from system.errors import InputError
from system.progress import progress

# Images and their split's name → their rows `(M, D)`, which can be read, `(N,) bool`, and why the
# others can't
Embed = Callable[[ImageList, str], tuple[np.ndarray, np.ndarray, Iterable[str]]]


def embed_by(model: Network, by: Pass) -> Embed:
    """By a network; raises InputError where its features are not finite."""

    def embed(images: ImageList, split: str) -> tuple[np.ndarray, np.ndarray, Iterable[str]]:
        found = by.embed(model, images, split, raise_on_infinite(images))
        return found.rows, found.present, found.reasons.values()

    return embed


def embed_pixels(by: Pass) -> Embed:
    """By raw pixels of the central crop, without a network."""

    def embed(images: ImageList, split: str) -> tuple[np.ndarray, np.ndarray, Iterable[str]]:
        dataset, found = ImageDataset(images, central_crop(by.size)), _Pixels(len(images))
        unreadable = NameUnreadable(images)
        loader = load_in_order(dataset, by.batch, by.workers, torch.device("cpu"))
        with progress(f"pixels of {split}", len(images), "images", by.verbose) as advance:
            for batch in loader:
                unreadable(batch.unreadable)
                found.add(batch)
                advance(len(batch.index) + len(batch.unreadable))
        return found.rows, found.readable, unreadable.named.values()

    return embed


def embed_together(networks: Sequence[Network], by: Pass) -> list[Embed]:
    """`embed_pixels`, and `embed_by` for each network, which read a split's images once for all of
    them. The networks take the same input; `by` keeps nothing."""
    joined = SideBySide(networks)
    ends = list(itertools.accumulate(network.embedding_dim for network in networks))
    kept: dict[str, tuple[list[np.ndarray], np.ndarray, Iterable[str]]] = {}

    def read(images: ImageList, split: str) -> None:
        pixels = _Pixels(len(images))
        found = by.embed(joined, images, split, raise_on_infinite(images), pixels.add)
        rows = [pixels.rows, *np.split(found.rows, ends[:-1], axis=1)]
        kept[split] = rows, found.present, found.reasons.values()

    def embed(
        number: int, images: ImageList, split: str
    ) -> tuple[np.ndarray, np.ndarray, Iterable[str]]:
        if split not in kept:
            read(images, split)
        rows, readable, reasons = kept[split]
        return rows[number], readable, reasons

    return [functools.partial(embed, number) for number in range(1 + len(networks))]


class SideBySide(Network):
    """Networks that take the same input as one, whose embedding is theirs one after the other."""

    def __init__(self, networks: Sequence[Network]) -> None:
        super().__init__("side by side", sum(network.embedding_dim for network in networks))
        self.networks = nn.ModuleList(networks)
        ((self.std, self.crop),) = {(network.std, network.crop) for network in networks}

    def embedding(self, x: torch.Tensor) -> torch.Tensor:
        networks = cast(Iterable[Network], self.networks)
        return torch.cat([network.embedding(x) for network in networks], dim=1)


class _Pixels:
    """Raw pixels of the batches of N images, which come in order."""

    def __init__(self, count: int) -> None:
        self.readable = np.zeros(count, bool)
        self._found: list[np.ndarray] = []

    def add(self, batch: Batch) -> None:
        if len(batch.index) > 0:
            self.readable[batch.index.numpy()] = True
            self._found.append(raw_pixels(batch.pixels.numpy()))

    @property
    def rows(self) -> np.ndarray:
        """`(M, 3·s·s) float32`, of the readable images in data-set order."""
        return np.concatenate(self._found) if self._found else np.empty((0, 3), np.float32)


def judge(
    embed: Embed, train: ImageList, val: ImageList, k: int | None, seed: int
) -> tuple[dict[str, np.ndarray], int]:
    """The `measures` of an embedding of labelled images, and the number of readable train images.
    A val image that cannot be read counts as a mistake.

    Raises:
        InputError: too many images cannot be read; or train has fewer readable images than
            clusters, or of one label only.
    """
    train_rows, readable, reasons = embed(train, "train")
    check_readable(len(train) - len(train_rows), len(train), "train on", reasons)
    train_labels = _labels(train)[readable]
    if k is not None and len(train_rows) < max(k, 2):
        raise InputError(
            f"{train.root}: {len(train_rows)} readable images, fewer than the run's {k} clusters; "
            "give --data with more"
        )
    if len(set(train_labels)) < 2:
        raise InputError(
            f"{train.root}: readable images of fewer than 2 labels; give --data with more"
        )
    val_rows, readable, reasons = embed(val, "val")
    check_readable(len(val) - len(val_rows), len(val), "validate on", reasons)
    val_labels = _labels(val)[readable]
    found = measures(train_rows, train_labels, val_rows, val_labels, k, seed)
    return {name: _of_all(each, readable) for name, each in found.items()}, len(train_rows)


def _of_all(samples: np.ndarray, readable: np.ndarray) -> np.ndarray:
    """An accuracy's samples `(M,) bool` of the readable val images as those of all, `(N,) bool`;
    other samples as they are."""
    if samples.dtype != bool:
        return samples
    right = np.zeros(len(readable), bool)
    right[readable] = samples
    return right


def _labels(images: ImageList) -> np.ndarray:
    """`(N,)` texts."""
    labels = coded(images.folders)
    return np.array(labels.texts, np.str_)[labels.numbers]


def rows_of_share(
    model: Network, by: Pass, split: Labelled, label: str, use: str
) -> tuple[np.ndarray, np.ndarray]:
    """The embeddings `(M, D) float16` and labels `(M,) int64` of this process's readable images of
    a split. All processes call it together.

    Args:
        use: of the images, for the message, such as "compare with".

    Raises:
        InputError: too many images cannot be read.
    """
    found, own = by.embed(model, split.images, label), shard_of(len(split.images))
    readable = int(all_reduce(np.array([len(found.rows)]))[0])
    count = len(split.images)
    check_readable(count - readable, count, use, found.reasons.values())
    return found.rows, split.labels[own.start : own.stop][found.present]
