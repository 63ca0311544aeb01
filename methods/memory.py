"""The memory of DeepCluster-v2: the last embeddings of each image, by its index in the data set."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from parallel.collectives import all_reduce, gather_rows, shard_of
from system.errors import InputError

AT_ONCE = 64  # batches that are kept before processes exchange them


class Memory:
    """Embeddings of every image, spread over the processes: each keeps those of its shard.

    Args:
        images: N, number of images of all processes.
        banks: number of embeddings of an image: one for each crop that is clustered.
        dim: d, width of an embedding.
        dtype: float32 or float16.

    Attributes:
        images: N.
        rows: `(n, banks, d)`, of this process's images.
        known: `(n,) bool`, whether an image has embeddings yet.
    """

    def __init__(self, images: int, banks: int, dim: int, dtype: np.dtype[Any]) -> None:
        self.images, self.own = images, shard_of(images)
        self.rows = np.zeros((len(self.own), banks, dim), dtype)
        self.known = np.zeros(len(self.own), bool)
        self._pending: list[tuple[Tensor, Tensor]] = []

    def write(self, index: Tensor, rows: Tensor) -> None:
        """Take the embeddings of a batch. Every process calls it equally often.

        Args:
            index: `(B,) int64` on the CPU, the images.
            rows: `(B, banks, d)` on any device.
        """
        self._pending.append((index, rows))
        if len(self._pending) == AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Bring all embeddings to the processes that keep them."""
        if not self._pending:
            return
        index = gather_rows(torch.cat([index for index, _ in self._pending]).numpy())
        rows = gather_rows(torch.cat([rows for _, rows in self._pending]).float().cpu().numpy())
        here = (index >= self.own.start) & (index < self.own.stop)
        place = index[here] - self.own.start
        self.rows[place], self.known[place] = rows[here], True
        self._pending.clear()

    def bank(self, number: int) -> np.ndarray:
        """`(m, d)`, one embedding of each known image of this process, in data-set order."""
        self.flush()
        return self.rows[self.known, number]

    def draw(self, count: int, number: int, rng: np.random.Generator) -> np.ndarray:
        """`(count, d) float32`, the embeddings in a bank of random known images of all processes,
        the same in each process.

        Raises:
            InputError: fewer images are known.
        """
        self.flush()
        known = np.flatnonzero(gather_rows(self.known))
        if count > len(known):
            raise InputError(
                f"--nmb_prototypes {count}: more clusters than the {len(known)} images that can be "
                "read; give fewer"
            )
        chosen = rng.choice(known, count, replace=False)
        here = (chosen >= self.own.start) & (chosen < self.own.stop)
        found = np.zeros((count, self.rows.shape[2]), np.float32)
        found[here] = self.rows[chosen[here] - self.own.start, number]
        return all_reduce(found)

    def of_all(self, values: np.ndarray) -> np.ndarray:
        """Values `(m,) int64` of the known images of each process → `(N,) int64`, −1 for others."""
        own = np.full(len(self.own), -1, np.int64)
        own[self.known] = values
        return gather_rows(own)

    def to_plain(self) -> dict[str, Tensor]:
        """The rows of all processes, for a checkpoint."""
        self.flush()
        rows, known = gather_rows(self.rows), gather_rows(self.known)
        return {"rows": torch.from_numpy(rows), "known": torch.from_numpy(known)}

    def load(self, plain: dict[str, Tensor]) -> None:
        """Take this process's rows of `to_plain`, whose number of processes may differ."""
        own = slice(self.own.start, self.own.stop)
        self.rows[:], self.known[:] = plain["rows"][own].numpy(), plain["known"][own].numpy()
