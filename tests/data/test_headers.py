"""Pixels can be read beside damaged metadata; more than four channels can't."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from image_zoo import COLOURS, encoded, palette_with_alpha, tiff
from PIL import Image, PngImagePlugin

from data.decode import UnreadableImageError, read_image, read_pixels
from data.reading import EXIF, Reading

LARGE = 2**20 + 4096  # bytes; Pillow unpacks 1 MiB


def chunk(name: bytes, content: bytes, damage: int = 0) -> bytes:
    checked = name + content
    return (
        struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked) ^ damage)
    )


def with_chunk(png: bytes, added: bytes, before: bytes) -> bytes:
    at = png.index(before) - 4
    return png[:at] + added + png[at:]


PACKED = zlib.compress(bytes(LARGE))
CHUNKS = {
    "a large colour profile": chunk(b"iCCP", b"name\0\0" + PACKED),
    "large XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + PACKED),
    "large text": chunk(b"zTXt", b"Comment\0\0" + PACKED),
    "text with a wrong checksum": chunk(b"tEXt", b"Comment\0hello", damage=1),
}
PICTURES = {
    "colours": encoded(COLOURS, "PNG"),
    "palette with alpha": encoded(palette_with_alpha(), "PNG"),
    "16 bits with gamma": with_chunk(
        encoded((COLOURS[:, :, 0].astype("u2") * 257), "PNG"),
        chunk(b"gAMA", struct.pack(">I", 45455)),
        b"IDAT",
    ),
}


@pytest.mark.parametrize("exif", EXIF)
@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("added", CHUNKS)
def test_a_png_has_the_pixels_that_it_has_without_its_text(
    added: str, picture: str, before: bytes, exif: str
) -> None:
    plain = PICTURES[picture]
    content = with_chunk(plain, CHUNKS[added], before)
    expected = read_pixels(io.BytesIO(plain))
    reading = Reading(exif)
    assert torch.equal(read_pixels(io.BytesIO(content), reading), expected)
    slow = torch.from_numpy(np.array(read_image(io.BytesIO(content), reading)))
    assert torch.equal(slow.permute(2, 0, 1), expected)


def test_much_text_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    content = with_chunk(PICTURES["colours"], chunk(b"tEXt", b"Comment\0" + bytes(999)), b"IEND")
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 998)
    assert torch.equal(
        read_pixels(io.BytesIO(content)), read_pixels(io.BytesIO(PICTURES["colours"]))
    )


def test_damaged_pixels_beside_large_text_have_their_own_reason() -> None:
    content = with_chunk(PICTURES["colours"], CHUNKS["large text"], b"IDAT")
    with pytest.raises(UnreadableImageError, match="truncated"):
        read_pixels(io.BytesIO(content[:-40]))


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
def test_large_text_hides_no_bomb(before: bytes) -> None:
    content = with_chunk(PICTURES["colours"], CHUNKS["large text"], before)
    header = struct.pack(">II", 60_000, 60_000) + content[24:29]
    content = content[:8] + chunk(b"IHDR", header) + content[33:]
    with pytest.raises(UnreadableImageError, match=r"^3,600,000,000 pixels, more than"):
        read_pixels(io.BytesIO(content))


def test_an_orientation_is_kept_where_large_text_is_left_out() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = with_chunk(encoded(COLOURS, "PNG", exif=exif), CHUNKS["large XMP"], b"IDAT")
    height, width = COLOURS.shape[:2]
    assert read_pixels(io.BytesIO(content), Reading("apply")).shape == (3, width, height)


def jpeg_2000(channels: int) -> bytes:
    """The header of a stream; Pillow fails on it before it reads on."""
    size = struct.pack(">HIIIIIIIIH", 0, 8, 8, 0, 0, 8, 8, 0, 0, channels)
    size += bytes([11, 1, 1]) * channels
    return b"\xff\x4f\xff\x51" + struct.pack(">H", 2 + len(size)) + size + b"\xff\xd9"


def big_tiff(channels: int) -> bytes:
    """The tags of a TIFF with 64-bit offsets."""
    tags = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, channels, 16 + 8 + 20 * 5 + 8)]
    tags += [(262, 3, 1, 1), (277, 3, 1, channels)]
    entries = b"".join(struct.pack("<HHQQ", *tag) for tag in tags)
    head = b"II" + struct.pack("<HHHQQ", 43, 8, 0, 16, len(tags))
    return head + entries + bytes(8) + struct.pack(f"<{channels}H", *[16] * channels)


@pytest.mark.parametrize(
    ("content", "channels"),
    [
        *((tiff(np.zeros((8, 8, n), kind), order=order), f"{n} channels ({name})")
          for n in (5, 6, 7, 13, 224)
          for kind, name in (("u1", "8-bit"), ("u2", "16-bit"), ("i2", "signed 16-bit"),
                             ("f4", "float 32-bit"))
          for order in "<>"),
        (big_tiff(5), "5 channels (16-bit)"), (big_tiff(13), "13 channels (16-bit)"),
        (jpeg_2000(5), "5 channels (12-bit)"),
    ],
)  # fmt: skip
def test_more_than_four_channels_are_unreadable(
    content: bytes, channels: str, capfd: pytest.CaptureFixture[str]
) -> None:
    reason = f"has {channels}: choose three with --channels R G B"
    for read in (read_image, read_pixels):
        with pytest.raises(UnreadableImageError) as caught:
            read(io.BytesIO(content))
        assert str(caught.value) == reason
    assert capfd.readouterr().err == "", "Pillow prints nothing"


@pytest.mark.parametrize(
    ("values", "samples"),
    [
        (np.zeros((8, 8, 2), "u2"), "2 channels of 16-bit"),
        (np.zeros((8, 8, 3), "f4"), "3 channels of float 32-bit"),
        (np.zeros((8, 8), "f8"), "1 channel of float 64-bit"),
    ],
)  # fmt: skip
def test_a_kind_of_tiff_that_pillow_lacks_is_named(values: np.ndarray, samples: str) -> None:
    with pytest.raises(UnreadableImageError, match=f"^Pillow does not read {samples}: convert it"):
        read_pixels(io.BytesIO(tiff(values)))


def test_a_damaged_tiff_has_the_usual_reason() -> None:
    whole = tiff(np.zeros((8, 8, 5), "u2"))
    start = int.from_bytes(whole[4:8], "little")
    for content in (whole[:5], whole[:start], whole[: start + 1], whole[:4] + b"\xff" * 4):
        with pytest.raises(UnreadableImageError, match=r"^cannot identify image file$"):
            read_pixels(io.BytesIO(content))
