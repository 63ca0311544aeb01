"""Pickles, read without running code.

A pickle refers by name to everything but lists, tuples, dicts, texts, bytes and numbers. Only names
on an allow list are resolved; `PLAIN` suffices for NumPy's arrays of numbers and texts.
"""

import copyreg
import math
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from system.errors import InputError, shorten

PLAIN_TYPES = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248]|c8|c16|[SU][1-9][0-9]*)")


def read_plain(path: Path, what: str, encoding: str = "latin1") -> Any:
    """The content of a pickle file.

    Args:
        what: the kind of file, for messages.
        encoding: of texts written by Python 2; `bytes` leaves them bytes.

    Raises:
        InputError: the file can't be read, is damaged, or refers to other names.
    """
    try:
        with path.open("rb") as file:
            return load_plain(file, encoding)
    except OSError as error:
        raise InputError(f"{path}: cannot read this {what}: {error.strerror}") from error
    except Exception as error:  # damaged bytes make pickle raise almost anything
        reason = shorten(error) or type(error).__name__
        raise InputError(f"{path}: not a {what}, or a damaged one: {reason}") from error


def load_plain(file: IO[bytes], encoding: str = "latin1") -> Any:
    """The content of a pickle in an open file, which is left at the pickle's end.

    Raises:
        Exception: as `SafeUnpickler.load`.
    """
    return SafeUnpickler(file, encoding, PLAIN).load()


class Sealed:
    """A value that a pickle can pass on, but neither change nor inspect."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes an imported object")


class Maker(Sealed):
    """A function that a pickle can only call."""

    __slots__ = ()

    def __call__(self, *args: Any) -> Any:
        return self.value(*args)


class SafeUnpickler(pickle.Unpickler):
    """Loads pickles, and resolves only names on an allow list.

    Args:
        encoding: of texts written by Python 2.
        allowed: by module and name.

    Raises (from `load`):
        pickle.UnpicklingError: a name isn't on the list.
        Exception: of almost any kind, for damaged bytes.
    """

    def __init__(
        self, file: IO[bytes], encoding: str, allowed: Mapping[tuple[str, str], Any]
    ) -> None:
        super().__init__(file, encoding=encoding)
        self._allowed = allowed
        copyreg.clear_extension_cache()  # names cached by number would skip `find_class`

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._allowed:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return self._allowed[module, name]


class _Type:
    """A substitute for `numpy.dtype`: a pickle can set only the byte order of this one, and so
    can't turn numbers into pointers."""

    __slots__ = ("dtype",)

    def __init__(self, name: Any, *flags: Any) -> None:
        if not PLAIN_TYPES.fullmatch(_text(name)):
            raise pickle.UnpicklingError(f"it has an array of {name!r}, not of numbers or texts")
        self.dtype = np.dtype(_text(name))

    def __setstate__(self, state: Any) -> None:
        _, order, *records = state[:5]
        if records != [None, None, None] or _text(order) not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError("it has an array of records, not of numbers or texts")
        self.dtype = self.dtype.newbyteorder(_text(order))  # type: ignore[arg-type]


class Array(np.ndarray):
    """An array that a pickle can fill only once: a second time would free memory in use."""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        if self.__dict__.setdefault("filled", False) or not isinstance(kind, _Type):
            raise pickle.UnpicklingError("it has an array whose type and content do not fit")
        data = _bytes(data)
        if min(shape, default=0) < 0 or math.prod(shape) * kind.dtype.itemsize != len(data):
            raise pickle.UnpicklingError(f"it has {len(data)} bytes for an array of shape {shape}")
        content = 1, tuple(shape), kind.dtype, bool(fortran), data
        super().__setstate__(content)  # type: ignore[arg-type]
        self.filled = True

    def __repr__(self) -> str:
        return repr(np.asarray(self))


def _reconstruct(kind: Any, shape: Any, letter: Any) -> np.ndarray:
    """An empty array, which the pickle then fills."""
    return np.ndarray.__new__(Array, 0, np.int8)


def _scalar(kind: _Type, data: Any) -> Any:
    return np.frombuffer(_bytes(data), kind.dtype)[0].item()


def _frombuffer(data: Any, kind: _Type, shape: Any, order: Any) -> np.ndarray:
    # a view keeps a bytearray from being resized; anything else is copied
    memory = memoryview(data) if isinstance(data, bytearray) else _bytes(data)
    return np.frombuffer(memory, kind.dtype).reshape(shape, order=order)


def _ndarray(*args: Any) -> Any:
    raise pickle.UnpicklingError(
        "it calls numpy.ndarray"
    )  # it is named as an argument of `_reconstruct`


def _text(value: Any) -> str:
    if not isinstance(value, str | bytes):
        raise pickle.UnpicklingError("it has another object in place of a text")
    return value.decode("latin1") if isinstance(value, bytes) else value


def _bytes(data: Any) -> bytes:
    """The bytes of an array, which an encoding turns into a text if Python 2 wrote them."""
    if isinstance(data, bytes):
        return data
    return data.encode("latin1") if isinstance(data, str) else bytes(memoryview(data))


PLAIN: dict[tuple[str, str], Sealed] = {
    ("numpy", "ndarray"): Maker(_ndarray),
    ("numpy", "dtype"): Maker(_Type),
    # bytes, and empty bytes, as Python 3 writes them for Python 2
    ("_codecs", "encode"): Maker(lambda text, encoding: text.encode("latin1")),
    ("builtins", "bytes"): Maker(lambda: b""),
    ("__builtin__", "bytes"): Maker(lambda: b""),
}
for _core in ("numpy.core", "numpy._core"):  # of NumPy 1 and 2
    PLAIN[f"{_core}.multiarray", "_reconstruct"] = Maker(_reconstruct)
    PLAIN[f"{_core}.multiarray", "scalar"] = Maker(_scalar)
    PLAIN[f"{_core}.numeric", "_frombuffer"] = Maker(_frombuffer)
