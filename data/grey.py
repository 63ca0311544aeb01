"""Grey images of other than 8 unsigned bits: the values in the file, and 8 bits of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
MIN_IS_WHITE, SIGNED = 0, 2
RANGE = "--range LOW HIGH"
UNSIGNED_16 = ("PNG", "PPM")  # formats whose mode "I" is of 16 bits; Pillow scales PPM to them


@dataclass(frozen=True)
class Depth:
    """The values of a grey image.

    Attributes:
        kind: of number, for messages.
        dtype: of the values in Pillow's array, reinterpreted.
        bits: of the whole range of grey levels; None if the type doesn't tell it.
        inverted: the lowest value is white.
    """

    kind: str
    dtype: type[np.generic]
    bits: int | None = None
    inverted: bool = False


def depth_of(image: Image.Image) -> Depth | None:
    """The kind of an open image's values, from its header; None for 8 unsigned bits, for colours,
    and for a grey image that Pillow has brought to 8 bits."""
    tags: Any = getattr(image, "tag_v2", {})
    inverted = tags.get(PHOTOMETRIC) == MIN_IS_WHITE  # Pillow follows it up to 8 bits
    signed = tags.get(SAMPLE_FORMAT, (1,))[0] == SIGNED
    bits = tags.get(BITS_PER_SAMPLE, (16,))[0]
    if image.mode == "F":
        return Depth("float", np.float32, inverted=inverted)
    if image.mode == "L" and signed:
        return Depth("signed 8-bit", np.int8, inverted=inverted)
    if image.mode.startswith("I;16"):  # also for TIFF with 12 bits
        if image.format == "FITS":
            return Depth("signed 16-bit", np.int16)
        return Depth("16-bit", np.int32, min(bits, 16), inverted)
    if image.mode != "I":
        return None
    if image.format in UNSIGNED_16:
        return Depth("16-bit", np.int32, 16)
    if tags and bits == 32 and not signed:
        return Depth("32-bit", np.uint32, inverted=inverted)
    return Depth(f"signed {bits if tags else 32}-bit", np.int32, inverted=inverted)


def values_of(image: Image.Image, depth: Depth) -> np.ndarray:
    """`(H, W)`: the values in the file."""
    if depth.dtype is np.int16:
        return np.asarray(image.convert("I")).astype(np.int16)
    return np.asarray(image.convert("I") if image.mode.startswith("I") else image).view(depth.dtype)


def to_bytes(
    values: np.ndarray, depth: Depth, scale: tuple[float, float] | None = None
) -> np.ndarray:
    """8 bits of the values in a file, of any shape; white is 255.

    Args:
        scale: the values of black and white (of white and black, if `inverted`); those beyond are
            clipped, and NaN counts as the first. None takes the upper 8 of the `bits`.

    Raises:
        ValueError: `scale` is None, and the type doesn't tell the range.
    """
    if scale is not None:
        low, high = scale
        with np.errstate(all="ignore"):  # infinities are clipped
            share = (values.astype(np.float64) - low) / (high - low)
        grey = np.rint(np.clip(np.nan_to_num(share, nan=0.0), 0, 1) * 255).astype(np.uint8)
    elif depth.bits is not None:
        grey = np.clip(values >> (depth.bits - 8), 0, 255).astype(np.uint8)
    else:
        finite = values[np.isfinite(values)]
        here = f", here from {finite.min():g} to {finite.max():g}" if finite.size else ""
        raise ValueError(
            f"its grey levels are {depth.kind} numbers{here}: give the range of all images with "
            f"{RANGE}"
        )
    return 255 - grey if depth.inverted else grey
