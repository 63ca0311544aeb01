"""A look at a pickle before it is loaded, for what makes a few bytes fill the memory or take for
ever: places in the memo far beyond those that a file of its size can use, lengths beyond its end,
and tuples of tuples, which are hashed once for each of the ways that lead to an entry.

Most opcodes of large pickles, which are lists of numbers, are skipped a thousand at a time by a
regular expression; to load them takes about as long.
"""

import pickle
import pickletools
import re
from collections.abc import Iterator
from typing import Any

MOST_SHARED = 38  # uses of what is there already that can make no more than e^(38 / e) entries
MOST_ENTRIES = 1_000_000  # of a tuple and the tuples in it, each counted as often as it is met
TUPLES = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET")

_OPCODES = {ord(each.code): each for each in pickletools.opcodes}
_BEHIND = {code: each.arg.n if each.arg else 0 for code, each in _OPCODES.items()}  # bytes
_COUNTED = {  # or the bytes of their number, which comes first
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_STOP, _PUT, _LONG_PUT = pickle.STOP[0], pickle.PUT[0], pickle.LONG_BINPUT[0]
_SHARING = tuple(b[0] for b in (pickle.DUP, pickle.GET, pickle.BINGET, pickle.LONG_BINGET))
_IN_MEMO = {_PUT, _LONG_PUT, pickle.BINPUT[0], *_SHARING} - {pickle.DUP[0]}
_IN_DIGITS = (_PUT, pickle.GET[0])
_TWO_LINES = (pickle.GLOBAL[0], pickle.INST[0])
_LOOKED_AT = (_STOP, _LONG_PUT, *_SHARING)
_FREE = {2**20: rb"r..[\x00-\x0f]\x00", 2**24: rb"r...\x00"}  # numbers below, for files that large


def _run_of(free: bytes) -> re.Pattern[bytes]:
    by_size: dict[int, list[bytes]] = {}
    for code, size in _BEHIND.items():
        if size >= 0 and code not in _LOOKED_AT:
            by_size.setdefault(size, []).append(re.escape(bytes([code])))
    kinds = [b"[%s]" % b"".join(codes) + b"." * size for size, codes in by_size.items()]
    return re.compile(b"(?s:(?:%s|%s){1,1000})" % (b"|".join(kinds), free))


_RUNS = {least: _run_of(free) for least, free in _FREE.items()}


def check_pickle(content: Any, start: int = 0) -> None:
    """Check the pickle that begins at `start`.

    Args:
        content: bytes, or a file that is mapped into memory.

    Raises:
        pickle.UnpicklingError: it is damaged, or made to do harm; says how.
    """
    run_from = _RUNS[2**24 if len(content) >= 2**24 else 2**20].match
    shared, place = 0, start
    while True:
        if run := run_from(content, place):
            place = run.end()
        if place >= len(content):
            raise pickle.UnpicklingError("it ends too early")
        opcode = content[place]
        if opcode == _STOP:
            break
        shared += opcode in _SHARING
        place = _end_of(content, opcode, place + 1)
    if shared > MOST_SHARED:
        _check_tuples(content, start)


def _end_of(content: Any, opcode: int, place: int) -> int:
    """The end of what stands behind an opcode, from `place` on."""
    if opcode not in _OPCODES:
        raise pickle.UnpicklingError(f"it has {opcode:#04x} where an opcode belongs")
    size = _BEHIND[opcode]
    if size == pickletools.UP_TO_NEWLINE:
        end = place
        for _ in range(2 if opcode in _TWO_LINES else 1):
            end = content.find(b"\n", end) + 1 or len(content) + 1
    elif size < 0:
        end = place + _COUNTED[size]
        end += int.from_bytes(content[place:end], "little")
    else:
        end = place + size
    if end > len(content):
        raise pickle.UnpicklingError("it ends too early")
    if opcode in (_PUT, _LONG_PUT):
        number = _place_in_memo(opcode, content[place:end])
        if number > max(len(content), min(_FREE)):  # where memory is taken for all numbers up to it
            raise pickle.UnpicklingError(f"it gives a thing the number {number:,}")
    return end


def _place_in_memo(opcode: int, behind: bytes) -> int:
    try:
        return int(behind) if opcode in _IN_DIGITS else int.from_bytes(behind, "little")
    except ValueError as error:
        raise pickle.UnpicklingError("it has something else where a number belongs") from error


def _opcodes(content: Any, place: int) -> Iterator[tuple[pickletools.OpcodeInfo, int]]:
    """Each opcode of the pickle that begins at `place`, with the place in the memo that it names,
    or -1. (`pickletools.genops` refuses Python 2's texts that are not ASCII, and copies them.)"""
    while (opcode := content[place]) != _STOP:
        start, place = place + 1, _end_of(content, opcode, place + 1)
        named = _place_in_memo(opcode, content[start:place]) if opcode in _IN_MEMO else -1
        yield _OPCODES[opcode], named


def _check_tuples(content: Any, start: int) -> None:
    """Go through a pickle as if to load it, but for the number of entries of each tuple in the
    place of itself, 1 for all else, and None for a mark."""
    stack: list[int | None] = []
    memo: dict[int, int | None] = {}
    for opcode, named in _opcodes(content, start):
        name = opcode.name
        if name.endswith("PUT"):
            memo[named] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name.endswith("GET"):
            stack.append(memo[named])
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            entries = 1
            for kind in reversed(opcode.stack_before):
                if kind is not pickletools.stackslice:
                    entries += stack.pop() or 0
                    continue
                while stack[-1] is not None:
                    entries += stack.pop() or 0
            if entries > MOST_ENTRIES and name in TUPLES:
                raise pickle.UnpicklingError("it has a tuple of endlessly many entries")
            made = entries if name in TUPLES else 1
            stack += [None if k is pickletools.markobject else made for k in opcode.stack_after]
