"""Images of any number of bands: NumPy arrays, and with `--channels` TIFF. Three become RGB, each
scaled as grey images are."""

import math
import os
from collections.abc import Sequence
from typing import BinaryIO, Protocol

import numpy as np

from data.grey import Depth, to_bytes
from data.reading import Reading
from data.tiff_bands import TIFF, TiffBands

NPY = b"\x93NUMPY"
FLAG = "--channels R G B"
SIGNED = {"i": "signed ", "f": "float "}


class Bands(Protocol):
    """The bands of an image.

    Attributes:
        count: their number, C.
        size: height and width.
    """

    count: int
    size: tuple[int, int]

    def take(self, chosen: Sequence[int]) -> tuple[np.ndarray, Depth | None]:
        """Some bands as stored, `(H, W, number)`, and their depth; None for 8 unsigned bits."""


class ArrayBands:
    """The bands of a `.npy` file: `(H, W)`, `(H, W, C)` or `(C, H, W)`. Of the first and the last
    axis, the shorter one is that of the bands.

    Raises:
        ValueError: it holds something else, or too little.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.shape, self.fortran, self.dtype = read_npy_header(file)
        self._start, self._file = file.tell(), file
        if not is_image(self.shape, self.dtype):
            raise ValueError(f"holds {self.dtype} of shape {self.shape}, which is no image")
        three = (*self.shape, 1) if len(self.shape) == 2 else self.shape
        self.first = len(self.shape) == 3 and three[0] < three[2]
        self.count = three[0] if self.first else three[2]
        self.size = (three[1], three[2]) if self.first else (three[0], three[1])
        length = math.prod(self.shape) * self.dtype.itemsize
        if file.seek(0, os.SEEK_END) - self._start < length:
            raise ValueError(f"is cut: it has too few bytes for {self.dtype} of {self.shape}")
        self._length = length

    def take(self, chosen: Sequence[int]) -> tuple[np.ndarray, Depth | None]:
        """See `Bands`."""
        self._file.seek(self._start)
        values = np.frombuffer(self._file.read(self._length), self.dtype)
        array = values.reshape(self.shape, order="F" if self.fortran else "C")
        if array.ndim == 2:
            array = array[:, :, None]
        taken = array.transpose(1, 2, 0) if self.first else array
        kind, bits = self.dtype.kind, 8 * self.dtype.itemsize
        native = taken[:, :, list(chosen)].astype(self.dtype.newbyteorder("="))
        if (kind, bits) == ("u", 8):
            return native, None
        if (kind, bits) == ("u", 16):
            return native, Depth("16-bit", np.uint16, 16)
        words = "float" if kind == "f" else f"{SIGNED.get(kind, '')}{bits}-bit"
        return native, Depth(words, native.dtype.type)


def read_npy_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran's order, and type of a `.npy` file; the file is then at its data.

    Raises:
        ValueError: it is damaged, or of an unknown version.
    """
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"is of version {version[0]}.{version[1]} of the npy format; save it anew")


def is_image(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Whether an array may be an image, by its shape and type."""
    return len(shape) in (2, 3) and min(shape) > 0 and dtype.kind in "uif" and dtype.itemsize <= 8


def read_bands(
    file: BinaryIO, reading: Reading, most: int
) -> tuple[np.ndarray, Depth | None] | None:
    """The three bands that are seen as RGB, `(H, W, 3)` as stored, and their depth (None for 8
    unsigned bits). None for images that Pillow decodes.

    Args:
        most: values in the image, at most.

    Raises:
        ValueError: damaged, too large, or without these bands.
    """
    if (bands := bands_of(file, reading)) is None:
        return None
    if (values := math.prod(bands.size) * bands.count) > most:
        raise ValueError(f"{values:,} values in {bands.count} bands, more than --max-pixels {most}")
    return bands.take(_chosen(reading.channels, bands.count))


def bands_of(file: BinaryIO, reading: Reading) -> Bands | None:
    """The bands of a file, not read yet; None for images that Pillow decodes: all but `.npy`, and
    TIFF if `--channels` are given.

    Raises:
        ValueError: damaged.
    """
    file.seek(0)
    start = file.read(len(NPY))
    file.seek(0)
    if start == NPY:
        return ArrayBands(file)
    if reading.channels is not None and start.startswith(TIFF):
        return TiffBands(file.read())
    return None


def rgb_of_bands(values: np.ndarray, depth: Depth | None, reading: Reading) -> np.ndarray:
    """8 bits of the bands of `read_bands`, `(H, W, 3) uint8`.

    Raises:
        ValueError: their type doesn't tell the range, and there is no `--range`.
    """
    return values if depth is None else to_bytes(values, depth, reading.range)


def _chosen(channels: tuple[int, int, int] | None, count: int) -> tuple[int, ...]:
    if channels is None:
        if count not in (1, 3):
            raise ValueError(f"has {count} bands: choose three with {FLAG}, of 0 to {count - 1}")
        return (0, 0, 0) if count == 1 else (0, 1, 2)
    if max(channels) >= count:
        shown = " ".join(map(str, channels))
        raise ValueError(f"has {count} bands, too few for --channels {shown}: 0 to {count - 1}")
    return channels
