"""Damaged files: a few random changes to valid ones, of kinds that get far into a reader."""

import io
import random
import struct
import warnings
import zipfile
from collections.abc import Sequence

# Limits of counts and lengths.
NUMBERS = (0, 1, -1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40,
           2**62, 2**63 - 1, -(2**31), -(2**63))  # fmt: skip
FORMS = ("<b", "<h", ">h", "<i", ">i", "<q", ">q")
WORDS = (b"nan", b"inf", b"-1", b"0", b"1e999", b"1e-400", b"99999999999999999999", b"0x10", b"",
         b"\0", b"\n", b"\r", b"\t", b" ", b"..", b"/", b"\xff\xfe", b"\xe2\x80\xa8", b"null",
         b"[]", b"{}", b"true", b'"', b"'", b"\\", b"<", b"1_0", b"\xd9\xa3", b"9" * 5000,
         b"[" * 3000)  # fmt: skip
# Opcodes of pickles, some with their arguments.
OPCODES = (b"(", b")", b"0", b"1", b"2", b"N", b"]", b"}", b"a", b"b", b"d", b"e", b"l", b"o", b"s",
           b"t", b"u", b"R", b"Q", b"\x81", b"\x85", b"\x86", b"\x87", b"\x88", b"\x8f", b"\x90",
           b"\x91", b"\x93", b"\x94", b"h\0", b"q\0", b"j\xff\xff\xff\x7f",
           b"K\x07", b"I1\n", b"L9L\n", b"G\x7f\xf8\0\0\0\0\0\0", b"U\xff",
           b"X\xff\xff\xff\x7f", b"\x8e\xff\xff\xff\xff\xff\0\0\0", b"\x95\xff\xff\0\0\0\0\0\0",
           b"\x82\x01", b"cos\nsystem\n", b"ios\ngetcwd\n", b"cbuiltins\nbytearray\n",
           b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n", b"cnumpy\ndtype\n",
           b"ctorch\nTensor\n", b"ctorch.nn.parameter\nParameter\n", b".")  # fmt: skip


def damaged(rng: random.Random, samples: Sequence[bytes], pieces: Sequence[bytes] = WORDS) -> bytes:
    """One of the samples with one to four changes.

    Args:
        samples: valid files.
        pieces: bytes typical of such files; some are inserted.
    """
    data = bytearray(rng.choice(samples))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        rng.choice(_CHANGES)(rng, data, samples, pieces)
    return bytes(data)


def damaged_member(rng: random.Random, sample: bytes, pieces: Sequence[bytes]) -> bytes:
    """A valid zip archive with one member damaged, renamed, compressed or duplicated."""
    with zipfile.ZipFile(io.BytesIO(sample)) as archive:
        members = [(each.filename, archive.read(each)) for each in archive.infolist()]
    name, content = rng.choice(members[:1] * len(members) + members)
    change = rng.randrange(10)
    if change == 0:
        members.remove((name, content))
    elif change == 1:
        other = rng.choice(members)[0]
        members = [(other if each == name else each, data) for each, data in members]
    elif change == 2:
        members.append((name, damaged(rng, [content], pieces)))
    else:
        replaced = damaged(rng, [content], pieces)
        members = [(each, replaced if each == name else data) for each, data in members]
    method = zipfile.ZIP_STORED if rng.random() < 0.9 else zipfile.ZIP_DEFLATED
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore")  # of duplicate names
        for each, data in members:
            archive.writestr(zipfile.ZipInfo(each), data, method)
    return file.getvalue()


def _flip(rng: random.Random, data: bytearray, *rest: Sequence[bytes]) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _cut(rng: random.Random, data: bytearray, *rest: Sequence[bytes]) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _remove(rng: random.Random, data: bytearray, *rest: Sequence[bytes]) -> None:
    start = rng.randrange(len(data) + 1)
    del data[start : start + rng.choice((1, 2, 4, 8, 40))]


def _repeat(rng: random.Random, data: bytearray, *rest: Sequence[bytes]) -> None:
    start = rng.randrange(len(data) + 1)
    piece = data[start : start + rng.choice((1, 4, 16, 100))]
    place = rng.randrange(len(data) + 1)
    data[place:place] = piece * rng.choice((1, 1, 3, 30))


def _overwrite(rng: random.Random, data: bytearray, *rest: Sequence[bytes]) -> None:
    """Overwrite bytes with a number at its limit."""
    form, number = rng.choice(FORMS), rng.choice(NUMBERS)
    size = struct.calcsize(form)
    written = (number % 2 ** (8 * size)).to_bytes(size, "big" if form[0] == ">" else "little")
    place = rng.randrange(len(data) + 1)
    data[place : place + size] = written


def _noise(rng: random.Random, data: bytearray, *rest: Sequence[bytes]) -> None:
    place = rng.randrange(len(data) + 1)
    data[place : place + rng.choice((0, 1, 4))] = rng.randbytes(rng.choice((1, 2, 8, 64)))


def _splice(
    rng: random.Random, data: bytearray, samples: Sequence[bytes], pieces: Sequence[bytes]
) -> None:
    """Continue with the end of another sample."""
    other = rng.choice(samples)
    data[rng.randrange(len(data) + 1) :] = other[rng.randrange(len(other) + 1) :]


def _insert(
    rng: random.Random, data: bytearray, samples: Sequence[bytes], pieces: Sequence[bytes]
) -> None:
    piece = rng.choice(pieces)
    place = rng.randrange(len(data) + 1)
    data[place : place + rng.choice((0, 1, len(piece)))] = piece


def _replace_word(
    rng: random.Random, data: bytearray, samples: Sequence[bytes], pieces: Sequence[bytes]
) -> None:
    words = bytes(data).split()
    if words:
        word = rng.choice(words)
        start = bytes(data).find(word)
        data[start : start + len(word)] = rng.choice((*WORDS, *words))


_CHANGES = (
    _flip, _cut, _remove, _repeat, _overwrite, _noise, _splice, _insert, _insert, _replace_word,
)  # fmt: skip
