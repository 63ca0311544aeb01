"""The bands of a TIFF, any number of them.

Pillow reads four bands at most. So its directory is written anew as that of a grey image: a single
band where each has its own strips, or else all bands side by side, C times as wide. Then Pillow
decodes all that it decodes of grey images.
"""

import io
import struct
from collections.abc import Sequence

import numpy as np
from PIL import Image, UnidentifiedImageError

from data.grey import Depth, depth_of, values_of

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how a file begins
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262  # tags
SAMPLES, PLANAR, PREDICTOR, TILE_WIDTH, FORMAT = 277, 284, 317, 322, 339
OFFSETS = (273, 279, 324, 325)  # of strips and tiles, and their lengths
KEPT = {WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, 266, SAMPLES, 278, PLANAR, PREDICTOR,
        TILE_WIDTH, 323, FORMAT, *OFFSETS}  # fmt: skip
LENGTHS = {1: 1, 3: 2, 4: 4, 16: 8}  # bytes of a value, by its type: BYTE, SHORT, LONG, LONG8
CODES = {1: "B", 3: "H", 4: "I", 16: "Q"}
BYTEWISE = {1, 5, 8, 32773, 32946, 34925, 50000}  # compressions that don't know what a pixel is
APART, DIFFERENCES = 2, 2  # a planar configuration and a predictor
MOST_TAGS = 4096


class TiffBands:
    """The bands of a TIFF, see `data.bands.Bands`.

    Raises:
        ValueError: it is damaged, or its bands can't be read.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._order = "<" if content.startswith(b"II") else ">"
        self._big = content[2:4] in (b"+\0", b"\0+")
        try:
            self._tags = self._read_tags()
            self.size = self._value(HEIGHT), self._value(WIDTH)
        except (struct.error, KeyError, IndexError) as error:
            raise ValueError("its TIFF directory is damaged") from error
        self.count = self._value(SAMPLES, 1)
        if self.count < 1 or min(self.size) < 1:
            raise ValueError("its TIFF directory is damaged")
        if len(set(self._values(BITS))) > 1 or len(set(self._values(FORMAT))) > 1:
            raise ValueError("its bands are of different types")
        self._apart = self._value(PLANAR, 1) == APART and self.count > 1
        self._predictor = self._value(PREDICTOR, 1)
        if not self._apart and self.count > 1:
            if (number := self._value(COMPRESSION, 1)) not in BYTEWISE:
                raise ValueError(f"--channels does not read bands of TIFF compression {number}")
            whole = self._value(BITS, 1) in (8, 16, 32) and self._value(FORMAT, 1) != 3
            if self._predictor > DIFFERENCES or (self._predictor == DIFFERENCES and not whole):
                raise ValueError(
                    f"--channels does not read such bands of TIFF predictor {self._predictor}; "
                    "save it without a predictor"
                )

    def take(self, chosen: Sequence[int]) -> tuple[np.ndarray, Depth | None]:
        """See `data.bands.Bands`."""
        if self._apart:
            found = [self._decode(self._one_band(band)) for band in chosen]
            return np.stack([values for values, _ in found], axis=2), found[0][1]
        values, depth = self._decode(self._side_by_side())
        values = values.reshape(*self.size, self.count)
        if self._predictor == DIFFERENCES and self.count > 1:
            values = self._summed(values)
        return values[:, :, list(chosen)], depth

    def _read_tags(self) -> dict[int, tuple[int, bytes]]:
        """The type and the values' bytes of each tag that is kept."""
        word, size, many = ("Q", 8, "Q") if self._big else ("I", 4, "H")
        (at,) = struct.unpack_from(self._order + word, self._content, size)
        (count,) = struct.unpack_from(self._order + many, self._content, at)
        start, length = at + struct.calcsize(many), 4 + 2 * size
        tags = {}
        for entry in range(min(count, MOST_TAGS)):
            here = start + entry * length
            tag, kind, number = struct.unpack_from(f"{self._order}HH{word}", self._content, here)
            if tag not in KEPT:
                continue
            total, place = LENGTHS[kind] * number, here + 4 + size
            if total > size:
                (place,) = struct.unpack_from(self._order + word, self._content, place)
            if place + total > len(self._content):
                raise IndexError(tag)
            tags[tag] = kind, self._content[place : place + total]
        return tags

    def _values(self, tag: int) -> tuple[int, ...]:
        kind, values = self._tags.get(tag, (1, b""))
        return struct.unpack(f"{self._order}{len(values) // LENGTHS[kind]}{CODES[kind]}", values)

    def _value(self, tag: int, otherwise: int | None = None) -> int:
        values = self._values(tag)
        if not values and otherwise is None:
            raise KeyError(tag)
        return values[0] if values else otherwise or 0

    def _one_band(self, band: int) -> dict[int, tuple[int, bytes]]:
        """The tags of a band that has strips or tiles of its own."""
        tags = dict(self._tags)
        for tag in OFFSETS:
            if tag in tags:
                kind, values = tags[tag]
                share = len(values) // self.count
                tags[tag] = kind, values[band * share : (band + 1) * share]
        return tags

    def _side_by_side(self) -> dict[int, tuple[int, bytes]]:
        """The tags of a grey image in which a pixel's bands are pixels."""
        tags = dict(self._tags)
        for tag in (WIDTH, TILE_WIDTH):
            if tag in tags:
                tags[tag] = 4, struct.pack(self._order + "I", self._value(tag) * self.count)
        if self.count > 1:
            tags.pop(PREDICTOR, None)
        return tags

    def _decode(self, tags: dict[int, tuple[int, bytes]]) -> tuple[np.ndarray, Depth | None]:
        """The values `(H, W)` of a grey image with these tags."""
        white_is_low = self.count == 1 and self._value(PHOTOMETRIC, 1) == 0
        one = {SAMPLES: 1, PHOTOMETRIC: int(not white_is_low), PLANAR: 1}
        one |= {BITS: self._value(BITS, 1), FORMAT: self._value(FORMAT, 1)}
        tags = {**tags, **{tag: (3, struct.pack(self._order + "H", n)) for tag, n in one.items()}}
        try:
            with Image.open(io.BytesIO(self._rewritten(tags)), formats=["TIFF"]) as image:
                image.load()
                depth = depth_of(image)
                return (np.asarray(image) if depth is None else values_of(image, depth)), depth
        except UnidentifiedImageError as error:
            kind = {2: "signed ", 3: "float "}.get(one[FORMAT], "")
            raise ValueError(f"Pillow does not read bands of {kind}{one[BITS]} bits") from error

    def _rewritten(self, tags: dict[int, tuple[int, bytes]]) -> bytes:
        """The file with another directory, behind its content."""
        word, size, many = ("Q", 8, "Q") if self._big else ("I", 4, "H")
        content = bytearray(self._content + bytes(-len(self._content) % 8))
        place = {}
        for tag, (_, values) in tags.items():
            if len(values) > size:
                place[tag] = struct.pack(self._order + word, len(content))
                content += values + bytes(-len(values) % 8)
        content[size : 2 * size] = struct.pack(self._order + word, len(content))
        content += struct.pack(self._order + many, len(tags))
        for tag, (kind, values) in sorted(tags.items()):
            content += struct.pack(
                f"{self._order}HH{word}", tag, kind, len(values) // LENGTHS[kind]
            )
            content += place.get(tag, values).ljust(size, b"\0")
        return bytes(content + bytes(size))

    def _summed(self, values: np.ndarray) -> np.ndarray:
        """Undo the differences between neighbours, which begin anew in each tile."""
        width, length = self._value(TILE_WIDTH, self.size[1]), self._value(BITS) // 8
        unsigned = values.astype(f"u{length}")  # Pillow's arrays may be wider; sums wrap
        parts = [
            unsigned[:, start : start + width].cumsum(axis=1, dtype=unsigned.dtype)
            for start in range(0, self.size[1], width)
        ]
        whole = np.concatenate(parts, axis=1)
        return (whole.view(f"i{length}") if self._value(FORMAT, 1) == 2 else whole).astype(
            values.dtype
        )
