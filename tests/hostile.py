"""Files that do harm if they are loaded carelessly, and a canary that detects it.

The harm is small: a new file, environment variable or entry of `sys.path`.
"""

import copyreg
import io
import os
import pathlib
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

MARK = "DEEPCLUSTER_CANARY"
EXTENSION = 241  # a number of copyreg for a function
OS = os.system.__module__


class Canary:
    """The things that hostile files change."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "canary"

    def is_touched(self) -> bool:
        return self.path.exists() or MARK in os.environ or MARK in sys.path

    def restore(self) -> None:
        if self.path.is_dir():
            self.path.rmdir()
        self.path.unlink(missing_ok=True)
        os.environ.pop(MARK, None)
        sys.path[:] = [place for place in sys.path if place != MARK]


@contextmanager
def extension() -> Iterator[None]:
    """Register `os.mkdir` in copyreg, as some library might."""
    copyreg.add_extension(OS, "mkdir", EXTENSION)
    try:
        yield
    finally:
        copyreg.remove_extension(OS, "mkdir", EXTENSION)


class Call:
    """An object that is pickled as a call; a careless loader runs it."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def text(value: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(value)) + value.encode()


def pickles(canary: Canary) -> dict[str, bytes]:
    """Pickles by the name of their attack; `pickle.load` is harmed by each."""
    path = str(canary.path)
    code = f"open({path!r}, 'w').close()"
    calls = {
        "os.system": Call(os.system, f"touch '{path}'"),
        "eval": Call(eval, code),
        "exec": Call(exec, code),
        "open": Call(open, path, "w"),
        "subprocess": Call(subprocess.call, ["touch", path]),
        "shutil": Call(shutil.copyfile, __file__, path),
        "method": Call(pathlib.Path.touch, canary.path),
        "environ": Call(os.environ.setdefault, MARK, "1"),
        "numpy.savetxt": Call(np.savetxt, path, [0]),
        "pickle in a pickle": Call(pickle.loads, pickle.dumps(Call(os.mkdir, path))),
        "os.mkdir": Call(os.mkdir, path),
    }
    found = {}
    for name, call in calls.items():
        for protocol in (0, 2, 4):
            try:
                found[f"{name}, protocol {protocol}"] = pickle.dumps(call, protocol)
            except (pickle.PicklingError, AttributeError, TypeError):
                continue  # old protocols have no methods
    found["inside"] = pickle.dumps({"state_dict": [calls["os.mkdir"]], "arch": "small"}, 2)
    return found | _by_hand(path)


def _by_hand(path: str) -> dict[str, bytes]:
    mkdir, argument = f"c{OS}\nmkdir\n".encode(), text(path)
    mapped = b"cbuiltins\nmap\n" + mkdir + b"]" + argument + b"a\x86"
    return {
        "REDUCE": mkdir + argument + b"\x85R.",
        "INST": b"(" + argument + f"i{OS}\nmkdir\n.".encode(),
        "OBJ": b"(" + mkdir + argument + b"o.",
        "STACK_GLOBAL": text(OS) + text("mkdir") + b"\x93" + argument + b"\x85R.",
        "dotted name": b"\x80\x04" + text("shutil") + text("os.mkdir") + b"\x93" + argument
        + b"\x85R.",
        "NEWOBJ": b"\x80\x02cbuiltins\nlist\n" + mapped + b"\x81\x85R.",
        "NEWOBJ_EX": b"\x80\x04cbuiltins\nlist\n" + mapped + b"}\x92\x85R.",
        "EXT1": b"\x80\x02\x82" + bytes([EXTENSION]) + argument + b"\x85R.",
        "EXT2": b"\x80\x02\x83" + struct.pack("<H", EXTENSION) + argument + b"\x85R.",
        "EXT4": b"\x80\x02\x84" + struct.pack("<i", EXTENSION) + argument + b"\x85R.",
        "SETITEM": b"cos\nenviron\n" + text(MARK) + text("1") + b"s.",
        "SETITEMS": b"cos\nenviron\n(" + text(MARK) + text("1") + b"u.",
        "APPEND": b"csys\npath\n" + text(MARK) + b"a.",
        "APPENDS": b"csys\npath\n(" + text(MARK) + b"e.",
        "BUILD": b"\x80\x02csys\n__dict__\n0csys\npath\n" + text(MARK) + b"a0"
        b"cpathlib\nPath\n}" + text("harmed") + b"K\x01sb0N.",
        "before damage": mkdir + argument + b"\x85R0\xff",
        "behind a list": b"]K\x01a0" + mkdir + argument + b"\x85R.",
        "in a frame": b"\x80\x04\x95" + struct.pack("<Q", len(mkdir + argument) + 3)
        + mkdir + argument + b"\x85R.",
    }  # fmt: skip


def archive_of(content: bytes, **members: bytes) -> bytes:
    """A pickle in the format of torch since 1.6."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/version", b"3\n")
        for name, data in members.items():
            archive.writestr(f"archive/data/{name}", data)
    return file.getvalue()


def old_file_of(content: bytes) -> bytes:
    """A pickle in the format of torch before 1.6."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    headers = (0x1950A86A20F9469CFC6C, 1001, system)
    return b"".join(pickle.dumps(each, 2) for each in headers) + content + pickle.dumps([], 2)


def tar_of(content: bytes) -> bytes:
    """A pickle in the format of the first versions of torch."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def array_of(canary: Canary) -> bytes:
    """A `.npy` file of a pickled object."""
    file = io.BytesIO()
    np.save(file, np.array([Call(os.mkdir, str(canary.path))], object), allow_pickle=True)
    return file.getvalue()


def arrays_of(canary: Canary) -> bytes:
    """A `.npz` file of a pickled object."""
    file = io.BytesIO()
    array = np.array([Call(os.mkdir, str(canary.path))], object)
    np.savez(file, rows=array, settings=array)
    return file.getvalue()


def corpus(canary: Canary) -> dict[str, bytes]:
    """All hostile files by name."""
    reduce = pickles(canary)["REDUCE"]
    files = {"npy": array_of(canary), "npz": arrays_of(canary), "torch's tar": tar_of(reduce)}
    for name, content in pickles(canary).items():
        files[f"{name}: pickle"] = content
        files[f"{name}: torch's archive"] = archive_of(content)
        files[f"{name}: torch's old file"] = old_file_of(content)
    return files


ODD = [
    "two\nlines.png",
    "\n",
    "carriage\rreturn.png",
    "end\r",
    "tab\t.png",
    " spaces .png",
    "-dash.png",
    "<script>alert(1)</script>.png",
    "caf\udce9.png",
    "para\u2029graph.png",
    "next\x85line.png",
    "\\backslash.png",
    "\\two\\nlines.png",
    "back\\slash.png",
    "back\\slash\n.png",
    "\\",
    "🐱" * 60,
    "\ufeffmark.png",
]
ODD_LINES = [name.replace("\n", "\\n").replace("\r", "\\r") for name in ODD]
