"""From bytes to RGB pixels: the one place where an image is decoded."""

import contextlib
import functools
import os
import re
import warnings
from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageCms, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

MAX_PIXELS = 178_956_970  # of an image: 0.5 GB of RGB, and Pillow's own limit

# Formats that Pillow has no decoder of its own for. EPS is a program, which it has Ghostscript run.
NOT_READ = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG"})
BITS_PER_SAMPLE = 258  # a tag of TIFF
COMMON = ("JPEG", "PNG", "GIF", "BMP", "PPM")
EMPTY = "the file is empty"


class UnreadableImageError(Exception):
    """An image that cannot be decoded; the message says why."""


def limit_pixels(most: int, worker: int = 0) -> None:
    """Set the pixels that an image of this process may have; without a call they are `MAX_PIXELS`.

    Args:
        worker: the number of a worker, with which a `DataLoader` calls its `worker_init_fn`.
    """
    # Pillow raises above twice its own limit, which may be odd
    Image.MAX_IMAGE_PIXELS = Fraction(most, 2)  # type: ignore[assignment]


def pixel_limit() -> int:
    """The pixels that an image may have in this process."""
    return MAX_PIXELS if Image.MAX_IMAGE_PIXELS is None else int(2 * Image.MAX_IMAGE_PIXELS)


@contextlib.contextmanager
def name_failure() -> Iterator[None]:
    """Turn whatever fails in the block into an `UnreadableImageError`, with the reason in one
    line."""
    try:
        yield
    except UnreadableImageError:
        raise
    except Exception as error:  # a damaged file makes Pillow's plugins raise almost anything
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise UnreadableImageError(" ".join(reason.split()) or type(error).__name__) from error


def read_image(file: BinaryIO) -> Image.Image:
    """Decode any image that Pillow reads to an RGB image; of many pictures the first one.

    As torchvision's loader does, an alpha channel is dropped and the EXIF orientation is left
    alone. Grey of 12 or 16 bits keeps its upper eight (Pillow's own conversion would clip it to
    white).

    Args:
        file: the image's bytes, as a file that can be sought; it stays open.

    Raises:
        UnreadableImageError: the file is empty, damaged, too large, or of no format that is read.
    """
    with _open(file) as image:
        return _to_rgb(image)


def read_pixels(file: BinaryIO) -> Tensor:
    """The same pixels as `(3, H, W) uint8`, sooner where the file is a JPEG.

    Pillow reads the header and says what the file is, whatever its name; torchvision decodes grey
    and colour JPEGs, with the same libjpeg-turbo. All else is Pillow's: CMYK, whose conversion is
    another one, and PNG, where a damaged file makes torchvision 0.29 crash. So is a JPEG that
    torchvision refuses, so that what is refused, and for what reason, does not depend on the way.

    Raises:
        UnreadableImageError: as for `read_image`.
    """
    with _open(file) as image:
        if _is_plain_jpeg(image):
            with contextlib.suppress(RuntimeError):
                return decode_jpeg(_bytes(file), mode=ImageReadMode.RGB)
        return torch.from_numpy(np.array(_to_rgb(image))).permute(2, 0, 1)


def image_extensions() -> frozenset[str]:
    """Extensions of all that Pillow can read, in lower case, with the dot."""
    return frozenset(
        extension
        for extension, kind in Image.registered_extensions().items()
        if kind in Image.OPEN and kind not in NOT_READ
    )


@contextlib.contextmanager
def _open(file: BinaryIO) -> Iterator[Image.Image]:
    """The image with its header read; what fails here or in the block is named in one line."""
    with name_failure(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # oddities of metadata are no concern of the training
        try:
            # one file for Pillow and torchvision, whose own takes no name that is not UTF-8
            with Image.open(file, formats=_formats()) as image:
                yield image
        except UnidentifiedImageError as error:
            empty = file.seek(0, os.SEEK_END) == 0
            raise UnreadableImageError(EMPTY if empty else "cannot identify image file") from error
        except Image.DecompressionBombError as error:  # by the header, before memory is taken
            count = re.search(r"\d+", str(error))
            assert count is not None
            reason = f"{int(count[0]):,} pixels, more than --max-pixels {pixel_limit()}"
            raise UnreadableImageError(reason) from error


@functools.cache
def _formats() -> list[str]:
    """What Pillow may try: it recognises some formats that it cannot decode, and hands EPS, which
    is a program, to an interpreter. Those that nearly all files are of come first."""
    Image.init()
    return [*COMMON, *(kind for kind in Image.ID if kind not in NOT_READ.union(COMMON))]


def _bytes(file: BinaryIO) -> Tensor:
    """All of a file `(L,) uint8`."""
    file.seek(0)
    return torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)


def _is_plain_jpeg(image: Image.Image) -> bool:
    return image.format == "JPEG" and image.mode in ("L", "RGB")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # "I;16" and its byte orders, also of TIFF with 12 bits; "I" is how 16-bit PGM and some PNG
        # arrive
        bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (16,))[0]
        upper_byte = np.clip(np.asarray(image.convert("I")) >> (min(bits, 16) - 8), 0, 255)
        upper_byte = upper_byte.astype(np.uint8)
        return Image.fromarray(upper_byte).convert("RGB")
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None
        return converted
    return image.convert("RGB")
