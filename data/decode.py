"""From bytes to RGB pixels: the one place where an image is decoded."""

import contextlib
import functools
import io
import logging
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from data.bands import bands_of, read_bands, rgb_of_bands
from data.grey import Depth, depth_of, to_bytes, values_of
from data.headers import why_unidentified, without_text
from data.reading import AS_STORED, Reading

MAX_PIXELS = 178_956_970  # of an image: 0.5 GB of RGB, and Pillow's own limit

# Formats that Pillow cannot decode, and EPS, which Pillow passes to Ghostscript as a program
NOT_READ = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG"})
COMMON = ("JPEG", "PNG", "GIF", "BMP", "PPM")
EMPTY = "the file is empty"
SHORTEST_EXIF = 16  # bytes; an EXIF segment with an orientation is longer
LOOKED_AT = 100_000  # values of an image, by `read_grey`

Decoded = TypeVar("Decoded")

# Pillow's messages would reach stderr for each image, beside the reason that is given
logging.getLogger("PIL").addHandler(logging.NullHandler())


def _jpeg_decoder() -> Callable[..., Any]:
    """TorchCodec's, or torchvision's deprecated one without a TorchCodec >= 0.16 for this torch."""
    try:
        from torchcodec.decoders import decode_jpeg
    except (ImportError, OSError, RuntimeError):
        from torchvision.io import decode_jpeg as deprecated

        return deprecated
    return decode_jpeg


decode_jpeg = _jpeg_decoder()


class UnreadableImageError(Exception):
    """An image that cannot be decoded; the message says why."""


def limit_pixels(most: int) -> None:
    """Set how many pixels an image may have in this process; the default is `MAX_PIXELS`."""
    # Pillow raises above twice its own limit, which may be odd
    Image.MAX_IMAGE_PIXELS = Fraction(most, 2)  # type: ignore[assignment]


def pixel_limit() -> int:
    """The pixels that an image may have in this process."""
    return MAX_PIXELS if Image.MAX_IMAGE_PIXELS is None else int(2 * Image.MAX_IMAGE_PIXELS)


@contextlib.contextmanager
def name_failure() -> Iterator[None]:
    """Turn any exception in the block into an `UnreadableImageError` with a one-line reason."""
    try:
        yield
    except UnreadableImageError:
        raise
    except Exception as error:  # a damaged file makes Pillow's plugins raise almost anything
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise UnreadableImageError(" ".join(reason.split()) or type(error).__name__) from error


def read_image(file: BinaryIO, reading: Reading = AS_STORED) -> Image.Image:
    """Decode any image that Pillow reads to RGB; of several pictures in a file, the first.

    As in torchvision's loader, an alpha channel is dropped. Grey of 12 or 16 bits keeps its upper
    eight (Pillow's own conversion would clip it to white), or is scaled by the range.

    Args:
        file: the image's bytes, seekable; it stays open.

    Raises:
        UnreadableImageError: the file is empty, damaged, too large, or of an unknown format; or it
            needs a range, or has no such bands.
    """
    if (rgb := _of_bands(file, reading)) is not None:
        return Image.fromarray(rgb)
    return _decoded(file, lambda image: _decode(image, reading))


def read_pixels(file: BinaryIO, reading: Reading = AS_STORED) -> Tensor:
    """The same pixels as `(3, H, W) uint8`, in less time if the file is a JPEG.

    Pillow reads the header and detects the format. TorchCodec, or else torchvision, decodes grey
    and colour JPEGs, with the same libjpeg-turbo. Pillow decodes everything else: CMYK, which it
    converts differently; PNG, where a damaged file makes torchvision 0.29 crash; JPEGs to be
    turned; and JPEGs that the fast decoder fails on, so that the same files are unreadable for the
    same reasons.

    Raises:
        UnreadableImageError: as for `read_image`.
    """

    if (rgb := _of_bands(file, reading)) is not None:
        return torch.from_numpy(rgb).permute(2, 0, 1)

    def pixels(image: Image.Image) -> Tensor:
        if _is_plain_jpeg(image) and not _is_to_be_turned(image, reading.exif):
            with contextlib.suppress(RuntimeError):
                return _stored_pixels(file, image)
        return torch.from_numpy(np.array(_decode(image, reading))).permute(2, 0, 1)

    return _decoded(file, pixels)


def read_grey(file: BinaryIO, reading: Reading = AS_STORED) -> tuple[np.ndarray, np.ndarray]:
    """Some values of a grey image, or of chosen bands, as stored, `(P,)`, and their grey levels,
    `(P,) uint8`. P is 0 for colours and for 8 unsigned bits.

    Raises:
        UnreadableImageError: as for `read_image`.
    """

    def levels(values: np.ndarray, depth: Depth | None) -> tuple[np.ndarray, np.ndarray]:
        if depth is None:
            return np.empty(0), np.empty(0, np.uint8)
        few = values.ravel()[:: max(values.size // LOOKED_AT, 1)]
        return few, to_bytes(few, depth, reading.range)

    def of_image(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
        depth = depth_of(image)
        return levels(np.empty(0) if depth is None else values_of(image, depth), depth)

    with name_failure():
        if (found := read_bands(file, reading, pixel_limit())) is not None:
            return levels(*found)
    return _decoded(file, of_image)


def count_pixels(file: BinaryIO, reading: Reading = AS_STORED) -> int:
    """The pixels of an image, from its header.

    Raises:
        UnreadableImageError: as for `read_image`, but for damage behind the header.
    """
    with name_failure():
        if (bands := bands_of(file, reading)) is not None:
            return math.prod(bands.size)
    return _decoded(file, lambda image: image.width * image.height)


def image_extensions() -> frozenset[str]:
    """The extensions of all formats that are read, in lower case, with the dot."""
    return frozenset(
        extension
        for extension, kind in Image.registered_extensions().items()
        if kind in Image.OPEN and kind not in NOT_READ
    )


def _of_bands(file: BinaryIO, reading: Reading) -> np.ndarray | None:
    """The pixels `(H, W, 3) uint8` of an image of bands; None for one that Pillow decodes."""
    with name_failure():
        found = read_bands(file, reading, pixel_limit())
        return None if found is None else rgb_of_bands(*found, reading)


def _decoded(file: BinaryIO, decode: Callable[[Image.Image], Decoded]) -> Decoded:
    """Open an image and decode it; a PNG that fails, without its text and profile. Pillow limits
    them to 1 MiB, and damage in them is no damage to the pixels."""
    try:
        with _open(file) as image:
            return decode(image)
    except UnreadableImageError as failure:
        if isinstance(failure.__cause__, Image.DecompressionBombError):
            raise
        with name_failure():
            pixels = without_text(file)
        if pixels is None:
            raise
    with _open(io.BytesIO(pixels)) as image:
        return decode(image)


@contextlib.contextmanager
def _open(file: BinaryIO) -> Iterator[Image.Image]:
    """Open an image and read its header; a failure here or in the block has a one-line reason."""
    with name_failure(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd metadata
        try:
            with Image.open(file, formats=_formats()) as image:
                yield image
        except UnidentifiedImageError as error:
            empty = file.seek(0, os.SEEK_END) == 0
            reason = EMPTY if empty else why_unidentified(file) or "cannot identify image file"
            raise UnreadableImageError(reason) from error
        except Image.DecompressionBombError as error:  # from the header, before memory is taken
            count = re.search(r"\d+", str(error))
            assert count is not None
            reason = f"{int(count[0]):,} pixels, more than --max-pixels {pixel_limit()}"
            raise UnreadableImageError(reason) from error


@functools.cache
def _formats() -> list[str]:
    """The formats that Pillow may try, the common ones first."""
    Image.init()
    return [*COMMON, *(kind for kind in Image.ID if kind not in NOT_READ.union(COMMON))]


def _stored_pixels(file: BinaryIO, image: Image.Image) -> Tensor:
    """The pixels of a grey or colour JPEG, not turned."""
    file.seek(0)
    content = file.read()
    # TorchCodec turns the picture by whatever looks like EXIF in an APP1 segment: cut those out
    for name, segment in getattr(image, "applist", []):
        if name == "APP1" and len(segment) >= SHORTEST_EXIF:  # others' bytes may occur elsewhere
            length = (len(segment) + 2).to_bytes(2, "big")
            content = content.replace(b"\xff\xe1" + length + segment, b"", 1)
    pixels: Tensor = decode_jpeg(
        torch.frombuffer(bytearray(content), dtype=torch.uint8), mode="RGB"
    )
    return pixels


def _is_plain_jpeg(image: Image.Image) -> bool:
    return image.format == "JPEG" and image.mode in ("L", "RGB")


def _is_to_be_turned(image: Image.Image, exif: str) -> bool:
    if exif == "ignore":
        return False
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    except Exception:  # damaged EXIF makes Pillow raise almost anything
        return False


def _decode(image: Image.Image, reading: Reading) -> Image.Image:
    image.load()  # Pillow turns a TIFF here and removes its orientation
    if _is_to_be_turned(image, reading.exif):
        with contextlib.suppress(Exception):  # other damaged EXIF tags raise after the turn
            ImageOps.exif_transpose(image, in_place=True)
    return _to_rgb(image, reading)


def _to_rgb(image: Image.Image, reading: Reading) -> Image.Image:
    if (depth := depth_of(image)) is not None:
        grey = to_bytes(values_of(image, depth), depth, reading.range)
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None
        return converted
    return image.convert("RGB")
