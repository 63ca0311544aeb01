"""From a file to RGB pixels: the one place where an image is decoded."""

import contextlib
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image, ImageCms
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg, read_file


class UnreadableImageError(Exception):
    """A file that cannot be decoded; the message says why."""


def read_image(path: str) -> Image.Image:
    """Decode any file that Pillow reads to an RGB image.

    As torchvision's loader does, an alpha channel is dropped and the EXIF orientation is left
    alone. 16-bit grey keeps its upper eight bits (Pillow's own conversion would clip it to white).

    Raises:
        UnreadableImageError: the file is missing, damaged or of an unknown format.
    """
    with _open(path) as image:
        return _to_rgb(image)


def read_pixels(path: str) -> Tensor:
    """The same pixels as `(3, H, W) uint8`, sooner where the file is a JPEG.

    Pillow reads the header and says what the file is, whatever its name; torchvision decodes grey
    and colour JPEGs, with the same libjpeg-turbo. All else is Pillow's: CMYK, whose conversion is
    another one, and PNG, where a damaged file makes torchvision 0.29 crash. So is a JPEG that
    torchvision refuses, so that what is refused, and for what reason, does not depend on the way.

    Raises:
        UnreadableImageError: as for `read_image`.
    """
    with _open(path) as image:
        if _is_plain_jpeg(image):
            with contextlib.suppress(RuntimeError):
                return decode_jpeg(read_file(path), mode=ImageReadMode.RGB)
        return torch.from_numpy(np.array(_to_rgb(image))).permute(2, 0, 1)


def read_jpeg(path: str) -> Tensor | None:
    """The bytes `(L,) uint8` of a JPEG that nvJPEG can be trusted with; None for any other file.

    It takes three channels for YCbCr, and may return part of a file that was cut off.

    Raises:
        UnreadableImageError: as for `read_image`, as far as the header shows it.
    """
    with _open(path) as image:
        if not _is_plain_jpeg(image) or image.info.get("adobe_transform", 1) != 1:
            return None
        if image.mode == "RGB" and not {"jfif", "exif", "adobe_transform"} & set(image.info):
            return None  # libjpeg then guesses from the names of the channels
        data = read_file(path)
        return data if data[-2:].tolist() == [0xFF, 0xD9] else None  # ends with its end marker


@contextlib.contextmanager
def _open(path: str) -> Iterator[Image.Image]:
    """The image with its header read; what fails here or in the block is named in one line."""
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")  # oddities of metadata are no concern of the training
            yield image
    except Exception as error:  # a damaged file makes Pillow's plugins raise almost anything
        reason = (str(error) or type(error).__name__).replace(repr(path), "").replace(path, "")
        raise UnreadableImageError(" ".join(reason.split())) from error


def _is_plain_jpeg(image: Image.Image) -> bool:
    return image.format == "JPEG" and image.mode in ("L", "RGB")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # "I;16" and its byte orders; "I" is how 16-bit PGM and some PNG arrive
        upper_byte = np.clip(np.asarray(image.convert("I")) >> 8, 0, 255).astype(np.uint8)
        return Image.fromarray(upper_byte).convert("RGB")
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None
        return converted
    return image.convert("RGB")
