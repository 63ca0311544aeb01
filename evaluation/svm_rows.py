"""Images → rows for linear classifiers: pooled activations of frozen conv layers, of length 1."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data.images import ImageList, RaiseUnreadable
from data.loading import ImageDataset, load_in_order
from data.transforms import warped
from features.forward import forward_pass, raise_on_infinite
from models import ConvNet
from models.layers import probe_pool
from system.device import Compute
from system.progress import progress

BATCH = 64  # images; in float32, 16 of them take 200 MB of a GPU in VGG-16's conv layers


@torch.inference_mode()
def layer_rows(
    model: ConvNet,
    images: ImageList,
    layers: Sequence[int],
    label: str,
    compute: Compute,
    size: int,
    workers: int,
    verbose: bool,
) -> dict[int, np.ndarray]:
    """The rows `(N, D) float32` of N images by layer, in one pass over the images.

    Raises:
        InputError: an image cannot be read, or its features are not finite.
    """

    def forward(pixels: Tensor) -> Tensor:
        return torch.cat(pooled_rows(model, pixels, layers), dim=1)

    blank = torch.zeros(1, 3, size, size, device=compute.device)
    dims = [rows.shape[1] for rows in pooled_rows(model, blank, layers)]
    found = [np.empty((len(images), dim), np.float32) for dim in dims]
    loader = load_in_order(ImageDataset(images, warped(size)), BATCH, workers, compute.device)
    with progress(f"features of {label}", len(images), "images", verbose) as advance:
        steps = forward_pass(
            loader, forward, model.std, compute, RaiseUnreadable(images), advance, torch.float32,
            raise_on_infinite(images),
        )  # fmt: skip
        for index, rows, _ in steps:
            for whole, part in zip(found, np.split(rows, np.cumsum(dims)[:-1], 1), strict=True):
                whole[index] = part
    return dict(zip(layers, found, strict=True))


def pooled_rows(model: ConvNet, pixels: Tensor, layers: Sequence[int]) -> list[Tensor]:
    """`(B, 3, H, W)` → rows `(B, D)` of length 1 for each layer."""
    rows = {}
    for layer, maps in model.each_conv_features(pixels, layers):
        pool = probe_pool(model.arch, layer, maps)
        rows[layer] = F.normalize(pool(maps.float()).flatten(1))
    return [rows[layer] for layer in layers]
