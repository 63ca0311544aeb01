"""A network and the images that it is applied to."""

import argparse
from collections.abc import Callable
from pathlib import Path

from cluster.clusters import Clusters
from data.decode import MAX_PIXELS
from data.images import find_images
from features.network import open_inputs


def test_a_checkpoint_within_an_epoch_has_no_clusters_of_its_own_network(
    train: Callable[..., Path], tree: Path
) -> None:
    exp = train(tree, "--checkpoints", "2")  # of 5 steps
    flags = argparse.Namespace(
        size=None,
        batch=8,
        workers=0,
        decode="auto",
        device="cpu",
        precision="fp32",
        max_pixels=MAX_PIXELS,
        exif=None,
        channels=None,
        range=None,
        network_key=None,
    )

    def own(name: str) -> Clusters | None:
        flags.model = exp / name
        return open_inputs(flags, find_images(tree)).own_clusters

    assert own("checkpoints/checkpoint_1.pth.tar") is None
    found = own("checkpoint.pth.tar")
    assert found is not None
    assert found.epoch == 1
