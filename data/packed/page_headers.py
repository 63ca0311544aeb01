"""The headers of a Parquet column's pages.

https://github.com/apache/parquet-format
"""

import os
import struct
from dataclasses import dataclass
from typing import Any

from data.decode import UnreadableImageError
from data.packed.reading import LARGEST
from data.packed.thrift import ThriftError, read_struct

DATA, DICTIONARY, DATA_2 = 0, 2, 3  # types of pages; another has no values
PLAIN, BY_DICTIONARY = 0, (2, 8)  # encodings
HEADER = 512  # bytes that are read for a header at first
LARGEST_HEADER = 1 << 20
LENGTH = struct.Struct("<I")
MOST_TIMES = 2000  # by which a page may grow: deflate reaches 1032, and images hardly shrink


class DamagedPageError(UnreadableImageError):
    """A page that can't be read."""


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
