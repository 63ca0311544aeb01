"""The images that filters respond to most, and where in them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from data.loading import Batch
from features.forward import forward_pass
from models import ConvNet
from models.frozen import frozen
from system.device import Compute


@dataclass(frozen=True)
class TopImages:
    """Of each of C filters the images with the highest mean activations, best first.

    Attributes:
        images: `(C, K) int64`, their numbers; −1 where there is none.
        means: `(C, K) float32`, over all places of the map, after the ReLU; −∞ where there is none.
        peaks: `(C, K) int64`, the place with the highest activation, counted row by row.
    """

    images: np.ndarray
    means: np.ndarray
    peaks: np.ndarray

    @staticmethod
    def none(filters: int, count: int) -> "TopImages":
        """Of no images yet."""
        shape = filters, count
        return TopImages(
            np.full(shape, -1, np.int64),
            np.full(shape, -np.inf, np.float32),
            np.zeros(shape, np.int64),
        )

    def with_more(self, images: np.ndarray, means: np.ndarray, peaks: np.ndarray) -> "TopImages":
        """The same with more images to choose from. Equal means are ranked by the images' numbers,
        so that the order in which images come makes no difference; a mean of 0 is no response.

        Args:
            images: `(B,)`, their numbers, none of them seen before.
            means, peaks: `(B, C)`.
        """
        filters, count = self.images.shape
        new = np.broadcast_to(images, (filters, len(images))).copy()
        new_means = np.where(means > 0, means, -np.inf).T
        new[np.isinf(new_means)] = -1
        all_images = np.concatenate([self.images, new], axis=1)
        all_means = np.concatenate([self.means, new_means], axis=1)
        all_peaks = np.concatenate([self.peaks, peaks.T], axis=1)
        best = np.lexsort((all_images, -all_means), axis=1)[:, :count]
        return TopImages(
            *(np.take_along_axis(each, best, axis=1) for each in (all_images, all_means, all_peaks))
        )


def top_images(
    loader: DataLoader[Batch],
    model: ConvNet,
    layers: Sequence[int],
    count: int,
    compute: Compute,
    on_unreadable: Callable[[dict[int, str]], None],
    advance: Callable[[int], None] = lambda done: None,
) -> dict[int, TopImages]:
    """The images that each filter of some conv layers responds to most, in one pass over the data.

    The memory does not depend on the number of images.

    Args:
        loader: goes through each image once.
        count: images of each filter.
        on_unreadable, advance: as in `forward_pass`.
    """
    channels: dict[int, int] = {}

    def summaries(x: Tensor) -> Tensor:
        """`(B, 3, H, W)` → `(B, 2, C)`: mean and place of the maximum, the layers' side by side."""
        found = []
        for layer, maps in model.each_conv_features(x, layers):
            channels[layer] = maps.shape[1]
            means = maps.mean((2, 3), dtype=torch.float32)
            found.append(torch.stack([means, maps.flatten(2).argmax(dim=2).float()], dim=1))
        return torch.cat(found, dim=2)

    top: TopImages | None = None
    with frozen(model), torch.inference_mode():
        steps = forward_pass(loader, summaries, compute, on_unreadable, advance, torch.float32)
        for index, rows, _ in steps:
            if top is None:
                top = TopImages.none(rows.shape[2], count)
            top = top.with_more(index, rows[:, 0], rows[:, 1].astype(np.int64))
    return {} if top is None else _by_layer(top, channels)


def _by_layer(top: TopImages, channels: dict[int, int]) -> dict[int, TopImages]:
    ends = np.cumsum(list(channels.values()))[:-1]
    parts: Iterable[tuple[np.ndarray, ...]] = zip(
        *(np.split(each, ends) for each in (top.images, top.means, top.peaks)), strict=True
    )
    return {layer: TopImages(*part) for layer, part in zip(channels, parts, strict=True)}
