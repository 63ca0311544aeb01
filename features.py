"""Data set → features: the one place that runs a frozen network over a data set."""

from collections.abc import Callable

import numpy as np
import torch
from torch.utils.data import DataLoader

from data.loading import Batch
from data.transforms import to_input
from device import Compute
from models import ConvNet


@torch.inference_mode()
def compute_features(
    loader: DataLoader[Batch],
    model: ConvNet,
    count: int,
    compute: Compute,
    on_unreadable: Callable[[dict[int, str]], None],
    advance: Callable[[int], None] = lambda done: None,
) -> tuple[np.ndarray, np.ndarray]:
    """The embedding of every image, with the network in eval mode.

    Args:
        loader: goes through each image once, in any order.
        count: N, the number of images.
        on_unreadable: told the images that cannot be decoded, with the reasons.
        advance: told how many images each step has done.

    Returns:
        `(N, D) float32` features by image index (zeros where unreadable), and `(N,) bool`:
        whether the image is readable.
    """
    features = np.zeros((count, model.embedding_dim), np.float32)
    readable = np.zeros(count, bool)
    was_training = model.training
    model.eval()
    for batch in loader:
        if batch.unreadable:
            on_unreadable(batch.unreadable)
        if len(batch.index) > 0:
            with compute.autocast():
                embedding = model.embedding(to_input(batch.pixels, compute.device))
            rows = batch.index.numpy()
            features[rows] = embedding.float().cpu().numpy()
            readable[rows] = True
        advance(len(batch.index) + len(batch.unreadable))
    model.train(was_training)
    return features, readable
