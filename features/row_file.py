"""Feature rows in a file of this or another program: NumPy, safetensors or a pickle."""

import reprlib
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from cluster.moments import BLOCK
from features.rows import TENSOR
from parallel.collectives import shard_of
from system.errors import InputError, shorten
from system.names import printable, utf8_name
from system.safe_pickle import read_plain

DTYPES = {"float16", "float32", "float64", "F16", "F32", "F64"}  # in NumPy and in safetensors


def read_rows(path: Path) -> tuple[int, np.ndarray]:
    """The number N of rows in a file, and this process's share of them, `(n, D)`.

    A `.npy` file is mapped into memory. Every process reads a pickle whole.

    Raises:
        InputError: the file can't be read, or does not hold an `(N, D)` array of floats.
    """
    readers = {".npy": _read_npy, ".safetensors": _read_safetensors}
    readers |= {".pkl": _read_pickle, ".pickle": _read_pickle}
    if path.suffix not in readers:
        raise InputError(f"{path}: give a file whose name ends in {' or '.join(readers)}")
    try:
        return readers[path.suffix](path)
    except InputError:
        raise
    except Exception as error:  # damaged bytes make np.load raise almost anything
        reason = getattr(error, "strerror", None) or shorten(error)
        raise InputError(f"{path}: cannot read these features: {reason}") from error


def _read_npy(path: Path) -> tuple[int, np.ndarray]:
    # copy-on-write, as torch wants writable arrays
    array = np.load(path, mmap_mode="c", allow_pickle=False)
    _check_form(path, str(array.dtype), array.shape)
    own = shard_of(len(array))
    return len(array), array[own.start : own.stop]


def _read_safetensors(path: Path) -> tuple[int, np.ndarray]:
    with utf8_name(path) as name, safe_open(name, framework="np") as file:
        names = list(file.keys())
        if TENSOR not in names and len(names) != 1:
            there = shorten(printable(", ".join(names))) or "nothing"
            raise InputError(f"{path}: holds {there}; give one tensor, or one named {TENSOR}")
        tensor = file.get_slice(TENSOR if TENSOR in names else names[0])
        shape = tuple(tensor.get_shape())
        _check_form(path, tensor.get_dtype(), shape)
        own = shard_of(shape[0])
        return shape[0], tensor[own.start : own.stop]


def _read_pickle(path: Path) -> tuple[int, np.ndarray]:
    # "bytes" leaves the data of Python 2's arrays alone
    content = read_plain(path, "feature file", encoding="bytes")
    is_array = isinstance(content, np.ndarray)
    form = (content.dtype, content.shape) if is_array else _form_of_list(path, content)
    _check_form(path, str(form[0]), form[1])
    count = len(content)
    own = shard_of(count)
    if is_array and len(own) == count:
        return count, np.require(np.asarray(content), requirements="W")  # torch wants it writable
    rows = np.empty((len(own), form[1][1]), form[0])  # a copy: a view would keep all rows in memory
    for place, row in zip(rows, content[own.start : own.stop], strict=True):
        place[:] = row
    return count, rows


def _form_of_list(path: Path, content: Any) -> tuple[np.dtype, tuple[int, ...]]:
    """The dtype and shape of a list or tuple of N arrays `(D,)`, taken as one array.

    Raises:
        InputError: it is something else, or the file is too small to hold all rows.
    """
    if not isinstance(content, list | tuple) or not content:
        raise InputError(
            f"{path}: holds {_in_words(content)}; give an array (N, D), or a list of N arrays (D,)"
        )
    first = content[0]
    for number, row in enumerate(content):
        if not isinstance(row, np.ndarray) or (row.dtype, row.shape) != (first.dtype, first.shape):
            raise InputError(
                f"{path}: row {number} is {_in_words(row)}; give arrays (D,) of one type and length"
            )
    shape, size = (len(content), *first.shape), path.stat().st_size
    if len(content) * first.nbytes > size:  # one row, repeated, could fill the memory
        raise InputError(f"{path}: holds rows of shape {shape}, too many for its {size} bytes")
    return first.dtype, shape


def _in_words(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} and shape {value.shape}"
    return shorten(reprlib.repr(value))


def _check_form(path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or shape[1] < 1:
        raise InputError(f"{path}: holds an array of shape {shape}; give (N, D)")
    if dtype not in DTYPES:
        raise InputError(f"{path}: holds {dtype}; give float16, float32 or float64")


def check_finite(path: Path, rows: np.ndarray, first: int) -> None:
    """Check that rows are finite in float32.

    Args:
        first: the number in the file of the first of them.

    Raises:
        InputError: one is not; the message has its number.
    """
    for start in range(0, len(rows), BLOCK):
        with np.errstate(over="ignore"):
            block = np.asarray(rows[start : start + BLOCK], np.float32)
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            row = first + start + int(finite.argmin())
            raise InputError(f"{path}: row {row} is not finite (NaN, infinite or too large)")
