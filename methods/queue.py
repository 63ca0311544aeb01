"""SwAV's queue: embeddings of earlier batches, which make a small batch large enough for
Sinkhorn."""

import numpy as np
import torch
from torch import Tensor

from parallel.collectives import gather_rows, rank, world_size


class Queue:
    """The newest embeddings. Each process keeps those of its own batches.

    Args:
        length: Q, samples over all processes.
        rows: `(q, assign, d)`, the embeddings at the start, of all processes: those of a
            checkpoint, or none.
    """

    def __init__(self, length: int, rows: Tensor) -> None:
        self.length = len(range(rank(), length, world_size()))  # as a batch is shared
        self.rows = rows[rank() :: world_size()][: self.length]

    @property
    def is_full(self) -> bool:
        """Whether it is used. Where images can't be read, some processes may use it some steps
        before others: `sinkhorn` takes any number of rows from each."""
        return len(self.rows) == self.length

    def push(self, rows: Tensor) -> None:
        """Take the embeddings `(B, assign, d)` of a batch, and drop the oldest."""
        self.rows = torch.cat([rows, self.rows.to(rows.device)])[: self.length]

    def to_plain(self) -> Tensor:
        """The rows of all processes, the newest first, for a checkpoint."""
        ages = gather_rows(np.arange(len(self.rows)))
        rows = gather_rows(self.rows.cpu().numpy())
        return torch.from_numpy(rows[np.argsort(ages, kind="stable")])
