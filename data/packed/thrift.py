"""Thrift's compact protocol, as far as the headers of Parquet's pages need it.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from typing import Any

DEEPEST = 8  # structs within structs
TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 12


class ThriftError(ValueError):
    """Bytes that are no such struct, or not a whole one."""


def read_struct(data: bytes, at: int = 0, depth: int = 0) -> tuple[dict[int, Any], int]:
    """A struct: its fields by number, and where it ends. Those of 8 bits and floats are None.

    Raises:
        ThriftError: the bytes are no struct, or end before it does.
    """
    fields: dict[int, Any] = {}
    number = 0
    while kind_and_step := _byte(data, at):
        at += 1
        kind, step = kind_and_step & 15, kind_and_step >> 4
        if step:
            number += step
        else:
            number, at = _zigzag(data, at)
        fields[number], at = _value(data, at, kind, depth)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (TRUE, FALSE):
        return kind == TRUE, at
    if kind in (I16, I32, I64):
        return _zigzag(data, at)
    if kind == BINARY:
        length, at = read_varint(data, at)
        if at + length > len(data):
            raise ThriftError("cut off")
        return data[at : at + length], at + length
    if kind == STRUCT and depth < DEEPEST:
        return read_struct(data, at, depth + 1)
    if kind in (BYTE, DOUBLE):
        return None, at + (1 if kind == BYTE else 8)
    raise ThriftError(f"a field of kind {kind}")  # page headers have no others


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    value, at = read_varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of variable length, as in LEB128, and where it ends.

    Raises:
        ThriftError: it is cut off or too long.
    """
    value = shift = 0
    while True:
        byte = _byte(data, at)
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ThriftError("a number of more than 64 bits")


def _byte(data: bytes, at: int) -> int:
    if at >= len(data):
        raise ThriftError("cut off")
    return data[at]
