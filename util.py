"""What users of the original import from `util`, under the names that they know."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import torch

from checkpoints.checkpoint import load_model
from cluster.sampler import UnifLabelSampler
from system.files import atomic_write, explained, in_words, sha256_of, sync
from system.safe_pickle import load_plain

__all__ = ["AverageMeter", "Logger", "UnifLabelSampler", "learning_rate_decay", "load_model"]

EMPTY = pickle.dumps([], protocol=2)  # what a `Logger` begins with


class AverageMeter:
    """A running mean.

    Attributes:
        val: the last value.
        sum, count: of all values, each counted as often as `update` was told.
        avg: sum / count, 0 before the first value.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all values."""
        self.val = self.sum = 0.0
        self.count = 0

    def update(self, val: float, n: int = 1) -> None:
        """Add a value that stands for `n` samples."""
        self.val = val
        self.sum += val * n
        self.count += n

    @property
    def avg(self) -> float:
        return self.sum / self.count if self.count else 0.0


class Logger:
    """A pickle file that holds a list, and to which an item is appended at the item's own cost.

    `pickle.load` gives the list at every moment, also after a crash in the middle of `log`: the new
    item is written behind the pickle's closing STOP byte, where no reader looks, and becomes part
    of the list when that single byte is replaced by the item's first one.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._end: int | None = None
        self._hash = hashlib.sha256()  # of the file up to `_end`

    @property
    def data(self) -> list[Any]:
        """The items so far, read from the file."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            return load_plain(file)

    @property
    def end(self) -> int:
        """Where the list's STOP byte stands in the file; `cut` takes the list back to it."""
        if self._end is None:
            if not self.path.exists():
                with atomic_write(self.path, needed=lambda: len(EMPTY)) as file:
                    file.write(EMPTY)
            with self.path.open("rb") as file:
                load_plain(file)
                self._end = file.tell() - 1
            self._hash = sha256_of(self.path, self._end)
        return self._end

    @property
    def digest(self) -> str:
        """SHA-256 of the file up to `end`: what `ended_at` knows the list by."""
        _ = self.end
        return self._hash.hexdigest()

    def ended_at(self, end: int, digest: str) -> bool:
        """Whether this list, when it was shorter, had this end and this digest."""
        if not self.path.exists() or not 0 <= end < self.path.stat().st_size:
            return False
        return sha256_of(self.path, end).hexdigest() == digest

    def log(self, item: Any) -> None:
        """Append an item made of lists, dicts, strings and numbers.

        Raises:
            OSError: the disk is full, for example; the list is as it was before.
        """
        opcodes = pickle.dumps(item, protocol=2)[2:-1] + pickle.APPEND + pickle.STOP
        end = self.end
        with explained(self.path, lambda: in_words(len(opcodes))), self.path.open("r+b") as file:
            file.truncate(end + 1)  # a crash may have left half an item
            file.seek(end + 1)
            file.write(opcodes[1:])
            sync(file)
            file.seek(end)
            file.write(opcodes[:1])
            sync(file)
        self._end = end + len(opcodes) - 1
        self._hash.update(opcodes[:-1])

    def cut(self, end: int) -> None:
        """Forget the items that were logged after `end` was the list's end."""
        with explained(self.path, lambda: in_words(1)), self.path.open("r+b") as file:
            file.seek(end)
            file.write(pickle.STOP)
            file.truncate(end + 1)
            sync(file)
        self._end, self._hash = end, sha256_of(self.path, end)


def learning_rate_decay(optimizer: torch.optim.Optimizer, t: int, lr_0: float) -> None:
    """Set each group's learning rate to lr_0 / √(1 + lr_0·wd·t) after `t` iterations, wd being the
    group's weight decay (the decay of the paper's linear probes)."""
    for group in optimizer.param_groups:
        group["lr"] = lr_0 / (1 + lr_0 * group["weight_decay"] * t) ** 0.5
