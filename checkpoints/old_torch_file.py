"""Files that `torch.save` wrote before torch 1.6, loaded without running anything in them.

Such a file has five pickles: a magic number, a version, the machine's properties, the object, and
the keys of its storages. The storages follow in the order of the keys: the number of entries in 8
bytes, then the entries. The object's pickle refers to a storage by key, type and size, and calls a
function that makes a tensor of it. Python 2's strings are bytes.
"""

import io
import pickle
import struct
from typing import Any

import torch
from torch import Tensor

from checkpoints.torch_pickle import TorchUnpickler
from system.safe_pickle import load_plain

MAGIC = 0x1950A86A20F9469CFC6C
MAGIC_BYTES = pickle.dumps(MAGIC, protocol=2)[2:-1]  # near the start of each such file
VERSION = 1001


def load_old_file(file: io.BufferedReader) -> tuple[Any, list[str], bool]:
    """The object in a file, its tensors on the CPU; the names of its unknown classes; and whether
    Python 2 wrote it.

    Raises:
        Exception: almost any, for damaged bytes.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if (load_plain(file), load_plain(file)) != (MAGIC, VERSION):
        raise ValueError("another format")
    by_python2 = b"protocol_version" in load_plain(file, encoding="bytes")
    unpickler = TorchUnpickler(file, _Storages(size).make)
    content = unpickler.load()
    keys = load_plain(file)
    if set(keys) != set(unpickler.storages):
        raise ValueError("storages are missing")
    for key in keys:
        _fill(unpickler.storages[key], file)
    return content, unpickler.unknown, by_python2


def _fill(storage: Tensor, file: io.BufferedReader) -> None:
    """Read a storage's entries into its memory."""
    (count,) = struct.unpack("<q", file.read(8))
    memory = storage.view(torch.uint8).numpy().data
    if count != len(storage) or file.readinto(memory) != len(memory):
        raise ValueError("a storage of another size")


class _Storages:
    """Makes storages of zeros, which `_fill` fills later.

    Args:
        left: bytes of the file that may still hold storages.
    """

    def __init__(self, left: int) -> None:
        self.left = left

    def make(self, key: str, dtype: torch.dtype, count: int) -> Tensor:
        self.left -= count * dtype.itemsize
        if self.left < 0:
            raise pickle.UnpicklingError("it has tensors that are larger than the file")
        return torch.zeros(count, dtype=dtype)
