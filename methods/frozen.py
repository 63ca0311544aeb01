"""Features of all images from the frozen network."""

from features.forward import Features, compute_features
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
