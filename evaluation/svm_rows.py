"""Images → rows for linear classifiers: pooled activations of frozen conv layers, of length 1. They
are kept for the next evaluation."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data.images import ImageList, content_digest
from data.loading import ImageDataset, load_in_order
from data.transforms import warped
from data.unreadable import RaiseUnreadable
from features.forward import forward_pass, raise_on_infinite
from models import Network
from models.layers import probe_pool
from system.device import Compute
from system.kept import Key, Store
from system.progress import progress

BATCH = 64  # images; in float32, 16 of them take 200 MB of a GPU in VGG-16's conv layers


def kept_rows(
    store: Store,
    key: Key,
    model: Network,
    images: ImageList,
    layers: Sequence[int],
    label: str,
    compute: Compute,
    size: int,
    workers: int,
    verbose: bool,
) -> dict[int, np.ndarray]:
    """As `layer_rows`, but rows that were kept are read, and the others are kept.

    Args:
        key: all that the rows depend on, beside the images and the layer.
    """
    key = {**key, "images": content_digest(images)[:12]}
    keys = {layer: {**key, "layer": layer} for layer in layers}
    found = {layer: store.find(f"{label}_conv{layer}", keys[layer]) for layer in layers}
    rows = {layer: kept["rows"] for layer, kept in found.items() if kept}
    if left := [layer for layer in layers if layer not in rows]:
        made = layer_rows(model, images, left, label, compute, size, workers, verbose)
        for layer in left:
            store.keep(f"{label}_conv{layer}", keys[layer], {"rows": made[layer]})
        rows |= made
    return rows


@torch.inference_mode()
def layer_rows(
    model: Network,
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


def pooled_rows(model: Network, pixels: Tensor, layers: Sequence[int]) -> list[Tensor]:
    """`(B, 3, H, W)` → rows `(B, D)` of length 1 for each layer."""
    rows = {}
    for layer, maps in model.each_conv_features(pixels, layers):
        pool = probe_pool(model.arch, layer, maps)
        rows[layer] = F.normalize(pool(maps.float()).flatten(1))
    return [rows[layer] for layer in layers]
