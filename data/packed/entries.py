"""The images of one container, as the process that indexed it sends them back."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
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


COLUMNS: dict[str, type[np.generic]] = {  # numbers of each image; but `names` are characters
    "offset": np.int64,  # see `Found`
    "length": np.int32,
    "part": np.int32,
    "label": np.int32,  # the place in the list of different labels
    "names": np.uint8,  # all names in UTF-8, one after the other
    "ends": np.int64,  # of each name
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
        columns: by name, see `COLUMNS`.
        texts: the different labels.
        codec: of compressed pages.
        notes: lines about what is left out.
    """

    columns: dict[str, np.ndarray]
    texts: list[str]
    codec: str = ""
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.columns["offset"])


def pack(found: Sequence[Found], notes: Iterable[str] = (), codec: str = "") -> Entries:
    """Images as arrays."""
    numbers: dict[str, int] = {}
    names = [each.name.encode("utf-8", "surrogateescape") for each in found]
    columns: dict[str, Sequence[int] | np.ndarray] = {
        "offset": [each.offset for each in found],
        "length": [_length(each) for each in found],
        "part": [min(each.part, LONGEST) for each in found],
        "label": [numbers.setdefault(each.label, len(numbers)) for each in found],
        "names": np.frombuffer(b"".join(names), np.uint8),
        "ends": np.cumsum([len(name) for name in names], dtype=np.int64),
    }
    arrays = {name: np.array(values, COLUMNS[name]) for name, values in columns.items()}
    return Entries(arrays, list(numbers), codec, list(notes))


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
