"""The ground truth of ROxford5k and RParis6k (Radenović et al. 2018), and that of Oxford5k and
Paris6k in the same form: a pickle of lists and arrays, read without running code from it."""

import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from system.errors import InputError, shorten
from system.safe_pickle import read_plain

GRADES = ("easy", "hard", "junk")
ORIGINAL_GRADES = ("ok", "junk")  # Oxford5k's and Paris6k's


@dataclass(frozen=True)
class Revisited:
    """A ground truth.

    Attributes:
        database: names of the ranked images.
        queries: names of the images that contain the queries.
        boxes: x1, y1, x2, y2 of each query in its image.
        grades: the database images of each query, by grade; all others are negatives.
        original: the grades are `ORIGINAL_GRADES`, not `GRADES`.
    """

    database: list[str]
    queries: list[str]
    boxes: list[tuple[float, float, float, float]]
    grades: list[dict[str, frozenset[str]]]
    original: bool = False


def read_revisited(path: Path) -> Revisited:
    """Read a `gnd_roxford5k.pkl`, `gnd_rparis6k.pkl`, `gnd_oxford5k.pkl` or `gnd_paris6k.pkl`.

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
            f"gnd with bbx, easy, hard and junk (or ok and junk): {reason}"
        ) from error


def _revisited(content: Any) -> Revisited:
    database, queries = ([_text(n) for n in content[key]] for key in ("imlist", "qimlist"))
    original = any("ok" in truth for truth in content["gnd"])
    boxes, grades = [], []
    for _, truth in zip(queries, content["gnd"], strict=True):
        x1, y1, x2, y2 = (float(number) for number in truth["bbx"])
        if not (np.isfinite([x1, y1, x2, y2]).all() and x1 < x2 and y1 < y2):
            raise ValueError(f"bbx {[x1, y1, x2, y2]} is no box x1, y1, x2, y2")
        boxes.append((x1, y1, x2, y2))
        wanted = ORIGINAL_GRADES if original else GRADES
        grades.append({grade: _names(database, truth[grade]) for grade in wanted})
    return Revisited(database, queries, boxes, grades, original)


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
