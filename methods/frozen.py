"""Features of all images from the frozen network."""

import numpy as np

from cluster.components import Components
from cluster.whitening import Normalisation, Preparation, prepare
from features.forward import Features, compute_features
from features.projected import compute_projected, is_large, sample_moments, sample_stride
from methods.method import Running
from models import ConvNet
from parallel.collectives import together
from system.device import Compute


def frozen_features(run: Running, network: ConvNet, compute: Compute) -> Features:
    """The network's embedding of this process's images. The run inspects it.

    Raises:
        InputError: features are NaN or infinite, or too many images can't be read.
        Stopped: a signal came.
    """
    with run.frozen_pass() as images, together():
        features = compute_features(
            images.loader,
            network,
            images.images,
            compute,
            images.report,
            images.advance,
            images.stop_on_infinite,
        )
    run.inspect(features)
    return features


def whitened_features(
    run: Running, network: ConvNet, compute: Compute, pca: Components
) -> tuple[np.ndarray, np.ndarray, Preparation]:
    """The whitened embedding of this process's images. Of very many images, the whitening is fitted
    to a sample, and the embeddings themselves are not kept.

    Args:
        pca: dimensions of the whitening.

    Returns:
        `(M, d)` unit rows, float32, or float16 of very many images; `(n,) bool`, whether an image
        has a row; and the whitening.

    Raises:
        InputError, Stopped: as `frozen_features`.
    """
    if is_large(run.image_count, network.embedding_dim):
        return _projected(run, network, compute, pca)
    features = frozen_features(run, network, compute)
    known = features.rows if features.moments is None else features.moments
    whitening = prepare(known, pca, compute.device)
    return whitening.apply(features.rows, compute.device), features.present, whitening


def _projected(
    run: Running, network: ConvNet, compute: Compute, pca: Components
) -> tuple[np.ndarray, np.ndarray, Preparation]:
    whitening: Preparation = Normalisation()
    if pca != 0:
        stride = sample_stride(run.image_count, network.embedding_dim)
        with run.frozen_pass(stride) as images, together():
            callbacks = images.report, images.advance, images.stop_on_infinite
            moments = sample_moments(images.loader, network, compute, *callbacks)
        whitening = prepare(moments, pca, compute.device)
    with run.frozen_pass() as images, together():
        callbacks = images.report, images.advance, images.stop_on_infinite
        features = compute_projected(
            images.loader, network, whitening, images.images, compute, *callbacks
        )
    run.inspect(features)
    return features.rows, features.present, whitening
