"""The one pass of a frozen network over a data set."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import read_file, tiny
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.distance import cdist

from checkpoints.checkpoint import load_model
from cluster.quality import nmi
from cluster.whitening import fit_whitening
from clustering import Kmeans
from data.decode import read_image
from data.images import find_images
from data.loading import EpochBatches, ImageDataset, make_loader
from data.transforms import central_crop, to_input
from features.forward import NOT_FINITE, Features, OnInfinite, compute_features, raise_on_infinite
from models import ConvNet
from system.device import select_compute
from system.errors import InputError
from tools.make_digits import write_digits

CPU = torch.device("cpu")


def extract(
    folder: Path,
    model: ConvNet,
    unreadable: dict[int, str] | None = None,
    precision: str = "fp32",
    on_infinite: OnInfinite | None = None,
) -> Features:
    images = find_images(folder)
    batches = EpochBatches(7)
    batches.start_epoch(0, np.arange(len(images)))
    loader = make_loader(ImageDataset(images, central_crop(32)), batches, 0, CPU)
    found = {} if unreadable is None else unreadable
    every, compute = range(len(images)), select_compute("cpu", precision)
    return compute_features(loader, model, every, compute, found.update, on_infinite=on_infinite)


def by_hand(folder: Path, model: ConvNet) -> np.ndarray:
    """Float32 features, one image at a time."""
    images = find_images(folder)
    with torch.no_grad():
        rows = [
            model.embedding(
                to_input(central_crop(32)(read_file(read_image, images.where(i)))[None], CPU)
            )
            for i in range(len(images))
        ]
    return torch.cat(rows).numpy()


def test_features_are_the_networks_in_half_precision(tree: Path) -> None:
    model = tiny().eval()
    features = extract(tree, model)
    assert features.rows.dtype == np.float16
    assert features.present.all()
    np.testing.assert_allclose(features.rows, by_hand(tree, model), rtol=2e-3, atol=1e-4)


def test_the_network_computes_in_the_given_precision(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = []
    embedding = ConvNet.embedding

    def seen(model: ConvNet, x: torch.Tensor) -> torch.Tensor:
        kinds.append(embedding(model, x).dtype)
        return embedding(model, x)

    monkeypatch.setattr(ConvNet, "embedding", seen)
    extract(tree, tiny(), precision="bf16")
    assert set(kinds) == {torch.bfloat16}


def test_the_moments_are_those_of_the_features(tree: Path) -> None:
    features = extract(tree, tiny())
    assert features.moments is not None, "40 images have 32 dimensions"
    streamed = fit_whitening(features.moments).apply(features.rows)
    at_once = fit_whitening(features.rows).apply(features.rows)
    np.testing.assert_allclose(streamed @ streamed.T, at_once @ at_once.T, atol=1e-4)


def test_unreadable_images_leave_no_gap(tree: Path) -> None:
    model = tiny()
    whole = extract(tree, model)
    paths = find_images(tree)
    for index in (3, 4, 39):
        Path(paths.where(index)).write_bytes(b"no image")
    features = extract(tree, model)
    assert np.flatnonzero(~features.present).tolist() == [3, 4, 39]
    others = np.delete(whole.rows, [3, 4, 39], axis=0)
    np.testing.assert_allclose(features.rows, others, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_image_whose_features_are_not_finite_counts_as_unreadable(
    tree: Path, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedding, calls = ConvNet.embedding, []

    def spoil(model: ConvNet, x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        result = embedding(model, x)
        if len(calls) == 2:
            result[4, 1] = value  # image 7 + 4
        return result

    monkeypatch.setattr(ConvNet, "embedding", spoil)
    unreadable: dict[int, str] = {}
    features = extract(tree, tiny(), unreadable)
    assert unreadable == {11: NOT_FINITE}
    assert np.flatnonzero(~features.present).tolist() == [11]
    assert np.isfinite(features.rows).all()


def test_an_evaluation_of_all_images_stops_at_infinite_features(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedding = ConvNet.embedding

    def spoil(model: ConvNet, x: torch.Tensor) -> torch.Tensor:
        result = embedding(model, x)
        result[3, 1] = float("nan")
        return result

    monkeypatch.setattr(ConvNet, "embedding", spoil)
    images = find_images(tree)
    with pytest.raises(InputError, match=f"{images.where(3)}: {NOT_FINITE}"):
        extract(tree, tiny(), on_infinite=raise_on_infinite(images))


def test_a_value_beyond_half_precision_stays_finite(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedding = ConvNet.embedding
    monkeypatch.setattr(ConvNet, "embedding", lambda model, x: embedding(model, x) + 1e6)
    assert (extract(tree, tiny()).rows == np.finfo(np.float16).max).all()


def test_half_precision_keeps_the_assignments_of_a_trained_network(
    tmp_path: Path, train: Callable[..., Path]
) -> None:
    """The centroids are given: without clear clusters, k-means amplifies a change in the last
    digit."""
    write_digits(tmp_path / "digits")
    data = tmp_path / "digits" / "train"
    folder = train(data, "--k", "20", "--batch", "64", "--epochs", "2", "--lr", "0.02")
    model = load_model(folder / "checkpoint.pth.tar").eval()
    features, exact = extract(data, model), Kmeans(20, seed=1)
    rows = by_hand(data, model)
    exact.cluster(rows)

    assert features.moments is not None
    assert exact.whitening is not None
    white = fit_whitening(features.moments).apply(features.rows)
    rotation, _ = orthogonal_procrustes(white, exact.whitening.apply(rows))
    distances = cdist(white @ rotation, exact.centroids)
    assert nmi(exact.assignments, distances.argmin(axis=1)) > 0.98
