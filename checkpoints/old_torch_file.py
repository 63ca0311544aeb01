"""Files that `torch.save` wrote before torch 1.6, loaded without running anything in them.

Such a file has five pickles: a magic number, a version, the machine's properties, the object, and
the keys of its storages. The storages follow in the order of the keys: the number of entries in 8
bytes, then the entries. The object's pickle refers to a storage by key, type and size, and calls a
function that makes a tensor of it. Python 2's strings are bytes.
"""

import io
import pickle
import struct
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

from system.safe_pickle import PLAIN, Maker, SafeUnpickler, Sealed, load_plain

MAGIC = 0x1950A86A20F9469CFC6C
MAGIC_BYTES = pickle.dumps(MAGIC, protocol=2)[2:-1]  # near the start of each such file
VERSION = 1001
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


def load_old_file(file: io.BufferedReader) -> tuple[Any, bool]:
    """The object in a file, its tensors on the CPU, and whether Python 2 wrote it.

    Raises:
        pickle.UnpicklingError: it refers to more than tensors and plain data; says to what.
        Exception: almost any, for damaged bytes.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if (load_plain(file), load_plain(file)) != (MAGIC, VERSION):
        raise ValueError("another format")
    by_python2 = b"protocol_version" in load_plain(file, encoding="bytes")
    unpickler = _OldUnpickler(file, size)
    content = unpickler.load()
    keys = load_plain(file)
    if set(keys) != set(unpickler.storages):
        raise ValueError("storages are missing")
    for key in keys:
        _fill(unpickler.storages[key], file)
    return content, by_python2


def _fill(storage: Tensor, file: io.BufferedReader) -> None:
    """Read a storage's entries into its memory."""
    (count,) = struct.unpack("<q", file.read(8))
    memory = storage.view(torch.uint8).numpy().data
    if count != len(storage) or file.readinto(memory) != len(memory):
        raise ValueError("a storage of another size")


class _OldUnpickler(SafeUnpickler):
    """Loads the object. `storages` are zeros, `(n,)` by key, that `_fill` fills later."""

    def __init__(self, file: io.BufferedReader, size: int) -> None:
        super().__init__(file, "latin1", PLAIN | TORCH)
        self.storages: dict[str, Tensor] = {}
        self._left = size  # bytes of the file that may still hold storages

    def persistent_load(self, pid: Any) -> Sealed:
        _, kind, key, _, count, view = pid  # the fourth is the device
        if not isinstance(kind.value, torch.dtype) or count < 0 or view is not None:
            raise pickle.UnpicklingError("it has an odd storage")
        if key not in self.storages:
            self._left -= count * kind.value.itemsize
            if self._left < 0:
                raise pickle.UnpicklingError("it has tensors that are larger than the file")
            self.storages[key] = torch.zeros(count, dtype=kind.value)
        return Sealed(self.storages[key])


def _rebuild_tensor(storage: Sealed, offset: int, shape: Any, stride: Any, *_: Any) -> Tensor:
    return torch.as_strided(storage.value, shape, stride, offset)


def _rebuild_parameter(tensor: Tensor, *_: Any) -> Tensor:
    return tensor


TORCH = {
    ("collections", "OrderedDict"): Maker(OrderedDict),
    ("torch", "Size"): Maker(tuple),
    ("torch._utils", "_rebuild_tensor"): Maker(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Maker(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): Maker(_rebuild_parameter),
    **{("torch", name): Sealed(dtype) for name, dtype in DTYPES.items()},
    **{("torch.cuda", name): Sealed(dtype) for name, dtype in DTYPES.items()},
}
