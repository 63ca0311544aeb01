"""Features of many images, whitened as they come by a sample, against those of one pass."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny, write_images
from torch import nn

from cluster.whitening import Whitening
from data.images import find_images
from data.loading import ImageDataset, load_in_order
from data.transforms import central_crop, to_input
from features import projected
from features.forward import Features
from features.projected import is_large, sample_stride
from methods.frozen import whitened_features
from methods.method import FrozenPass
from models import ConvNet
from system.device import select_compute

COMPUTE = select_compute("cpu", "fp32")


class FakeRun:
    """A run, as a method sees it; keeps the strides of its passes, and the features it inspects."""

    epoch, images_digest = 0, ""

    def __init__(self, folder: Path) -> None:
        self.images = find_images(folder)
        self.image_count = len(self.images)
        self.strides: list[int] = []
        self.inspected: list[Features] = []
        self.unreadable: dict[int, str] = {}

    @contextlib.contextmanager
    def frozen_pass(self, every: int = 1) -> Iterator[FrozenPass]:
        self.strides.append(every)
        dataset, images = ImageDataset(self.images, central_crop(32)), range(0, 60, every)
        loader = load_in_order(dataset, 8, 0, torch.device("cpu"), images)
        report = self.unreadable.update
        yield FrozenPass(loader, images, report, lambda *bad: None, lambda done: None)

    def inspect(self, features: Features) -> None:
        self.inspected.append(features)

    def stage(self, name: str, total: int, unit: str) -> Any:
        raise AssertionError("it is not clustered")

    def augmented_pass(self, order: np.ndarray) -> Any:
        raise AssertionError("it needs none")

    def forget_momentum(self, parameters: Iterable[nn.Parameter]) -> None:
        raise AssertionError("nothing is trained")


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    """60 images, one of them unreadable."""
    write_images(tmp_path, 60)
    (tmp_path / "013.png").write_bytes(b"no image")
    return FakeRun(tmp_path)


@pytest.mark.parametrize("pca", [4, 0])
def test_whitened_by_all_images_they_are_those_of_one_pass(
    run: FakeRun, pca: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = tiny().train()
    expected, present, _ = whitened_features(run, network, COMPUTE, pca)
    monkeypatch.setattr(projected, "MOST_VALUES", 60 * 32 - 1)
    rows, there, whitening = whitened_features(run, network, COMPUTE, pca)
    assert run.strides == ([1, 1, 1] if pca else [1, 1]), "without whitening no pass to fit it"
    assert (rows.dtype, rows.shape) == (np.float16, (59, pca or 32))
    np.testing.assert_array_equal(there, present)
    assert np.flatnonzero(~there).tolist() == [13]
    # the sign of an axis is arbitrary; float16 has three digits
    np.testing.assert_allclose(np.abs(rows), np.abs(expected), atol=2e-2 if pca else 2e-3)
    np.testing.assert_allclose(np.linalg.norm(rows.astype(float), axis=1), 1, atol=2e-3)
    assert whitening.components == pca
    assert network.training
    assert run.inspected[1].rows is rows


def test_the_whitening_is_fitted_to_an_even_sample(
    run: FakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projected, "MOST_VALUES", 1)
    monkeypatch.setattr("methods.frozen.sample_stride", lambda images, dim: 3)
    network = tiny()
    _, _, whitening = whitened_features(run, network, COMPUTE, 4)
    assert run.strides == [3, 1]
    assert isinstance(whitening, Whitening)
    sample = central(run, range(0, 60, 3), network)
    np.testing.assert_allclose(whitening.mean, sample.mean(axis=0), rtol=1e-2, atol=1e-3)
    assert len(sample) == 20


def central(run: FakeRun, images: range, network: ConvNet) -> np.ndarray:
    """The embeddings of some images, one by one."""
    view = central_crop(32)
    pixels = torch.stack([view(run.images.read_pixels(image)) for image in images])
    with torch.inference_mode():
        return network.eval().embedding(to_input(pixels, COMPUTE.device)).numpy()


def test_vgg_16_has_many_features_beyond_two_million_images() -> None:
    assert not is_large(2_097_152, 4096), "ImageNet's 1.28 million are kept whole"
    assert is_large(2_097_153, 4096)


def test_the_sample_is_as_large_as_the_releases() -> None:
    """8,386,560 = 4096 · 4095 / 2 images, if there are so many."""
    assert sample_stride(95_920_128, 4096) == 11
    assert sample_stride(8_390_000, 4096) == 1
    assert sample_stride(100, 4096) == 1
