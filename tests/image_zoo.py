"""Image files of every kind that an uncleaned data set may have, and their pixels."""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torchvision.io import decode_jpeg

import data.decode

# By package: the one that the product uses, and torchvision's, which it falls back to
JPEG_DECODERS: dict[str, Callable[..., Any]] = {
    decode.__module__.split(".")[0]: decode for decode in (data.decode.decode_jpeg, decode_jpeg)
}
HEIGHT, WIDTH = 24, 36
Y, X = np.mgrid[:HEIGHT, :WIDTH]
GREY16 = (Y * 2700 + X * 91).astype(np.uint16)
COLOURS = np.stack([X * 7, Y * 10, 255 - X * 5], axis=2).astype(np.uint8)
OTHERS = 255 - COLOURS  # the later pictures of a file


@dataclass(frozen=True)
class Kind:
    """A file and its pixels `(H, W, 3)`, up to `tolerance` grey levels on average; or the reason
    why it is unreadable."""

    content: bytes
    pixels: np.ndarray | None = None
    reason: str = ""
    tolerance: float = 0


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values.astype(np.uint8)[:, :, None], 3, axis=2)


def encoded(pixels: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG file by the specification: Pillow writes no 16-bit colours and no false sizes."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png16(values: np.ndarray) -> bytes:
    """`(H, W, 3 or 4) uint16` as PNG."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(WIDTH, HEIGHT, 16, 2 if values.shape[2] == 3 else 6, rows)


def tiff12(values: np.ndarray) -> bytes:
    """`(H, W)` numbers below 4096 as a 12-bit TIFF; W is even."""
    pairs = values.reshape(-1, 2).astype(np.uint32)
    packed = np.stack(
        [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1
    )
    data = packed.astype(np.uint8).tobytes()
    tags = [(256, WIDTH), (257, HEIGHT), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1)]
    tags += [(278, HEIGHT), (279, len(data))]
    directory = struct.pack("<H", len(tags))
    directory += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + bytes(4)


def tiff(values: np.ndarray, photometric: int = 1, order: str = "<") -> bytes:
    """`(H, W)` or `(H, W, C)` numbers of any kind as an uncompressed TIFF, which Pillow writes only
    for some.

    Args:
        photometric: 0 if 0 is white, 1 if 0 is black.
        order: "<" for little-endian, ">" for big-endian.
    """
    channels = values.shape[2] if values.ndim == 3 else 1
    data = values.astype(order + values.dtype.str[1:]).tobytes()
    bits, kind = values.dtype.itemsize * 8, {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    of_each = {tag: struct.pack(f"{order}{channels}H", *[value] * channels).ljust(4, b"\0")
               for tag, value in ((258, bits), (339, kind))}  # fmt: skip
    places = {258: 8 + len(data), 339: 8 + len(data) + len(of_each[258])}
    height, width = values.shape[:2]
    tags = {256: width, 257: height, 259: 1, 262: photometric, 273: 8, 277: channels}
    tags |= {278: height, 279: len(data), **places}
    directory = struct.pack(order + "H", len(tags))
    for tag, number in sorted(tags.items()):
        if tag in places:
            inline = channels <= 2
            place = of_each[tag] if inline else struct.pack(order + "I", number)
            directory += struct.pack(order + "HHI", tag, 3, channels) + place
        elif tag == 277:
            directory += struct.pack(order + "HHIHH", tag, 3, 1, number, 0)
        else:
            directory += struct.pack(order + "HHII", tag, 4, 1, number)
    after = b"".join(of_each.values())
    head = {"<": b"II*\0", ">": b"MM\0*"}[order]
    head += struct.pack(order + "I", 8 + len(data) + len(after))
    return head + data + after + directory + bytes(4)


def cmyk_pixels(inks: np.ndarray) -> np.ndarray:
    """The RGB pixels under `(H, W, 4) uint8` of ink."""
    left = 255 - inks.astype(float)
    return np.rint(left[:, :, :3] * left[:, :, 3:] / 255).astype(np.uint8)


def without_segment(jpeg: bytes, marker: int) -> bytes:
    start = jpeg.index(bytes([0xFF, marker]))
    length = int.from_bytes(jpeg[start + 2 : start + 4], "big")
    return jpeg[:start] + jpeg[start + 2 + length :]


def with_size(jpeg: bytes, width: int, height: int) -> bytes:
    """The same file with another size in its header."""
    frame = jpeg.index(b"\xff\xc0")
    return jpeg[: frame + 5] + struct.pack(">HH", height, width) + jpeg[frame + 9 :]


def palette_with_alpha() -> Image.Image:
    image = Image.fromarray((X * 7).astype(np.uint8), "L").convert("P")
    image.putpalette([value for i in range(256) for value in (i, 255 - i, i // 2)])
    image.info["transparency"] = bytes(range(256))
    return image


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    return exif


def kinds() -> dict[str, Kind]:
    """By file name."""
    inks = np.stack([X * 7, Y * 10, X * 3 + Y, (X + Y) * 2], axis=2).astype(np.uint8)
    adobe = encoded(Image.fromarray(inks, "CMYK"), "JPEG", quality=100)
    wide = np.stack([GREY16, GREY16 // 2, 65535 - GREY16, GREY16], axis=2)
    index = (X * 7).astype(np.uint8)
    looked_up = np.stack([index, 255 - index, index // 2], axis=2)
    frames = {"save_all": True, "append_images": [Image.fromarray(OTHERS)] * 2}
    jpeg, plain_png = encoded(COLOURS, "JPEG", quality=95), encoded(COLOURS, "PNG")
    alpha = np.dstack([COLOURS, X.astype(np.uint8)])
    quantised = Image.fromarray(COLOURS).quantize(256)
    of_gif = np.asarray(quantised.convert("RGB"))
    large = "pixels, more than --max-pixels 178956970"
    bmp = encoded(COLOURS, "BMP")
    wide_row, high_column = np.tile(COLOURS[:1], (1, 139, 1)), np.tile(COLOURS[:, :1], (209, 1, 1))
    return {
        "plain.png": Kind(plain_png, COLOURS),
        "plain.jpg": Kind(jpeg, COLOURS, tolerance=4),
        "grey 16 bit.png": Kind(encoded(GREY16, "PNG"), grey(GREY16 >> 8)),
        "grey 16 bit.tif": Kind(encoded(GREY16, "TIFF"), grey(GREY16 >> 8)),
        "grey 12 bit.tif": Kind(tiff12(GREY16 >> 4), grey(GREY16 >> 8)),
        "colours 16 bit.png": Kind(png16(wide[:, :, :3]), (wide >> 8)[:, :, :3].astype(np.uint8)),
        "alpha 16 bit.png": Kind(png16(wide), (wide >> 8)[:, :, :3].astype(np.uint8)),
        "alpha.png": Kind(encoded(alpha, "PNG"), COLOURS),
        "alpha.webp": Kind(encoded(alpha, "WEBP", lossless=True, exact=True), COLOURS),
        "palette with alpha.png": Kind(encoded(palette_with_alpha(), "PNG"), looked_up),
        "cmyk adobe.jpg": Kind(adobe, cmyk_pixels(inks), tolerance=4),
        # Adobe inverts the inks; CMYK JPEGs without its mark almost always do the same
        "cmyk without mark.jpg": Kind(without_segment(adobe, 0xEE), cmyk_pixels(inks), tolerance=4),
        "animated.gif": Kind(
            encoded(quantised, "GIF", save_all=True, append_images=[Image.fromarray(OTHERS)]),
            of_gif,
        ),
        "animated.webp": Kind(encoded(COLOURS, "WEBP", lossless=True, **frames), COLOURS),
        "animated.png": Kind(encoded(COLOURS, "PNG", **frames), COLOURS),
        "pages.tif": Kind(encoded(COLOURS, "TIFF", **frames), COLOURS),
        "turned.jpg": Kind(encoded(COLOURS, "JPEG", quality=95, exif=turned()), COLOURS, "", 4),
        "one pixel.png": Kind(encoded(COLOURS[:1, :1], "PNG"), COLOURS[:1, :1]),
        "wide.png": Kind(encoded(wide_row, "PNG"), wide_row),
        "high.png": Kind(encoded(high_column, "PNG"), high_column),
        "gif called.jpg": Kind(encoded(quantised, "GIF"), of_gif),
        "png called.jpg": Kind(plain_png, COLOURS),
        "jpeg called.png": Kind(jpeg, COLOURS, tolerance=4),
        "cut.jpg": Kind(jpeg[:-40], reason="image file is truncated"),
        "cut.png": Kind(plain_png[: len(plain_png) // 2], reason="image file is truncated"),
        "empty.jpg": Kind(b"", reason="the file is empty"),
        "text.jpg": Kind(b"not an image\n", reason="cannot identify image file"),
        "page.png": Kind(b"<html><script>", reason="cannot identify image file"),
        "program.jpg": Kind(
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
            reason="cannot identify image file",
        ),
        "bomb.png": Kind(png(60_000, 60_000, 8, 2, b""), reason=f"3,600,000,000 {large}"),
        "bomb.jpg": Kind(with_size(jpeg, 65_500, 65_500), reason=f"4,290,250,000 {large}"),
        "bomb.gif": Kind(
            b"GIF89a" + b"\xff" * 4 + encoded(quantised, "GIF")[10:],
            reason=f"4,294,836,225 {large}",
        ),
        "bomb.bmp": Kind(
            bmp[:18] + struct.pack("<ii", 40_000, 40_000) + bmp[26:],
            reason=f"1,600,000,000 {large}",
        ),
    }
