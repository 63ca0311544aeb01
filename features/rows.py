"""Feature rows in one file that many processes fill, and go on filling where they were cut.

What is not whole yet lies in a folder of its own: `rows`, with the header that the final file has
if all images get a row; `settings.json`, what the rows rest on; and for each process
`journal_<rank>.jsonl`, which names images only after their rows have reached the disk.
"""

import contextlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from system import kept
from system.errors import InputError

DTYPES: dict[str, np.dtype] = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4")}
FORMATS = ("npy", "safetensors")
TENSOR = "features"  # its name in a safetensors file


@dataclass(frozen=True)
class RowFormat:
    """How rows are laid out in a file: one of FORMATS, one of DTYPES."""

    kind: str
    dtype: np.dtype

    @property
    def name(self) -> str:
        """Of the final file."""
        return f"features.{self.kind}"

    def header(self, shape: tuple[int, int]) -> bytes:
        """What stands before the rows `(N, D)`, which follow in C order to the end of the file."""
        if self.kind == "npy":
            buffer = io.BytesIO()
            about = {"descr": self.dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(buffer, about)
            return buffer.getvalue()
        # The library writes only arrays that are in memory, whole. The format is public: the
        # length of the JSON in eight bytes, the JSON (padded, so that rows are aligned), the rows.
        tensor = {
            "dtype": f"F{8 * self.dtype.itemsize}",
            "shape": shape,
            "data_offsets": [0, self.size(shape)],
        }
        told = json.dumps({TENSOR: tensor}).encode()
        told += b" " * (-len(told) % 8)
        return len(told).to_bytes(8, "little") + told

    def size(self, shape: tuple[int, int]) -> int:
        """Bytes of the rows."""
        return shape[0] * shape[1] * self.dtype.itemsize


def begin(folder: Path, form: RowFormat, shape: tuple[int, int], settings: dict[str, Any]) -> None:
    """Make the folder of rows that are to come, or find one with the same settings; to be called
    by one process, before any makes a `PartialRows`.

    Args:
        settings: what all rows rest on, as JSON has it.

    Raises:
        InputError: the folder's rows rest on something else, or the disk has no room for them.
    """
    about = folder / "settings.json"
    if about.exists():
        kept.begin(about, settings, "give another --out")
        return
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {"rows"}:
        shutil.rmtree(folder)  # cut before it had begun
    elif folder.exists():
        raise InputError(f"{folder}: is of other origin; remove it, or give another --out")
    free, needed = shutil.disk_usage(folder.parent).free, form.size(shape)
    if free < needed:
        raise InputError(
            f"{folder.parent}: {shape[0]:,} rows need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} "
            "GB are free"
        )
    folder.mkdir()
    header = form.header(shape)
    with (folder / "rows").open("wb") as file:
        file.write(header)
        file.truncate(len(header) + needed)
    kept.begin(about, settings, "give another --out")


class PartialRows:
    """The rows of N images, some of which are done.

    Args:
        folder: that `begin` has made, with the same format and shape.
        name: of this process's journal.

    Attributes:
        done: `(N,) bool`, the images that were done when this was made: those with a row, and the
            bad ones.
        bad: why, by image, for those of them that have none.

    Its methods raise InputError where the disk does not take what they write.

    Raises:
        InputError: the folder's files cannot be read.
    """

    def __init__(self, folder: Path, form: RowFormat, shape: tuple[int, int], name: str) -> None:
        self.folder, self.form, self.shape = folder, form, shape
        self.done = np.zeros(shape[0], bool)
        self.bad: dict[int, str] = {}
        self._start = len(form.header(shape))
        try:
            for journal in sorted(folder.glob("journal_*.jsonl")):
                self._take(journal.read_text())
            self._rows = (folder / "rows").open("r+b")
            self._journal = (folder / f"journal_{name}.jsonl").open("ab")
        except OSError as error:
            raise InputError(f"{folder}: cannot go on with it: {error.strerror}") from error

    def write(self, index: np.ndarray, rows: np.ndarray) -> None:
        """Put rows `(B, D)` into the places of images `(B,)`, ascending."""
        # Written, and not mapped into memory: of a page at the edge of two processes' shares, on a
        # network's disk, each would write all.
        offset = 0
        with _refusing(self.folder):
            for first, stop in runs(index):
                part = rows[offset : offset + stop - first]
                self._rows.seek(self._start + first * self.form.size((1, self.shape[1])))
                self._rows.write(np.ascontiguousarray(part, self.form.dtype).data)
                offset += len(part)

    def commit(self, done: np.ndarray, bad: dict[int, str]) -> None:
        """Take down that images `(M,)`, ascending, are done, and which of them are bad; their rows
        reach the disk before."""
        record = json.dumps({"done": runs(done), "bad": bad})
        with _refusing(self.folder):
            _sync(self._rows)
            # a line of its own, also after one that was cut
            self._journal.write(f"\n{record}\n".encode())
            _sync(self._journal)

    def rows(self) -> np.memmap:
        """All rows `(N, D)`, to be read; those of bad images are zero."""
        path = self.folder / "rows"
        return np.memmap(path, self.form.dtype, "r", offset=self._start, shape=self.shape)

    def _take(self, journal: str) -> None:
        for line in journal.split("\n"):
            # blank, or cut
            with contextlib.suppress(
                ValueError, TypeError, KeyError, AttributeError, RecursionError
            ):
                record = json.loads(line)
                bad = {int(index): str(reason) for index, reason in record["bad"].items()}
                for first, stop in record["done"]:
                    self.done[first:stop] = True
                self.bad |= bad


def write_rows(
    path: Path, form: RowFormat, shape: tuple[int, int], blocks: Iterable[np.ndarray]
) -> None:
    """Write a file of rows that come in blocks `(n, D)`, N in all, and let them reach the disk."""
    with _refusing(path.parent), path.open("wb") as file:
        file.write(form.header(shape))
        for block in blocks:
            file.write(np.ascontiguousarray(block, form.dtype).data)
        _sync(file)


def runs(index: np.ndarray) -> list[tuple[int, int]]:
    """Ascending numbers as ranges: `[3, 4, 5, 9]` → `[(3, 6), (9, 10)]`."""
    if len(index) == 0:
        return []
    parts = np.split(index, np.flatnonzero(np.diff(index) != 1) + 1)
    return [(int(part[0]), int(part[-1]) + 1) for part in parts]


@contextlib.contextmanager
def _refusing(folder: Path) -> Iterator[None]:
    """A disk that is full is bad input, too."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{folder}: cannot write there: {error.strerror}") from error


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
