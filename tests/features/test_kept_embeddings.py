"""Embeddings that are kept: computed once, and again if anything changes that they depend on."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny, write_images

from data.decode import limit_pixels
from data.images import ImageList, find_images
from data.loading import ImageDataset, load_in_order
from data.reading import Reading
from data.transforms import central_crop
from data.unreadable import NameUnreadable
from features.forward import compute_features
from features.kept import Pass
from models.convnet import ConvNet
from system.device import Compute, select_compute
from system.kept import Store

CPU = torch.device("cpu")


@pytest.fixture
def by(tmp_path: Path) -> Pass:
    return Pass(32, select_compute("cpu", "fp32"), 4, 0, Store(tmp_path / "kept"))


@pytest.fixture
def images(tmp_path: Path) -> ImageList:
    write_images(tmp_path / "images", 10)
    return find_images(tmp_path / "images")


def network(seed: int = 0) -> ConvNet:
    torch.manual_seed(seed)
    return tiny()


def count_passes(model: ConvNet, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of each batch that goes through a network from now on."""
    sizes: list[int] = []
    embedding = model.embedding

    def counted(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return embedding(x)

    monkeypatch.setattr(model, "embedding", counted)
    return sizes


def test_the_second_time_the_network_does_not_run(
    by: Pass,
    images: ImageList,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = network()
    loader = load_in_order(ImageDataset(images, central_crop(32)), 4, 0, CPU)
    unreadable = NameUnreadable(images)
    truth = compute_features(loader, model, range(10), by.compute, unreadable)
    sizes = count_passes(model, monkeypatch)
    first, second = by.embed(model, images, "train"), by.embed(model, images, "train")
    assert sizes == [4, 4, 2]
    for found in (first, second):
        np.testing.assert_array_equal(found.rows, truth.rows)
        assert found.present.all()
        assert found.present.shape == (10,)
        assert found.reasons == {}
    (path,) = (by.store.folder or Path()).iterdir()
    assert capsys.readouterr().err == f"features of train: {path}, kept before\n"


Change = Callable[[Pass, ConvNet, ImageList], tuple[Pass, ConvNet, ImageList]]


def touched(by: Pass, model: ConvNet, images: ImageList) -> tuple[Pass, ConvNet, ImageList]:
    """The same bytes, written later."""
    path = images.root / images.names[3]
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000))
    return by, model, images


def with_a_limit(by: Pass, model: ConvNet, images: ImageList) -> tuple[Pass, ConvNet, ImageList]:
    """Larger images would be left out, but there are none."""
    limit_pixels(10**6)
    return by, model, images


def trained(by: Pass, model: ConvNet, images: ImageList) -> tuple[Pass, ConvNet, ImageList]:
    """A single weight is larger."""
    with torch.no_grad():
        next(model.parameters())[0, 0, 0, 0] += 0.001
    return by, model, images


@pytest.mark.parametrize(
    "change",
    [
        touched,
        trained,
        lambda by, model, images: (replace(by, size=36), model, images),
        lambda by, model, images: (replace(by, compute=Compute(CPU, "bf16")), model, images),
        lambda by, model, images: (by, model, replace(images, reading=Reading("apply"))),
        lambda by, model, images: (by, model, images.take(range(9))),
        with_a_limit,
    ],
)
def test_they_are_computed_again_if_anything_has_changed(
    by: Pass, images: ImageList, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    model = network()
    by.embed(model, images, "train")
    by, model, images = change(by, model, images)
    sizes = count_passes(model, monkeypatch)
    by.embed(model, images, "train")
    assert sum(sizes) == len(images)


def test_with_an_unreadable_or_missing_image_nothing_is_kept(
    by: Pass, images: ImageList, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its disk may come back, or it may be repaired."""
    (images.root / images.names[2]).write_bytes(b"no image")
    (images.root / images.names[7]).unlink()
    for _ in range(2):
        found = by.embed(network(), images, "train")
        assert found.rows.shape == (8, 32)
        assert np.flatnonzero(~found.present).tolist() == [*found.reasons] == [2, 7]
        assert capsys.readouterr().err.count("left out, unreadable") == 2
    (images.root / images.names[7]).write_bytes(b"no image")
    by.embed(network(), images, "train")
    assert by.store.folder is not None
    assert not by.store.folder.exists()


def test_infinite_features_are_not_kept(by: Pass, images: ImageList) -> None:
    model = network()
    with torch.no_grad():
        model.state_dict()["features.1.bias"].fill_(torch.nan)
    assert len(by.embed(model, images, "train").rows) == 0
    assert by.store.folder is not None
    assert not by.store.folder.exists()


def test_where_nothing_can_be_written_the_features_are_there_all_the_same(
    by: Pass, images: ImageList, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    by = replace(by, store=Store(tmp_path / "file" / "kept"))
    assert len(by.embed(network(), images, "train").rows) == 10
    assert "warning: not kept for the next time: " in capsys.readouterr().err
