"""Pickles: plain data is loaded, and nothing is run."""

import copyreg
import os
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from old_numpy import NATIVE, array_of_python_2, text

from system.errors import InputError
from system.safe_pickle import load_plain, read_plain

PLAIN: dict[Any, Any] = {
    "list": [1, -(2**70), 1.5, 1e300, True, None, 2**40],
    "tuple": (("a", b"b\xff"), (), ([],), b""),
    "text": "caf\xe9 \u65e5 \udcff",
    7: {"deeper": [{}]},
}
ARRAYS = [
    np.arange(6, dtype=np.int64).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.array([], np.float32),
    np.array(3.5, np.float16),
    np.array([1, 2], ">i4"),
    np.array([True, False]),
    np.array([1 + 2j], np.complex64),
    np.array(["a", "b\xe9c"]),
    np.array([b"a", b"b\xffc"]),
    np.zeros((3, 0), np.uint8),
]
ON_NUMPY_1 = (b"numpy._core.", b"numpy.core.")


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "x.pickle"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_comes_back(tmp_path: Path, protocol: int) -> None:
    path = written(tmp_path, pickle.dumps(PLAIN, protocol))
    assert read_plain(path, "thing") == PLAIN


@pytest.mark.parametrize("encoding", ["latin1", "bytes"])
@pytest.mark.parametrize("protocol", range(6))
def test_arrays_come_back(tmp_path: Path, protocol: int, encoding: str) -> None:
    """They are equal to those of `pickle.load`, also if NumPy 1 wrote them."""
    content = pickle.dumps(ARRAYS, protocol)
    for data in (content, content.replace(*ON_NUMPY_1)) if protocol < 4 else (content,):
        loaded = read_plain(written(tmp_path, data), "thing", encoding)
        for found, expected in zip(loaded, pickle.loads(content), strict=True):
            assert isinstance(found, np.ndarray)
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
            assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_a_large_array_is_in_memory_once(tmp_path: Path, protocol: int) -> None:
    array = np.ones((1000, 1000))
    path = written(tmp_path, pickle.dumps(array, protocol))
    tracemalloc.start()
    found = read_plain(path, "thing")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(found, array)
    assert peak < 1.1 * array.nbytes


def test_numpy_scalars_become_numbers(tmp_path: Path) -> None:
    scalars = [np.int64(-3), np.float32(0.5), np.bool_(True), np.str_("a"), np.complex128(1j)]
    found = read_plain(written(tmp_path, pickle.dumps(scalars)), "thing")
    assert found == [-3, 0.5, True, "a", 1j]
    assert [type(each) for each in found] == [int, float, bool, str, complex]


@pytest.mark.parametrize(("encoding", "name"), [("latin1", "caf\xe9"), ("bytes", b"caf\xe9")])
def test_a_pickle_of_python_2(tmp_path: Path, encoding: str, name: str | bytes) -> None:
    numbers = struct.pack("<2i", 5, -6)
    array = array_of_python_2(b"i4", NATIVE, b"K\x02\x85", text(numbers))
    path = written(tmp_path, b"\x80\x02]" + text(b"caf\xe9") + b"a" + array + b"a.")
    found = read_plain(path, "thing", encoding)
    assert found[0] == name
    assert found[1].dtype == np.int32
    assert found[1].tolist() == [5, -6]


def test_texts_of_python_2_at_protocol_0(tmp_path: Path) -> None:
    """Protocol 0, Python 2's default, has bytes beyond ASCII as escapes, and references to earlier
    objects."""
    content = b"(lp0\nS'caf\\xe9'\np1\na" + b"g1\na" * 100 + b"."
    assert read_plain(written(tmp_path, content), "thing") == ["caf\xe9"] * 101


class Call:
    """An object that is pickled as a call."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call[0], self.call[1:]


class Record:
    def __init__(self) -> None:
        self.a = 1


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (Call(os.mkdir, "harm"), rf"{os.name}\.mkdir"),
        (Call(os.system, "mkdir harm"), rf"{os.name}\.system"),
        (Call(eval, "__import__('os').mkdir('harm')"), r"(__builtin__|builtins)\.eval"),
        (Call(getattr, [], "append"), r"(__builtin__|builtins)\.getattr"),
        (Call(np.fromfile, "harm"), r"numpy\.fromfile"),
        (Call(np.load, "harm"), r"numpy\.load"),
        (
            Record(),
            r"(copy_reg\._reconstructor|copyreg\._reconstructor|.*test_safe_pickle\.Record)",
        ),
        (set, r"(__builtin__|builtins)\.set"),
    ],
)
def test_other_names_are_not_resolved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Any, name: str, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, pickle.dumps([call], protocol))
    with pytest.raises(InputError, match=rf"x\.pickle: not a thing, or .*: it refers to {name}$"):
        read_plain(path, "thing")
    assert not Path("harm").exists()


MKDIR = b"X\x04\x00\x00\x00harm"
DTYPE, SCALAR = b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\nscalar\n"
MAKE, ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\nndarray\n"
INT64 = DTYPE + text(b"i8") + b"\x85R"
FLAGS_OF_OBJECTS = b"(K\x03" + text(b"<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3ftb"
FIELDS = b"(K\x03" + text(b"|") + b"N" + text(b"a") + b"\x85}K\x08K\x01K\x00tb"

HOSTILE = {
    "INST": b"(" + MKDIR + b"ios\nmkdir\n.",
    "OBJ": b"(cos\nmkdir\n" + MKDIR + b"o.",
    "NEWOBJ": b"cos\nmkdir\n" + MKDIR + b"\x85\x81.",
    "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.",
    "OBJ of an allowed name": b"(" + ARRAY + b"K\x08o.",
    "NEWOBJ of an allowed name": ARRAY + b"K\x08\x85\x81.",
    "ndarray called": ARRAY + b"K\x08\x85" + text(b"O") + b"\x86R.",
    "state of a function": MAKE + b"}" + text(b"__name__") + text(b"x") + b"sb.",
    "attribute of a function": SCALAR + b"N}" + text(b"_make") + DTYPE + b"s\x86b.",
    "state of a type": DTYPE + b"}" + text(b"x") + b"K\x01sb.",
    "item of a function": SCALAR + b"K\x00K\x00s.",
    "append to a function": SCALAR + b"K\x00a.",
    "persistent id": MKDIR + b"Q.",
    "array of objects": array_of_python_2(b"O8", NATIVE, b"K\x01\x85", text(b"\x01" * 8)) + b".",
    "list of objects": array_of_python_2(b"O", NATIVE, b"K\x01\x85", b"]K\x01a") + b".",
    "scalar object": SCALAR + DTYPE + text(b"O") + b"\x85R" + text(b"\x01" * 8) + b"\x86R.",
    "record": array_of_python_2(b"V8", NATIVE, b"K\x01\x85", text(b"\x01" * 8)) + b".",
    "fields": array_of_python_2(b"i8", FIELDS, b"K\x01\x85", text(b"\x01" * 8)) + b".",
    "text as a list of types": array_of_python_2(b"i4,O", NATIVE, b"K\x00\x85", text(b"")) + b".",
    "subarray": array_of_python_2(b"2i4", NATIVE, b"K\x01\x85", text(b"\x01" * 8)) + b".",
    "too few bytes": array_of_python_2(b"i8", NATIVE, b"K\x09\x85", text(b"\x01" * 8)) + b".",
    "shape that overflows": array_of_python_2(
        b"i8", NATIVE, (b"\x8a\x08" + struct.pack("<q", 2**61)) + b"K\x08\x86", text(b"")
    )
    + b".",
    "negative shape": array_of_python_2(
        b"i8", NATIVE, b"J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86", text(b"\x01" * 8)
    )
    + b".",
    "NumPy's own state": MAKE + ARRAY + b"K\x00\x85" + text(b"b") + b"\x87RK\x01\x85b.",
    "memo that is empty": b"h\x05.",
    "stack that is empty": b"0.",
    "no end": b"]",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_opcodes_end_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"x\.pickle: not a thing, or a damaged one: .") as error:
        read_plain(written(tmp_path, HOSTILE[case]), "thing")
    assert "\n" not in str(error.value)
    assert not Path("harm").exists()
    assert read_plain(written(tmp_path, pickle.dumps(np.arange(3))), "thing").sum() == 3


def test_a_dtype_cannot_turn_numbers_into_objects(tmp_path: Path) -> None:
    """Flags in a dtype's state could make NumPy follow the numbers as pointers."""
    array = array_of_python_2(b"i8", FLAGS_OF_OBJECTS, b"K\x01\x85", text(b"\x01" * 8))
    found = read_plain(written(tmp_path, b"\x80\x02" + array + b"."), "thing")
    assert not found.dtype.hasobject
    assert found.tolist() == [0x0101010101010101]


def test_an_array_is_filled_once(tmp_path: Path) -> None:
    """Filling it again would free memory that a view may still use."""
    array = array_of_python_2(b"i8", NATIVE, b"K\x01\x85", text(b"\x01" * 8))
    again = b"(K\x01K\x01\x85" + INT64 + b"\x89" + text(b"\x02" * 8) + b"tb"
    with pytest.raises(InputError, match="type and content do not fit"):
        read_plain(written(tmp_path, b"\x80\x02" + array + again + b"."), "thing")


@pytest.mark.parametrize("cached", [False, True])
def test_numbers_of_copyreg_are_resolved_by_the_list_too(tmp_path: Path, cached: bool) -> None:
    """If such a number is cached, Python does not ask an unpickler for its name."""
    module = os.system.__module__
    copyreg.add_extension(module, "system", 200)
    try:
        if cached:
            assert pickle.loads(b"\x80\x02\x82\xc8.") is os.system
        call = b"\x80\x02\x82\xc8" + text(f"touch {tmp_path}/canary".encode()) + b"\x85R."
        with pytest.raises(InputError, match=rf"it refers to {module}\.system"):
            read_plain(written(tmp_path, call), "thing")
    finally:
        copyreg.remove_extension(module, "system", 200)
        copyreg.clear_extension_cache()
    assert not (tmp_path / "canary").exists()


def test_a_pickle_cut_anywhere_is_one_line(tmp_path: Path) -> None:
    content = pickle.dumps([ARRAYS[0], PLAIN], 2)
    for end in range(len(content)):
        with pytest.raises(InputError, match=r"not a thing, or a damaged one: ."):
            read_plain(written(tmp_path, content[:end]), "thing")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone: cannot read this thing: No such file"):
        read_plain(tmp_path / "gone", "thing")


def test_an_open_file_is_left_at_the_end_of_the_pickle(tmp_path: Path) -> None:
    path = written(tmp_path, pickle.dumps([1], 2) + b"more")
    with path.open("rb") as file:
        assert load_plain(file) == [1]
        assert file.read() == b"more"
