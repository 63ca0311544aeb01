"""The ground truth of ROxford5k and RParis6k (Radenović et al. 2018): a pickle of lists and arrays,
read without running code from it."""

import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from system.errors import InputError, shorten
from system.safe_pickle import read_plain

GRADES = ("easy", "hard", "junk")


@dataclass(frozen=True)
class Revisited:
    """A ground truth.

    Attributes:
        database: names of the ranked images.
        queries: names of the images that contain the queries.
        boxes: x1, y1, x2, y2 of each query in its image.
        grades: the database images of each query, by grade; all others are negatives.
    """

    database: list[str]
    queries: list[str]
    boxes: list[tuple[float, float, float, float]]
    grades: list[dict[str, frozenset[str]]]


def read_revisited(path: Path) -> Revisited:
    """Read a `gnd_roxford5k.pkl` or `gnd_rparis6k.pkl`.

    Raises:
        InputError: the file cannot be read, contains anything but lists, dicts, texts, numbers and
            arrays, or is not such a ground truth.
    """
    content = read_plain(path, "ground truth")
    try:
        return _revisited(content)
    except Exception as error:  # a malformed one may raise anything
        reason = f"{type(error).__name__}: {shorten(error)}"
        raise InputError(
            f"{path}: not a ground truth of imlist, qimlist and, for each query, "
            f"gnd with bbx, easy, hard and junk ({reason})"
        ) from error


def _revisited(content: Any) -> Revisited:
    database, queries = ([_text(n) for n in content[key]] for key in ("imlist", "qimlist"))
    boxes, grades = [], []
    for _, truth in zip(queries, content["gnd"], strict=True):
        x1, y1, x2, y2 = (float(number) for number in truth["bbx"])
        if not (np.isfinite([x1, y1, x2, y2]).all() and x1 < x2 and y1 < y2):
            raise ValueError(f"bbx {[x1, y1, x2, y2]} is no box x1, y1, x2, y2")
        boxes.append((x1, y1, x2, y2))
        grades.append({grade: _names(database, truth[grade]) for grade in GRADES})
    return Revisited(database, queries, boxes, grades)


def _text(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{reprlib.repr(name)} is not a name")
    return str(name)


def _names(database: list[str], numbers: Any) -> frozenset[str]:
    if isinstance(numbers, list | tuple) and any(isinstance(n, list | tuple) for n in numbers):
        raise TypeError("lists in a list of image numbers")  # possibly nested without end
    numbers = np.asarray(numbers)
    if numbers.size and not np.issubdtype(numbers.dtype, np.integer):
        raise TypeError(f"{numbers.dtype} numbers instead of whole ones")
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(database):
        raise IndexError(f"no image has one of the numbers {numbers.min()} to {numbers.max()}")
    return frozenset(database[int(number)] for number in numbers.ravel())
