"""What files hold beside their pixels: text in PNG; channels that Pillow doesn't read."""

import contextlib
import struct
from typing import BinaryIO

from data.grey import BITS_PER_SAMPLE, MIN_IS_WHITE, PHOTOMETRIC, SAMPLE_FORMAT

PNG = b"\x89PNG\r\n\x1a\n"
TEXT = frozenset({b"iCCP", b"iTXt", b"tEXt", b"zTXt"})  # a colour profile, and text
JPEG_2000 = (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP")  # how a stream begins, and a file
STREAM_WITHIN = 1 << 16  # bytes of a JPEG 2000 file
SAMPLES_PER_PIXEL = 277  # a tag of TIFF
SHORT = 3  # the type of a tag: numbers of 16 bits
MOST_TAGS, MOST_SAMPLES = 1000, 64  # that are read
SAMPLES = {2: "signed ", 3: "float "}


def without_text(file: BinaryIO) -> bytes | None:
    """A PNG without its text and colour profile, which Pillow doesn't use for pixels; None if it
    has neither, or the file is no PNG."""
    file.seek(0)
    if file.read(len(PNG)) != PNG:
        return None
    content = PNG + file.read()
    kept, at = [PNG], len(PNG)
    while at < len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] not in TEXT:
            kept.append(content[at:end])
        at = end
    pixels = b"".join(kept)
    return pixels if len(pixels) < len(content) else None


def why_unidentified(file: BinaryIO) -> str | None:
    """Why Pillow doesn't read a TIFF or JPEG 2000, from its header; None for other files."""
    with contextlib.suppress(
        ValueError, KeyError, IndexError, OverflowError, struct.error, OSError
    ):
        channels, samples = _channels(file)
        if channels > 4:
            advice = "choose three with --channels R G B"
            return f"has {channels} channels ({samples}): {advice}"
        many = "s" if channels > 1 else ""
        return f"Pillow does not read {channels} channel{many} of {samples}: convert it, as to PNG"
    return None


def _channels(file: BinaryIO) -> tuple[int, str]:
    """The number of channels, and the kind of their samples; raises for other files."""
    file.seek(0)
    start = file.read(STREAM_WITHIN)
    if start.startswith(JPEG_2000):
        at = start.index(JPEG_2000[0]) + 40
        return int.from_bytes(start[at : at + 2], "big"), f"{(start[at + 2] & 127) + 1}-bit"
    tags = _tiff_tags(file, start)
    bits = "/".join(map(str, sorted(set(tags.get(BITS_PER_SAMPLE, (1,))))))
    kind = SAMPLES.get(tags.get(SAMPLE_FORMAT, (1,))[0], "")
    white = ", white is 0" if tags.get(PHOTOMETRIC) == (MIN_IS_WHITE,) else ""
    return tags.get(SAMPLES_PER_PIXEL, (1,))[0], f"{kind}{bits}-bit{white}"


def _tiff_tags(file: BinaryIO, start: bytes) -> dict[int, tuple[int, ...]]:
    """The first `MOST_SAMPLES` values of each tag of a TIFF that has small numbers. Pillow's reader
    would load all of a tag's bytes, of every tag."""
    order = {b"II": "<", b"MM": ">"}[start[:2]]
    big = struct.unpack(order + "H", start[2:4])[0] == 43  # with 64-bit offsets
    word, size = ("Q", 8) if big else ("I", 4)
    file.seek(struct.unpack(order + word, start[size : 2 * size])[0])
    many = "Q" if big else "H"
    count = struct.unpack(order + many, file.read(struct.calcsize(many)))[0]
    entries = file.read(min(count, MOST_TAGS) * (4 + 2 * size))
    tags = {}
    for tag, kind, number, value in struct.iter_unpack(f"{order}HH{word}{size}s", entries):
        if kind == SHORT:
            number = min(number, MOST_SAMPLES)
            if 2 * number > size:
                file.seek(struct.unpack(order + word, value)[0])
                value = file.read(2 * number)
            tags[tag] = struct.unpack(f"{order}{number}H", value[: 2 * number])
    return tags
