"""The order of an epoch's draws: in batches, or in whole pages of containers, which a worker
decompresses at once."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler

from data.batch import Draw
from data.parcel import Parcel, join_parcels
from data.source import Source

MOST = 256  # images of a larger page that a worker gets at once, unless a batch has more


class EpochBatches(Sampler[list[Draw]]):
    """The batches of one epoch, in the order that `start_epoch` sets.

    Args:
        batch_size: images in a batch.
        part, parts: give every `parts`-th image of each batch, starting at number `part`: one
            process's share, which may be empty in the last batch.
    """

    def __init__(self, batch_size: int, part: int = 0, parts: int = 1) -> None:
        self.batch_size, self.part, self.parts = batch_size, part, parts
        self.start_epoch(0, np.empty(0, np.int64))

    def start_epoch(self, epoch: int, order: np.ndarray, first_batch: int = 0) -> None:
        """Set `order`, and the first batch to give.

        Args:
            order: `(M,) int64` image indices, or `(M, 2)`: image indices and quarter turns.
        """
        self.epoch, self.order, self.first_batch = epoch, order, first_batch

    def __iter__(self) -> Iterator[list[Draw]]:
        for start in range(self.first_batch * self.batch_size, len(self.order), self.batch_size):
            stop = min(start + self.batch_size, len(self.order))
            positions = range(start + self.part, stop, self.parts)
            yield [self.draw(at) for at in positions]

    def draw(self, position: int) -> Draw:
        """The draw at a position of the epoch."""
        image, *turns = np.atleast_1d(self.order[position]).tolist()
        return Draw(image, self.epoch, position, *turns)

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size) - self.first_batch


@dataclass(frozen=True)
class Piece:
    """Some draws of a batch. `last`: the batch ends with them."""

    draws: list[Draw]
    last: bool


class WholePages(Sampler[list[Piece]]):
    """The same draws, in tasks for workers that end where a page of a container does, so that no
    two workers decompress one. The pieces of a batch follow each other.

    Args:
        batches: all `parts`; an order `(M,)`.
        source: of the images.
    """

    def __init__(self, batches: EpochBatches, source: Source) -> None:
        self.batches, self._source = batches, source

    def __iter__(self) -> Iterator[list[Piece]]:
        size, end = self.batches.batch_size, len(self.batches.order)
        start = self.batches.first_batch * size
        while start < end:
            stop = self._end(start)
            cuts = [start, *range((start // size + 1) * size, stop, size), stop]
            yield list(itertools.starmap(self._piece, itertools.pairwise(cuts)))
            start = stop

    def _piece(self, start: int, stop: int) -> Piece:
        last = stop % self.batches.batch_size == 0 or stop == len(self.batches.order)
        return Piece([self.batches.draw(at) for at in range(start, stop)], last)

    def _end(self, start: int) -> int:
        """The end of a task: of the last page that ends within a batch's length, or else of the
        first one; but of no page that is too long."""
        size = self.batches.batch_size
        most = max(size, MOST)
        images = self.batches.order[start : start + most + 1]
        ends = 1 + np.flatnonzero(self._source.reads_anew(images)[1:])
        if len(images) <= most:
            ends = np.append(ends, len(images))
        in_time = ends[ends <= size][-1:]
        return start + int([*in_time, *ends, most][0])

    def __len__(self) -> int:
        """The number of batches."""
        return len(self.batches)


class Pieces(Dataset[tuple[bool, Any]]):
    """Taking an item, in a worker, makes a piece of a batch; with whether it is the last one."""

    def __init__(self, dataset: Dataset[Any], collate: Callable[[list[Any]], Any]) -> None:
        self.images = dataset.images  # type: ignore[attr-defined]
        self._dataset, self._collate = dataset, collate

    def __getitem__(self, piece: Piece) -> tuple[bool, Any]:
        return piece.last, self._collate([self._dataset[draw] for draw in piece.draws])


def joined(tasks: Iterable[list[tuple[bool, Any]]]) -> Iterator[Any]:
    """Batches, each put together from its pieces: parcels, or lists."""
    parts: list[Any] = []
    for last, part in itertools.chain.from_iterable(tasks):
        parts.append(part)
        if last:
            whole = isinstance(part, Parcel)
            yield join_parcels(parts) if whole else list(itertools.chain.from_iterable(parts))
            parts = []
