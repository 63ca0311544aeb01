"""Features of very many images: whitened on the device as they come, so that only a few dimensions
are kept. The whitening is fitted to a sample."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cluster.moments import Moments
from cluster.whitening import Preparation
from data.loading import Batch
from features.forward import Features, OnInfinite, collect, frozen_steps
from models import Network
from system.device import Compute

MOST_VALUES = 2**33  # of all images' features; whole, in float16 and whitened, they take 48 GiB


def is_large(images: int, dim: int) -> bool:
    """Whether features of so many images with D dimensions are not kept whole."""
    return images * dim > MOST_VALUES


def sample_stride(images: int, dim: int) -> int:
    """Every how many images one belongs to the sample: of D(D−1)/2 images, as in the released code
    of DeeperCluster, or of all if there are fewer."""
    return max(images // max(dim * (dim - 1) // 2, 1), 1)


@torch.inference_mode()
def sample_moments(
    loader: DataLoader[Batch],
    model: Network,
    compute: Compute,
    on_unreadable: Callable[[dict[int, str]], None],
    advance: Callable[[int], None] = lambda done: None,
    on_infinite: OnInfinite | None = None,
) -> Moments:
    """The moments of the embeddings of some images, with the network in eval mode; arguments as in
    `forward_pass`."""
    moments = Moments(model.embedding_dim, compute.device)
    callbacks = on_unreadable, advance, on_infinite
    for _, _, embedding in frozen_steps(loader, model, model.embedding, compute, *callbacks):
        moments.add(embedding)
    return moments


@torch.inference_mode()
def compute_projected(
    loader: DataLoader[Batch],
    model: Network,
    whitening: Preparation,
    images: range,
    compute: Compute,
    on_unreadable: Callable[[dict[int, str]], None],
    advance: Callable[[int], None] = lambda done: None,
    on_infinite: OnInfinite | None = None,
) -> Features:
    """As `features.forward.compute_features`, but rows are whitened and of unit length, `(M, d)
    float16`, and there are no moments."""
    whiten = whitening.on(compute.device)

    def project(x: Tensor) -> Tensor:
        embedding = model.embedding(x)
        with torch.autocast(x.device.type, enabled=False):
            return whiten(embedding.float())

    callbacks = on_unreadable, advance, on_infinite
    steps = frozen_steps(loader, model, project, compute, *callbacks)
    return collect(steps, images, whitening.components or model.embedding_dim)
