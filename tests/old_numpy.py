"""Pickles of arrays by NumPy 1 on Python 2, opcode by opcode: there is no Python 2 here."""

import pickle
import struct

import numpy as np


def text(value: bytes) -> bytes:
    """A `str` of Python 2."""
    if len(value) < 256:
        return pickle.SHORT_BINSTRING + bytes([len(value)]) + value
    return pickle.BINSTRING + struct.pack("<i", len(value)) + value


NATIVE = b"(K\x03" + text(b"<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


def array_of_python_2(kind: bytes, state: bytes, shape: bytes, data: bytes) -> bytes:
    """An array: `kind` is the name of its dtype, `state` the rest of the dtype."""
    made = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    )
    dtype = b"cnumpy\ndtype\n" + text(kind) + b"K\x00K\x01\x87R" + state
    return made + b"(K\x01" + shape + dtype + b"\x89" + data + b"tb"


def opcodes_of(x: np.ndarray) -> bytes:
    """An array of one or two dimensions of less than 256 entries."""
    shape = b"".join(b"K" + bytes([size]) for size in x.shape)
    shape += pickle.TUPLE1 if x.ndim == 1 else pickle.TUPLE2
    return array_of_python_2(x.dtype.str[1:].encode(), NATIVE, shape, text(x.tobytes()))


def array_pickle(x: np.ndarray) -> bytes:
    """A pickle of an array."""
    return b"\x80\x02" + opcodes_of(x) + b"."


def rows_pickle(x: np.ndarray) -> bytes:
    """A pickle of a list of its rows."""
    return b"\x80\x02]" + b"".join(opcodes_of(row) + b"a" for row in x) + b"."
