"""Feature rows in shards, `features_00042.npy`: the next call computes those that are missing.
At the end all are joined into one file."""

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from system import kept
from system.errors import InputError
from system.files import atomic_write, remove_leftovers, sync, write_text

DTYPES: dict[str, np.dtype] = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4")}
FORMATS = ("npy", "safetensors")
TENSOR = "features"  # its name in a safetensors file
LENGTH = 1024  # images of a shard, rounded down to whole batches


def shard_length(batch: int) -> int:
    """Images of a shard. It holds whole batches, so rows have the same bits with any number of
    processes and after an interruption."""
    return batch * max(LENGTH // batch, 1)


class Shards:
    """The rows of N images in files of `length` images each. A file that exists is whole.

    Args:
        folder: made by `begin`.
        images: N.
        dim: D.
        length: images of a shard; the last one may have fewer.
    """

    def __init__(self, folder: Path, images: int, dim: int, dtype: np.dtype, length: int) -> None:
        self.folder, self.images, self.length = folder, images, length
        self.none = np.empty((0, dim), dtype)

    def __len__(self) -> int:
        return -(-self.images // self.length)

    def images_of(self, number: int) -> range:
        """The indices of a shard's images in the data set."""
        return range(number * self.length, min((number + 1) * self.length, self.images))

    def begin(self, key: kept.Key, copies: int, advice: str = "give another --out") -> None:
        """Make the folder, or find the one that was begun with the same key; called by one process.

        Args:
            copies: how many copies of all rows the disk needs room for.
            advice: what to do if the rows have other settings.

        Raises:
            InputError: the folder's rows have other settings, or the disk has no room.
        """
        record = self.folder / "settings.json"
        remove_leftovers(self.folder)
        if not record.exists():
            if self.folder.is_dir() and any(self.folder.iterdir()):
                raise InputError(f"{self.folder}: holds other programs' files; {advice}")
            free = shutil.disk_usage(self.folder.parent).free
            needed = copies * self.images * self.none.shape[1] * self.none.dtype.itemsize
            if free < needed:
                raise InputError(
                    f"{self.folder.parent}: {self.images:,} rows need {needed / 1e9:.1f} GB, and "
                    f"{free / 1e9:.1f} GB are free"
                )
            self.folder.mkdir(exist_ok=True)
        kept.begin(record, key, advice)

    def missing(self) -> list[int]:
        """The numbers of the shards that have not been written."""
        there = {path.name for path in self.folder.iterdir()}
        return [number for number in range(len(self)) if self._path(number).name not in there]

    def write(self, number: int, rows: np.ndarray, bad: dict[int, str]) -> None:
        """Write a shard: the rows `(n, D)` of its images in order, and the reason for each image
        without a row.

        Raises:
            InputError: the disk is full or fails.
        """
        with naming_disk_errors(self.folder):
            write_text(self._bad(number), json.dumps(bad) + "\n")
            with atomic_write(self._path(number)) as file:
                np.save(file, rows)

    def bad(self, number: int) -> dict[int, str]:
        """The images of a shard that have no row, with the reasons."""
        with kept.continuing(self._bad(number), self._advice(number)):
            reasons = json.loads(self._bad(number).read_text())
            return {int(index): str(reason) for index, reason in reasons.items()}

    def blocks(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:
        """The rows of some shards, `(n, D)` at a time."""
        for number in numbers:
            with kept.continuing(self._path(number), self._advice(number)):
                rows = np.load(self._path(number), allow_pickle=False)
            if len(rows) > 0:
                yield rows

    def _path(self, number: int) -> Path:
        return self.folder / f"features_{number:05d}.npy"

    def _advice(self, number: int) -> str:
        return f"remove {self._path(number)}: the same command computes it again"

    def _bad(self, number: int) -> Path:
        return self.folder / f"bad_{number:05d}.json"


def join(
    path: Path, kind: str, dtype: np.dtype, shape: tuple[int, int], blocks: Iterable[np.ndarray]
) -> None:
    """Write a file of all rows `(N, D)` and sync it to the disk. Memory does not grow with N.

    Args:
        kind: one of FORMATS.
        blocks: the rows, `(n, D)` at a time.

    Raises:
        InputError: the disk is full or fails.
    """
    with naming_disk_errors(path.parent):
        array = path if kind == "npy" else path.with_name("joined.npy")
        about: dict[str, Any] = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        with array.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, about)
            for block in blocks:
                file.write(np.ascontiguousarray(block, dtype).data)
            sync(file)
        if kind == "safetensors":
            joined = np.load(array, mmap_mode="r", allow_pickle=False)
            safetensors.numpy.save_file({TENSOR: joined}, path)
            with path.open("rb+") as file:
                sync(file)


@contextlib.contextmanager
def naming_disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full or failing disk into an InputError."""
    try:
        yield
    except (OSError, safetensors.SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{folder}: cannot write there: {reason}") from error
