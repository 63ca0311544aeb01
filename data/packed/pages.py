"""The pages of a Parquet column of bytes: where each row's value is, and the values of a page.

https://github.com/apache/parquet-format: the encodings PLAIN, RLE and RLE_DICTIONARY.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data.packed.entries import NULL, WHOLE
from data.packed.page_headers import (
    BY_DICTIONARY,
    DATA,
    DATA_2,
    DICTIONARY,
    LENGTH,
    DamagedPageError,
    Page,
    read_page,
)
from data.packed.reading import LARGEST, read_at
from data.packed.thrift import ThriftError, read_varint

CODECS = frozenset({"snappy", "gzip", "zstd", "brotli"})

Place = tuple[int, int, int]  # offset, length and part, as in `data.packed.entries.Found`


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
            if page.count > column.rows:
                raise DamagedPageError("a dictionary has more values than the file has rows")
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


def _varint(data: bytes, at: int) -> tuple[int, int]:
    try:
        return read_varint(data, at)
    except ThriftError as error:
        raise DamagedPageError("a page has fewer values than it says") from error
