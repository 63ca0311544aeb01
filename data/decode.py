"""From a file to RGB pixels: the one place where an image is decoded."""

import warnings

import numpy as np
from PIL import Image, ImageCms


class UnreadableImageError(Exception):
    """A file that cannot be decoded; the message says why."""


def read_image(path: str) -> Image.Image:
    """Decode any file that Pillow reads to an RGB image.

    As torchvision's loader does, an alpha channel is dropped and the EXIF orientation is left
    alone. 16-bit grey keeps its upper eight bits (Pillow's own conversion would clip it to white).

    Raises:
        UnreadableImageError: the file is missing, damaged or of an unknown format.
    """
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")  # oddities of metadata are no concern of the training
            return _to_rgb(image)
    except Exception as error:  # a damaged file makes Pillow's plugins raise almost anything
        reason = (str(error) or type(error).__name__).replace(repr(path), "").replace(path, "")
        raise UnreadableImageError(" ".join(reason.split())) from error


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
