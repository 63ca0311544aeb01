"""The objects that `torch.save` pickles, loaded without running anything of the file's.

Tensors and plain data come back: NumPy's numbers and arrays as such, a Namespace and a defaultdict
as dicts, a path as text. Anything else becomes a `Placeholder`: its class is not even imported.
"""

import pathlib
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from system.safe_pickle import PLAIN, Array, Maker, SafeUnpickler, Sealed

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Placeholder:
    """Stands for an object of an unknown class. It takes all that a pickle does to an object, and
    keeps none of it."""

    __slots__ = ()

    def __new__(cls, *args: Any, **options: Any) -> "Placeholder":
        return super().__new__(cls)

    def __call__(self, *args: Any) -> "Placeholder":
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    extend = add = append


class Table(dict[Any, Any]):
    """The values of a Namespace, by name."""

    def __setstate__(self, state: Any) -> None:
        self.update(state)


class _PerhapsArray(Array):
    """An array that stays empty if its numbers are of an unknown type."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state[2], Placeholder):
            super().__setstate__(state)


class TorchUnpickler(SafeUnpickler):
    """Loads an object that `torch.save` pickled.

    Args:
        storage: called with the key, type and size of each storage; returns its entries, `(size,)`.

    Attributes:
        storages: by key.
        unknown: the names of the classes and functions that became placeholders.
    """

    def __init__(self, file: Any, storage: Callable[[str, torch.dtype, int], Tensor]) -> None:
        super().__init__(file, "latin1", TORCH | {("numpy", "dtype"): Maker(self._dtype)})
        self.storages: dict[str, Tensor] = {}
        self.unknown: list[str] = []
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._allowed:
            return super().find_class(module, name)
        return Placeholder if (module, name) in MENTIONED else self._unknown(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        _, kind, key, _, count, *view = pid  # the fourth is the device
        if not isinstance(kind, Sealed) or not isinstance(kind.value, torch.dtype) or any(view):
            return Placeholder()
        if key not in self.storages:
            self.storages[key] = self._storage(key, kind.value, count)
        return Sealed(self.storages[key])

    def _unknown(self, name: str) -> type[Placeholder]:
        if name not in self.unknown:
            self.unknown.append(name)
        return Placeholder

    def _dtype(self, name: Any, *flags: Any) -> Any:
        try:
            return PLAIN["numpy", "dtype"].value(name)
        except pickle.UnpicklingError:  # of objects, records or dates
            return self._unknown(f"numpy.dtype({name!r})")()


def _known(function: Callable[..., Any]) -> Maker:
    """A function that makes a placeholder of a placeholder."""

    def call(*args: Any) -> Any:
        unknown = any(isinstance(each, Placeholder) for each in args)
        return Placeholder() if unknown else function(*args)

    return Maker(call)


def _rebuild_tensor(storage: Sealed, offset: int, shape: Any, stride: Any, *_: Any) -> Tensor:
    return torch.as_strided(storage.value, shape, stride, offset)


def _path(parts: tuple[Any, ...], kind: type[pathlib.PurePath]) -> str:
    return str(kind(*(part for part in parts if isinstance(part, str))))


TORCH: dict[tuple[str, str], Any] = {
    **{name: _known(made.value) for name, made in PLAIN.items()},
    ("collections", "OrderedDict"): Maker(OrderedDict),
    ("collections", "defaultdict"): Maker(lambda *_: {}),
    ("collections", "Counter"): Maker(lambda counts: counts),
    ("argparse", "Namespace"): Table,
    ("torch", "Size"): Maker(tuple),
    ("torch", "device"): Maker(lambda kind, *_: kind),
    ("torch._utils", "_rebuild_tensor"): _known(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _known(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): Maker(lambda tensor, *_: tensor),
    ("torch._utils", "_rebuild_parameter_with_state"): Maker(lambda tensor, *_: tensor),
    ("torch._tensor", "_rebuild_from_type_v2"): Maker(lambda rebuild, _, args, __: rebuild(*args)),
}
for _core in ("numpy.core", "numpy._core"):
    TORCH[f"{_core}.multiarray", "_reconstruct"] = Maker(
        lambda *_: np.ndarray.__new__(_PerhapsArray, 0, np.int8)
    )
for _module in ("torch", "torch.cuda"):
    TORCH |= {(_module, name): Sealed(dtype) for name, dtype in DTYPES.items()}
for _module in ("builtins", "__builtin__"):
    TORCH |= {(_module, kind.__name__): Maker(kind) for kind in (set, frozenset, complex)}
for _module in ("pathlib", "pathlib._local"):  # of most versions of Python, and of 3.13
    for _kind in ("", "Pure"):
        TORCH[_module, f"{_kind}PosixPath"] = Maker(
            lambda *parts: _path(parts, pathlib.PurePosixPath)
        )
        TORCH[_module, f"{_kind}WindowsPath"] = Maker(
            lambda *parts: _path(parts, pathlib.PureWindowsPath)
        )

# Types that are only mentioned, as by a defaultdict: their placeholders need no name
BUILTINS = ("bool", "dict", "float", "int", "list", "str", "tuple")
MENTIONED = {
    *(("builtins", name) for name in BUILTINS),
    *(("__builtin__", name) for name in BUILTINS),
    *(("torch", str(dtype).removeprefix("torch.")) for dtype in DTYPES.values()),
    ("torch", "Tensor"),
    ("torch.nn.parameter", "Parameter"),
}
