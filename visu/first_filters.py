"""The filters of a network's first conv layer as pictures."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

SCALE = "Each filter has its own scale: middle grey is 0, the extremes are its largest weight."
THROUGH_SOBEL = (
    "Sobel and the first layer together: what each filter looks for in the grey image. " + SCALE
)
CHANNELS = (
    "The weights themselves: on the left those of the horizontal derivative, on the right those of "
    "the vertical one. " + SCALE
)


@dataclass(frozen=True)
class FilterView:
    """One way to show all filters.

    Attributes:
        title: a few words.
        note: one or two sentences that explain the pictures.
        pictures: one for each filter, with a pixel for each weight.
        pairs: whether a picture shows two channels side by side.
    """

    title: str
    note: str
    pictures: list[Image.Image]
    pairs: bool = False


def view_filters(weights: dict[str, Tensor]) -> list[FilterView]:
    """The ways to show the first conv layer of a checkpoint, the best one first.

    Sobel and the first layer are both linear, so that together they are a filter of the grey image.
    """
    first = next(w for n, w in weights.items() if w.ndim == 4 and not n.startswith("sobel."))
    first = first.float()
    if "sobel.1.weight" not in weights:
        return [FilterView("in colour", SCALE, [_picture(w) for w in first])]
    whole = [_picture(w) for w in through_sobel(weights, first)]
    return [
        FilterView("on the image", THROUGH_SOBEL, whole),
        FilterView("on the two Sobel channels", CHANNELS, [_pair(w) for w in first], pairs=True),
    ]


def through_sobel(weights: dict[str, Tensor], first: Tensor) -> Tensor:
    """Filters `(C, 2, h, w)` of the Sobel channels → filters `(C, 1, h + 2, w + 2)` of the grey
    image."""
    return F.conv_transpose2d(first, weights["sobel.1.weight"].float())


def _picture(weights: Tensor) -> Image.Image:
    """One filter `(1 or 3, h, w)`."""
    grey_or_colours = _levels(weights).transpose(1, 2, 0)
    return Image.fromarray(grey_or_colours.squeeze(2) if len(weights) == 1 else grey_or_colours)


def _pair(weights: Tensor) -> Image.Image:
    """One filter `(2, h, w)`: its channels with a transparent column between them."""
    levels = _levels(weights)
    left, right = np.stack([levels, np.full_like(levels, 255)], axis=-1)  # grey and opacity
    return Image.fromarray(np.hstack([left, np.zeros_like(left[:, :1]), right]))


def _levels(weights: Tensor) -> np.ndarray:
    """Grey levels `uint8`, 128 for a weight of 0."""
    largest = weights.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    return (128 + 127 * weights / largest).round().to(torch.uint8).numpy()
