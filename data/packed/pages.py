"""The pages of a Parquet column of bytes: where each row's value is, and the values of a page.

https://github.com/apache/parquet-format: page headers, and the encodings PLAIN, RLE and
RLE_DICTIONARY.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.decode import UnreadableImageError
from data.packed.entries import NULL, WHOLE
from data.packed.reading import LARGEST, read_at
from data.packed.thrift import ThriftError, read_struct, read_varint

DATA, DICTIONARY, DATA_2 = 0, 2, 3  # types of pages; another has no values
PLAIN, BY_DICTIONARY = 0, (2, 8)  # encodings
HEADER = 512  # bytes that are read for a header at first
LARGEST_HEADER = 1 << 20
LENGTH = struct.Struct("<I")
MOST_TIMES = 2000  # by which a page may grow: deflate reaches 1032, and images hardly shrink
CODECS = frozenset({"snappy", "gzip", "zstd", "brotli"})

Place = tuple[int, int, int]  # offset, length and part, as in `data.packed.entries.Found`


class DamagedPageError(UnreadableImageError):
    """A page that can't be read."""


@dataclass(frozen=True)
class Column:
    """The pages of a row group's column.

    Attributes:
        start, end: of the pages, in bytes.
        rows: number of rows.
        codec: "" for none.
        levels: the definition level of a value that is not null.
    """

    start: int
    end: int
    rows: int
    codec: str
    levels: int


@dataclass(frozen=True)
class Page:
    """A page's header.

    Attributes:
        offset: of the header; `body` is that of what follows, of `packed` bytes.
        raw: bytes after decompressing.
        count: of values and nulls.
        level_bytes: of a page of version 2, which come before the compressed bytes.
        compressed: whether the values are.
    """

    offset: int
    body: int
    kind: int
    raw: int
    packed: int
    count: int
    encoding: int
    level_bytes: int
    compressed: bool

    @property
    def size(self) -> int:
        """Bytes with the header."""
        return self.body + self.packed - self.offset


@dataclass(frozen=True)
class Values:
    """The values of a page. `starts` `(rows,) int64` has the place of each one's length in
    `content`, −1 for null."""

    content: bytes
    starts: np.ndarray

    def value(self, row: int) -> bytes:
        """One of them.

        Raises:
            DamagedPageError: it is null, or there is no such row.
        """
        if not 0 <= row < len(self.starts) or (start := int(self.starts[row])) < 0:
            raise DamagedPageError("the table has no bytes for it")
        (length,) = LENGTH.unpack_from(self.content, start)
        return self.content[start + 4 : start + 4 + length]


def places(descriptor: int, column: Column) -> Iterator[Place]:
    """Where the value of each row is.

    Raises:
        DamagedPageError: the pages are damaged or of an unknown kind.
    """
    at, left = column.start, column.rows
    dictionary: list[Place] = []
    while left > 0 and at < column.end:
        page = read_page(descriptor, at, column.codec)
        at += page.size
        if page.kind == DICTIONARY:
            dictionary = list(_places(descriptor, page, column))
        elif page.kind in (DATA, DATA_2):
            if page.count > left:
                raise DamagedPageError(f"a page has {page.count} of the last {left} rows")
            left -= page.count
            if page.encoding in BY_DICTIONARY:
                yield from _by_dictionary(descriptor, page, column, dictionary)
            else:
                yield from _places(descriptor, page, column)
    if left:
        raise DamagedPageError(f"its last {left} rows are in no page")


def read_page(descriptor: int, offset: int, codec: str) -> Page:
    """A page's header.

    Raises:
        DamagedPageError: there is none, or none that can be read.
    """
    fields, body = _header(descriptor, offset)
    kind, raw, packed = (_number(fields, number) for number in (1, 2, 3))
    about = fields.get({DATA: 5, DICTIONARY: 7, DATA_2: 8}.get(kind, 0), {})
    if not isinstance(about, dict) or max(raw, packed) > LARGEST:
        raise DamagedPageError("a page's header is damaged, or its page has more than 1 GiB")
    levels, compressed = 0, bool(codec)
    count = encoding = 0
    if kind in (DATA, DICTIONARY, DATA_2):
        count, encoding = _number(about, 1), _number(about, 4 if kind == DATA_2 else 2)
    if kind == DATA_2:
        levels = _number(about, 5)
        compressed = compressed and about.get(7) is not False
        if about.get(6):
            raise DamagedPageError("a page has lists of values")
    if compressed and raw > MOST_TIMES * packed + LARGEST_HEADER:
        raise DamagedPageError(f"a page of {packed:,} bytes claims to have {raw:,}")
    if kind == DICTIONARY and count > raw // LENGTH.size:
        raise DamagedPageError("a dictionary has fewer values than it says")
    known = (*BY_DICTIONARY, PLAIN)
    if encoding not in known:
        raise DamagedPageError(f"a page has the encoding {encoding}, of {known} known ones")
    return Page(offset, offset + body, kind, raw, packed, count, encoding, levels, compressed)


def read_values(descriptor: int, page: Page, column: Column) -> Values:
    """The values of a PLAIN page.

    Raises:
        DamagedPageError: it is damaged.
    """
    present, content = _content(descriptor, page, column)
    starts = np.full(page.count, -1, np.int64)
    at = 0
    for row in np.flatnonzero(present).tolist():
        if at + 4 > len(content):
            raise DamagedPageError("a page ends before its values")
        starts[row] = at
        at += 4 + LENGTH.unpack_from(content, at)[0]
    if at > len(content):
        raise DamagedPageError("a page's last value is cut off")
    return Values(content, starts)


def _places(descriptor: int, page: Page, column: Column) -> Iterator[Place]:
    """The places of a PLAIN page's values: of their bytes, or of rows in a compressed page."""
    if page.compressed:
        yield from ((page.offset, page.size, row) for row in range(page.count))
        return
    present, at = _levels(descriptor, page, column)
    end = page.body + page.packed
    for there in present.tolist():
        if not there:
            yield page.offset, NULL, WHOLE
            continue
        (length,) = LENGTH.unpack(read_at(descriptor, at, 4))
        yield at + 4, length, WHOLE
        at += 4 + length
        if at > end:
            raise DamagedPageError("a value is longer than its page")


def _by_dictionary(
    descriptor: int, page: Page, column: Column, dictionary: list[Place]
) -> Iterator[Place]:
    """The places in the dictionary's page of a page's values."""
    present, content = _content(descriptor, page, column)
    count = int(present.sum())
    chosen = iter(_runs(content[1:], content[0], count).tolist() if count else [])
    for there in present.tolist():
        if not there:
            yield page.offset, NULL, WHOLE
        elif (number := next(chosen)) < len(dictionary):
            yield dictionary[number]
        else:
            raise DamagedPageError("a page refers to more values than its dictionary has")


def _content(descriptor: int, page: Page, column: Column) -> tuple[np.ndarray, bytes]:
    """Whether each row of a page has a value, `(rows,) bool`, and the bytes of its values."""
    if not page.compressed or page.kind == DATA_2:
        present, at = _levels(descriptor, page, column)
        content = read_at(descriptor, at, page.body + page.packed - at)
        raw = page.raw - page.level_bytes
        return present, _decompressed(content, raw, column.codec) if page.compressed else content
    content = read_at(descriptor, page.body, page.packed)
    content = _decompressed(content, page.raw, column.codec)
    if page.kind == DICTIONARY or not column.levels:
        return np.ones(page.count, np.bool_), content
    if len(content) < 4:
        raise DamagedPageError("a page ends before its values")
    end = 4 + LENGTH.unpack_from(content)[0]
    return _present(content[4:end], page.count, column.levels), content[end:]


def _levels(descriptor: int, page: Page, column: Column) -> tuple[np.ndarray, int]:
    """Whether each row has a value, where the levels are not compressed; and where the values
    begin."""
    if page.kind == DICTIONARY or not column.levels:
        return np.ones(page.count, np.bool_), page.body + page.level_bytes
    at, length = page.body, page.level_bytes
    if page.kind == DATA:
        (length,) = LENGTH.unpack(read_at(descriptor, at, 4))
        at += 4
    if not 0 <= length <= page.packed:
        raise DamagedPageError("a page's levels are longer than the page")
    return _present(read_at(descriptor, at, length), page.count, column.levels), at + length


def _present(levels: bytes, count: int, deepest: int) -> np.ndarray:
    return _runs(levels, deepest.bit_length(), count) == deepest


def _runs(data: bytes, width: int, count: int) -> np.ndarray:
    """`count` numbers of `width` bits, `(count,) int64`, in Parquet's mixture of runs and packed
    bits."""
    numbers = np.zeros(count, np.int64)
    at = done = 0
    if width > 32:
        raise DamagedPageError(f"numbers of {width} bits")
    while done < count and width > 0:
        head, at = _varint(data, at)
        if head & 1:
            size = (head >> 1) * width
            bits = np.unpackbits(np.frombuffer(data[at : at + size], np.uint8), bitorder="little")
            groups = bits[: len(bits) // width * width].reshape(-1, width)
            found = groups[: count - done] @ (1 << np.arange(width, dtype=np.int64))
        else:
            size = -(-width // 8)
            value = int.from_bytes(data[at : at + size], "little")
            found = np.full(min(head >> 1, count - done), value, np.int64)
        if not len(found):
            raise DamagedPageError("a page has fewer values than it says")
        numbers[done : done + len(found)] = found
        at, done = at + size, done + len(found)
    return numbers


def _decompressed(content: bytes, size: int, codec: str) -> bytes:
    import pyarrow

    if not 0 <= size <= LARGEST:
        raise DamagedPageError("a page's size is damaged")
    if size == 0:
        return b""
    try:
        return pyarrow.decompress(content, size, codec, asbytes=True)
    except Exception as error:
        raise DamagedPageError(f"a page can't be decompressed: {error}") from error


def _header(descriptor: int, offset: int) -> tuple[dict[int, Any], int]:
    size = HEADER
    while True:
        content = os.pread(descriptor, size, offset)
        try:
            return read_struct(content)
        except ThriftError as error:
            if len(content) < size or size >= LARGEST_HEADER:
                raise DamagedPageError(f"a page's header at byte {offset}: {error}") from error
        size *= 8


def _number(fields: dict[int, Any], number: int) -> int:
    value = fields.get(number)
    if type(value) is not int or value < 0:
        raise DamagedPageError("a page's header lacks a number")
    return value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    try:
        return read_varint(data, at)
    except ThriftError as error:
        raise DamagedPageError("a page has fewer values than it says") from error
