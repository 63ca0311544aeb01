"""A Caffe network's operations on single pixels, moved into our first convolution.

Caffe's networks take BGR pixels p from 0 to 255, ours RGB x normalised with ImageNet's mean and
deviation: p = 255 · (deviation · x + mean), with the channels in reverse. A mean, a scale and 1×1
convolutions at the start are affine, too, so that one matrix and one offset hold all of it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from system.errors import InputError
from system.normalisation import IMAGENET_MEAN, IMAGENET_STD
from tools.caffe.layers import Convolution, Scaling, Step, compose

LEAST_OFFSET = 1e-4  # of a pixel's deviation; less is rounding
LARGEST_REST = 1e-5  # of the filters; less is rounding

log = logging.getLogger("deepcluster")


@dataclass(frozen=True)
class Pixels:
    """C values of a pixel: matrix · x + offset of our input x, `(C, 3)` and `(C,)` float64."""

    matrix: np.ndarray
    offset: np.ndarray

    def then(self, step: Step) -> Pixels:
        """The values after one more layer.

        Raises:
            InputError: the layer is not affine in a single pixel.
        """
        if isinstance(step, Scaling):
            scale, shift = compose([step], len(self.offset))
            new = Pixels(scale[:, None] * self.matrix, scale * self.offset + shift)
        elif isinstance(step, Convolution) and step.weight.shape[2:] == (1, 1):
            self.check_input_of(step)
            if (step.stride, step.padding) != (1, 0):
                raise InputError(f"{step.where}: a 1 × 1 convolution with stride or padding")
            weight = step.weight[:, :, 0, 0].astype(np.float64)
            new = Pixels(weight @ self.matrix, weight @ self.offset + step.bias)
        else:
            raise InputError(
                f"{step.where}: comes before the first convolution of the features; only Sobel "
                "filters and layers that scale, shift or mix a pixel's channels may come there"
            )
        if not (np.isfinite(new.matrix).all() and np.isfinite(new.offset).all()):
            raise InputError(f"{step.where}: makes pixels infinite")
        return new

    def check_input_of(self, step: Convolution) -> None:
        if step.weight.shape[1] != len(self.offset):
            raise InputError(
                f"{step.where}: takes {step.weight.shape[1]} channels, of which there are "
                f"{len(self.offset)}"
            )

    def into_features(self, step: Convolution) -> tuple[np.ndarray, np.ndarray]:
        """Weight and bias of the first convolution on our input; warns if padding makes the edges
        differ, as it does unless the offset is 0."""
        self.check_input_of(step)
        weight = step.weight.astype(np.float64)
        if step.padding > 0:
            off = np.abs(np.linalg.lstsq(self.matrix, self.offset, rcond=None)[0]).max()
            if off > LEAST_OFFSET:
                log.warning(
                    "%s: pads with another value than ImageNet's mean (off by up to %.2g of a "
                    "pixel's deviation); the imported network's maps differ at the edges",
                    step.where,
                    off,
                )
        bias = step.bias + np.einsum("ocyx,c->o", weight, self.offset)
        return np.einsum("ocyx,ci->oiyx", weight, self.matrix), bias

    def into_sobel(self, step: Convolution, after: list[Scaling]) -> dict[str, np.ndarray]:
        """The weights of our grey and Sobel filters.

        Args:
            step: two filters on C values of a pixel. If C > 1, they include the mixture to grey:
                over the channels each filter may differ only by a factor.
            after: the scalings of the two edge maps.

        Raises:
            InputError: the filters are others.
        """
        self.check_input_of(step)
        if (step.weight.shape[2:], step.stride, step.padding) != ((3, 3), 1, 1):
            raise InputError(f"{step.where}: has 2 filters, not of 3 × 3 with padding 1 (Sobel's)")
        weight = step.weight.astype(np.float64)
        mix, filters = np.ones(1), weight
        if len(self.offset) > 1:
            mix, filters = _separate(weight, step.where)
        scale, shift = compose(after, 2)
        return {
            "sobel.0.weight": (mix @ self.matrix).reshape(1, 3, 1, 1),
            "sobel.0.bias": np.atleast_1d(mix @ self.offset),
            "sobel.1.weight": scale[:, None, None, None] * filters,
            "sobel.1.bias": scale * step.bias + shift,
        }


def bgr() -> Pixels:
    """The pixels that Caffe's networks take."""
    mean, deviation = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    return Pixels(255 * np.diag(deviation)[::-1], 255 * mean[::-1])


def _separate(weight: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Filters (2, C, 3, 3) as a mixture (C,) of the channels to grey, and filters (2, 1, 3, 3) on
    grey."""
    by_channel = weight.transpose(1, 0, 2, 3).reshape(weight.shape[1], -1)
    u, s, v = np.linalg.svd(by_channel, full_matrices=False)
    if s[1:].max() > LARGEST_REST * s[0]:
        raise InputError(f"{where}: its 2 filters are not those of one grey map of the image")
    return u[:, 0], (s[0] * v[0]).reshape(2, 1, 3, 3)
