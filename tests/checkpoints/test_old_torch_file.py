"""Files from before torch 1.6: the result equals torch's loader's, and odd files give one line.
(test_released.py tests files of 2018 by Python 2.)"""

import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile import old_file_of, text
from torch import nn

from checkpoints.torch_file import OLD, load_torch_file
from checkpoints.torch_pickle import DTYPES
from system.errors import InputError


def save_old(content: Any, path: Path) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


def as_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_tensors_equal_those_of_torchs_loader(tmp_path: Path, dtype: torch.dtype) -> None:
    whole = torch.arange(24).to(dtype).reshape(4, 6)
    tensors = [whole, whole.t(), whole[1:3, 2:5], whole[:0]]  # one storage
    path = save_old({"tensors": tensors, "other": torch.ones(3, dtype=dtype)}, tmp_path / "c.pth")
    found, container, _ = load_torch_file(path)
    expected = torch.load(path, weights_only=True)
    assert container == OLD
    assert torch.equal(found["other"], expected["other"])
    for one, other in zip(found["tensors"], expected["tensors"], strict=True):
        assert (one.dtype, one.shape, one.stride()) == (other.dtype, other.shape, other.stride())
        assert as_bytes(one) == as_bytes(other)
    assert len({each.untyped_storage().data_ptr() for each in found["tensors"]}) == 1


def test_parameters_sizes_ordered_dicts_and_numpys_numbers_load(tmp_path: Path) -> None:
    weight = nn.Parameter(torch.randn(2, 3))
    content = OrderedDict(w=weight, size=weight.shape, loss=np.float64(0.5), rows=np.arange(3))
    found, *_ = load_torch_file(save_old(content, tmp_path / "c.pth"))
    assert torch.equal(found["w"], weight)
    assert (found["size"], found["loss"], found["rows"].tolist()) == ((2, 3), 0.5, [0, 1, 2])


def storage(count: int, key: str = "0", view: bytes = b"N", kind: str = "FloatStorage") -> bytes:
    """The opcodes of a storage."""
    number = pickle.dumps(count, protocol=2)[2:-1]
    name = f"ctorch\n{kind}\n".encode()
    return b"(" + text("storage") + name + text(key) + text("cpu") + number + view + b"tQ"


def tensor(stored: bytes, shape: bytes = b"K\x02\x85") -> bytes:
    """The opcodes of a tensor of one dimension."""
    return b"ctorch._utils\n_rebuild_tensor\n(" + stored + b"K\x00" + shape + b"K\x01\x85tR"


def write(
    path: Path, content: bytes, count: int = 2, entries: bytes = bytes(8), keys: str = "0"
) -> Path:
    """A file with one storage for each key."""
    head = old_file_of(b"\x80\x02" + content + b".")[: -len(pickle.dumps([], 2))]
    rest = (struct.pack("<q", count) + entries) * len(keys)
    path.write_bytes(head + pickle.dumps(list(keys), 2) + rest)
    return path


@pytest.mark.parametrize("count", [2**40, 2**62, 10_000])
def test_a_storage_that_the_file_does_not_hold(tmp_path: Path, count: int) -> None:
    path = write(tmp_path / "c.pth", tensor(storage(count)))
    with pytest.raises(InputError, match=r"c\.pth: not a checkpoint, or a damaged one$"):
        load_torch_file(path)


@pytest.mark.parametrize(
    "content",
    [
        tensor(storage(2), shape=b"K\x03\x85"),
        tensor(storage(-1)),
        tensor(storage(2, key="1")),
        tensor(storage(2, view=text("1") + b"K\x00K\x01\x87")),
        tensor(storage(2, kind="Size")),
        tensor(b"ctorch\nFloatStorage\n"),
        storage(2) + b"}" + text("value") + b"K\x01sb",
        b"ctorch\nFloatStorage\n}" + text("value") + b"K\x01sb",
        b"ctorch._utils\n_rebuild_tensor\n}" + text("value") + b"K\x01sb",
    ],
    ids=[
        "a tensor larger than its storage", "negative size", "unknown key", "part of a storage",
        "a size as a type", "no storage", "a storage changed", "a type changed",
        "a function changed",
    ],
)  # fmt: skip
def test_odd_storages_raise_one_line(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError, match=r"c\.pth: not a checkpoint, or a damaged one$"):
        load_torch_file(write(tmp_path / "c.pth", content))


@pytest.mark.parametrize("keys", ["", "1", "01"])
def test_a_missing_or_unused_storage_raises(tmp_path: Path, keys: str) -> None:
    with pytest.raises(InputError, match=r"c\.pth: not a checkpoint, or a damaged one$"):
        load_torch_file(write(tmp_path / "c.pth", tensor(storage(2)), keys=keys))


@pytest.mark.parametrize(("count", "entries"), [(1, bytes(8)), (3, bytes(12)), (2, bytes(7))])
def test_entries_of_another_size_raise(tmp_path: Path, count: int, entries: bytes) -> None:
    with pytest.raises(InputError, match=r"c\.pth: not a checkpoint, or a damaged one$"):
        load_torch_file(write(tmp_path / "c.pth", tensor(storage(2)), count, entries))
