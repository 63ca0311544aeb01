"""The images that filters respond to most, and where in them."""

from collections.abc import Callable, Sequence
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
    """For each of C filters the K images with the highest mean activations, best first.

    Attributes:
        images: `(C, K) int64`, their numbers; −1 if the filter responds to fewer images.
        means: `(C, K) float32`, over all places of the map, after the ReLU; −∞ for image −1.
        peaks: `(C, K) int64`, the place with the highest activation, counted row by row.
    """

    images: np.ndarray
    means: np.ndarray
    peaks: np.ndarray

    @staticmethod
    def none(filters: int, count: int) -> "TopImages":
        """Before any image is seen."""
        shape = filters, count
        return TopImages(
            np.full(shape, -1, np.int64),
            np.full(shape, -np.inf, np.float32),
            np.zeros(shape, np.int64),
        )

    def with_more(self, images: np.ndarray, means: np.ndarray, peaks: np.ndarray) -> "TopImages":
        """The best of these images and of more.

        A mean of 0 does not count as a response. Equal means are ranked by the images' numbers, so
        the result does not depend on the order of the images.

        Args:
            images: `(B,)`, the numbers of new images.
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


def count_filters(model: ConvNet, layer: int) -> int:
    """The number of filters of a conv layer."""
    channels = model.modules_before_relu(layer)[-1].num_features
    assert isinstance(channels, int)
    return channels


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
        layers: ascending.
        count: images of each filter.
        on_unreadable, advance: see `forward_pass`.
    """
    top = {layer: TopImages.none(count_filters(model, layer), count) for layer in layers}
    ends = np.cumsum([len(each.images) for each in top.values()])[:-1]

    def summaries(x: Tensor) -> Tensor:
        """`(B, 3, H, W)` → `(B, 2, C)`: mean and place of the maximum, all layers side by side."""
        found = []
        for _, maps in model.each_conv_features(x, layers):
            means = maps.mean((2, 3), dtype=torch.float32)
            found.append(torch.stack([means, maps.flatten(2).argmax(dim=2).float()], dim=1))
        return torch.cat(found, dim=2)

    with frozen(model), torch.inference_mode():
        steps = forward_pass(
            loader, summaries, model.std, compute, on_unreadable, advance, torch.float32
        )
        for index, rows, _ in steps:
            for layer, part in zip(layers, np.split(rows, ends, axis=2), strict=True):
                top[layer] = top[layer].with_more(index, part[:, 0], part[:, 1].astype(np.int64))
    return top
