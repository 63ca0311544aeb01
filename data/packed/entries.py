"""The images of one container, as the process that indexed it sends them back."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from data.folder import LINE_BREAK, UNLABELLED
from system.names import has_line_break

LONGEST = 2**31 - 1  # bytes of an image
WHOLE = -1  # `part` of an image whose bytes are in the container as they are
# Lengths of images without bytes
NULL, TOO_LONG, ENCRYPTED, ODD_METHOD, ODD_NAME = -1, -2, -3, -4, -5
REASONS = {
    NULL: "the table has no bytes for it",
    TOO_LONG: "has more than 2 GiB",
    ENCRYPTED: "is encrypted",
    ODD_METHOD: "is compressed with another method than deflate",
    ODD_NAME: LINE_BREAK,
}


class Found(NamedTuple):
    """An image of a container.

    Attributes:
        name: in the container.
        label: `UNLABELLED` for none.
        offset, length: in bytes; the length of `REASONS` for an image that can't be read.
        part: `WHOLE`; in a zip, the length after inflating; in Parquet, the row of a compressed
            page, of which `offset` and `length` then are.
    """

    name: str
    label: str
    offset: int
    length: int
    part: int = WHOLE


@dataclass(frozen=True)
class Entries:
    """All images of a container, N, in their order.

    Attributes:
        offsets: `(N,) int64`.
        lengths, parts: `(N,) int32`.
        labels: `(N,) int32`, the place in `texts`.
        texts: the different labels.
        names: `(C,) uint8`, all names in UTF-8, one after the other.
        ends: `(N,) int64`, the end of each name.
        codec: of compressed pages.
        notes: lines about what is left out.
    """

    offsets: np.ndarray
    lengths: np.ndarray
    parts: np.ndarray
    labels: np.ndarray
    texts: list[str]
    names: np.ndarray
    ends: np.ndarray
    codec: str
    notes: list[str]


def pack(found: Sequence[Found], notes: Iterable[str] = (), codec: str = "") -> Entries:
    """Images as arrays."""
    numbers: dict[str, int] = {}
    labels = [numbers.setdefault(each.label, len(numbers)) for each in found]
    names = [each.name.encode("utf-8", "surrogateescape") for each in found]
    lengths = [_length(each) for each in found]
    return Entries(
        np.array([each.offset for each in found], np.int64),
        np.array(lengths, np.int32),
        np.array([min(each.part, LONGEST) for each in found], np.int32),
        np.array(labels, np.int32),
        list(numbers),
        np.frombuffer(b"".join(names), np.uint8),
        np.cumsum([len(name) for name in names], dtype=np.int64),
        codec,
        list(notes),
    )


def _length(found: Found) -> int:
    if has_line_break(found.name):
        return ODD_NAME
    return TOO_LONG if max(found.length, found.part) > LONGEST else found.length


def first_folder(name: str) -> str:
    """The label of a member without another: the first folder of its name."""
    folder, slash, _ = name.partition("/")
    return folder if slash else UNLABELLED


def in_order(found: Iterable[Found]) -> list[Found]:
    """Members as a folder of the same files lists them: by first folder, folder, name."""

    def key(each: Found) -> tuple[str, str, str]:
        folder, _, name = each.name.rpartition("/")
        return first_folder(each.name), folder, name

    return sorted(found, key=key)
