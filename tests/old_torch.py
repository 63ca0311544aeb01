"""Checkpoints in the format of torch 0.3 and 0.4 on Python 2: no zip archive, strings and large
numbers in the opcodes of Python 2's `cPickle` at protocol 2, tensors on a GPU. There is no Python 2
here to write them."""

import pickle
import struct
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

PurePickler: Any = vars(pickle)["_Pickler"]  # in Python, so its parts can be replaced

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {
    "protocol_version": 1001,
    "little_endian": True,
    "type_sizes": {"short": 2, "int": 4, "long": 4},
}
STORAGES = {torch.float32: "FloatStorage", torch.int64: "LongStorage"}


class _Global:
    """A global name in a pickle."""

    def __init__(self, module: str, name: str) -> None:
        self.opcode = f"c{module}\n{name}\n".encode()

    def __call__(self) -> None: ...


class Python2Pickler(PurePickler):
    """Writes `str` and ints as Python 2 does, an `OrderedDict` by its items, and tensors as calls
    of `rebuild`."""

    dispatch: ClassVar = dict(PurePickler.dispatch)

    def __init__(self, file: Any, rebuild: str = "_rebuild_tensor_v2") -> None:
        super().__init__(file, protocol=2)
        self.rebuild = rebuild
        self.storages: dict[str, Tensor] = {}

    def save_text(self, text: str) -> None:
        data = text.encode("latin1")
        short = len(data) < 256
        length = struct.pack("<B" if short else "<i", len(data))
        self.write((pickle.SHORT_BINSTRING if short else pickle.BINSTRING) + length + data)
        self.memoize(text)

    dispatch[str] = save_text

    def save_whole(self, number: int) -> None:
        if -(2**31) <= number < 2**31:
            super().save_long(number)
        elif -(2**63) <= number < 2**63:  # an int of Python 2, in decimal digits
            self.write(pickle.INT + f"{number}\n".encode())
        else:
            super().save_long(number)

    dispatch[int] = save_whole

    def save_name(self, name: _Global) -> None:
        self.write(name.opcode)

    dispatch[_Global] = save_name

    def save_ordered(self, table: OrderedDict[str, Any]) -> None:
        items = [[key, value] for key, value in table.items()]
        rest = (vars(table),) if vars(table) else ()
        self.save_reduce(_Global("collections", "OrderedDict"), (items,), *rest, obj=table)

    dispatch[OrderedDict] = save_ordered

    def save_tensor(self, tensor: Tensor) -> None:
        key = str(94_000_000_000_000 + tensor.untyped_storage().data_ptr() % 2**40)
        self.storages[key] = tensor
        args: tuple[Any, ...] = (_Stored(key, tensor), 0, tuple(tensor.shape), tensor.stride())
        if self.rebuild == "_rebuild_tensor_v2":
            args += (False, OrderedDict())
        self.save_reduce(_Global("torch._utils", self.rebuild), args, obj=tensor)

    dispatch[Tensor] = save_tensor

    def persistent_id(self, obj: Any) -> Any:
        return obj.id() if isinstance(obj, _Stored) else None


class _Stored:
    def __init__(self, key: str, tensor: Tensor) -> None:
        self.key, self.tensor = key, tensor

    def id(self) -> tuple[Any, ...]:
        kind = _Global("torch.cuda", STORAGES[self.tensor.dtype])
        return "storage", kind, self.key, "cuda:0", self.tensor.numel(), None


def save_as_2018(contents: Any, path: Path, rebuild: str = "_rebuild_tensor_v2") -> None:
    """`torch.save` of torch 0.4 (0.3 with `_rebuild_tensor`) on Python 2; contiguous tensors."""
    assert sys.byteorder == "little"
    with path.open("wb") as file:
        for header in (MAGIC, VERSION, SYSTEM):
            Python2Pickler(file).dump(header)
        pickler = Python2Pickler(file, rebuild)
        pickler.dump(contents)
        keys = sorted(pickler.storages)
        Python2Pickler(file).dump(keys)
        for key in keys:
            tensor = pickler.storages[key]
            file.write(struct.pack("<q", tensor.numel()))
            file.write(tensor.numpy().data)


def optimizer_of_2018(parameters: list[Tensor]) -> dict[str, Any]:
    """The state of SGD in torch before 1.5, which identified parameters by their addresses."""
    addresses = [140_234_866_532_368 + 72 * number for number in range(len(parameters))]
    buffers = [{"momentum_buffer": torch.zeros_like(each)} for each in parameters]
    settings = {
        "lr": 0.05,
        "momentum": 0.9,
        "dampening": 0,
        "weight_decay": 1e-5,
        "nesterov": False,
    }
    group = {**settings, "params": addresses}
    return {"state": dict(zip(addresses, buffers, strict=True)), "param_groups": [group]}
