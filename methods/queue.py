"""SwAV's queue: embeddings of earlier batches, which make a small batch large enough for
Sinkhorn."""

import torch
from torch import Tensor

from parallel.collectives import gather_rows, shard_of


class Queue:
    """The newest embeddings. Each process keeps those of its own batches.

    Args:
        length: Q, samples over all processes.
        rows: `(q, assign, d)`, the embeddings at the start, of all processes: those of a
            checkpoint, or none.
    """

    def __init__(self, length: int, rows: Tensor) -> None:
        own, there = shard_of(length), shard_of(len(rows))
        self.length, self.rows = len(own), rows[there.start : there.stop]

    @property
    def is_full(self) -> bool:
        return len(self.rows) == self.length

    def push(self, rows: Tensor) -> None:
        """Take the embeddings `(B, assign, d)` of a batch, and drop the oldest."""
        self.rows = torch.cat([rows, self.rows.to(rows.device)])[: self.length]

    def to_plain(self) -> Tensor:
        """The rows of all processes, for a checkpoint."""
        return torch.from_numpy(gather_rows(self.rows.cpu().numpy()))
