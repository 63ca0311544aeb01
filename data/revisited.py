"""The ground truth of ROxford5k and RParis6k (Radenović et al. 2018): a pickle of lists and arrays,
read without running anything that may be in it."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from errors import InputError

GRADES = ("easy", "hard", "junk")


@dataclass(frozen=True)
class Revisited:
    """A ground truth.

    Attributes:
        database: names of the images that are ranked.
        queries: names of the images with the queries in them.
        boxes: for each query x1, y1, x2, y2 in its image.
        grades: for each query, by grade, the database images of it; the others are negatives.
    """

    database: list[str]
    queries: list[str]
    boxes: list[tuple[float, float, float, float]]
    grades: list[dict[str, frozenset[str]]]


def read_revisited(path: Path) -> Revisited:
    """Read a `gnd_roxford5k.pkl` or `gnd_rparis6k.pkl`.

    Raises:
        InputError: the file cannot be read, has something else than lists, dicts, texts, numbers
            and arrays in it, or is no such ground truth.
    """
    try:
        with path.open("rb") as file:
            content = _PlainUnpickler(file, encoding="latin1").load()
    except OSError as error:
        raise InputError(f"{path}: cannot read this ground truth: {error.strerror}") from error
    except Exception as error:  # damaged bytes make pickle raise almost anything
        raise InputError(f"{path}: not a ground truth, or a damaged one: {error}") from error
    try:
        return _revisited(content)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
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
        raise TypeError(f"{name!r} is not a name")
    return str(name)


def _names(database: list[str], numbers: Any) -> frozenset[str]:
    numbers = np.asarray(numbers)
    if numbers.size and not np.issubdtype(numbers.dtype, np.integer):
        raise TypeError(f"{numbers.dtype} numbers instead of whole ones")
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(database):
        raise IndexError(f"no image has one of the numbers {numbers.min()} to {numbers.max()}")
    return frozenset(database[int(number)] for number in numbers.ravel())


class _PlainUnpickler(pickle.Unpickler):
    """Knows plain containers and NumPy's arrays and scalars, by the names that NumPy 1 and 2 pickle
    them under; anything else, which might run, is refused."""

    def find_class(self, module: str, name: str) -> Any:
        of_numpy = module.split(".")[0] == "numpy"
        if of_numpy and name in ("ndarray", "dtype"):
            return {"ndarray": _Placeholder, "dtype": np.dtype}[name]
        if of_numpy and name in ("_reconstruct", "scalar", "_frombuffer"):
            makers = {"_reconstruct": _empty, "scalar": _scalar, "_frombuffer": _frombuffer}
            return makers[name]
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return _encode
        if module in ("builtins", "__builtin__") and name == "bytes":  # and none of them
            return _no_bytes
        raise pickle.UnpicklingError(f"it refers to {module}.{name}")


class _Placeholder:
    """Stands for `numpy.ndarray`, which pickles name and which must not be called by one."""

    def __init__(self, *called_with: Any) -> None:
        raise pickle.UnpicklingError("it calls numpy.ndarray")


def _empty(kind: Any, shape: Any, letter: Any) -> np.ndarray:
    """The array that a pickle then sets the shape, type and bytes of, which NumPy checks."""
    return np.empty(0, np.int8)


def _scalar(dtype: np.dtype, data: bytes) -> Any:
    return np.frombuffer(data, dtype)[0]


def _frombuffer(data: Any, dtype: np.dtype, shape: Any, order: str) -> np.ndarray:
    return np.frombuffer(data, dtype).reshape(shape, order=order)  # type: ignore[call-overload]


def _encode(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""
