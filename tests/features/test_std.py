"""A checkpoint's `std` divides the pixels wherever its network is used."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import eval_linear
import hubconf
from checkpoints.checkpoint import (
    digest_of,
    load_model,
    network_entries,
    read_checkpoint,
    save_checkpoint,
    untrained_of,
)
from data.images import find_images
from data.loading import ImageDataset, load_in_order
from data.transforms import central_crop, to_colours, to_input
from evaluation.linear import Heads
from features.forward import compute_features
from models import MODELS
from models.convnet import ConvNet
from system.device import select_compute
from system.errors import InputError
from system.normalisation import IMAGENET_STD, SWAV_STD, Std
from tools import export

CPU = torch.device("cpu")
COLOUR = np.array([230, 200, 180])  # above ImageNet's mean, so that no ReLU cuts it off
MEAN = np.array([0.485, 0.456, 0.406])
BY_HAND = {  # (colour / 255 - mean) / std
    IMAGENET_STD: [1.8207895, 1.4656863, 1.3328105],
    SWAV_STD: [1.8287754, 1.4656863, 1.3328105],
}


def mirror(sobel: bool = False, out: int = 3) -> ConvNet:
    """A network whose embedding is the mean of its input, by channel."""
    features = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
    model = ConvNet("mirror", features, 1, nn.Sequential(), 3, out, sobel)
    with torch.no_grad():
        model.state_dict()["features.0.weight"].copy_(torch.eye(3).view(3, 3, 1, 1))
    return model


@pytest.fixture
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[Std, Path]:
    """The same network, trained with each std."""
    monkeypatch.setitem(MODELS, "mirror", mirror)
    torch.manual_seed(0)
    model, paths = mirror(), {}
    for std in (IMAGENET_STD, SWAV_STD):
        model.std = std
        paths[std] = tmp_path / f"{std[0]}.pth.tar"
        save_checkpoint(paths[std], network_entries(model))
    return paths


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split, count in (("train", 4), ("val", 2)):
        for label in "ab":
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (32, 32), tuple(COLOUR)).save(folder / f"{number}.png")
    return tmp_path / "data"


@pytest.mark.parametrize("std", [IMAGENET_STD, SWAV_STD])
def test_the_input_is_divided_by_it(std: Std) -> None:
    pixels = torch.from_numpy(COLOUR.astype(np.uint8)).view(1, 3, 1, 1)
    x = to_input(pixels, CPU, std)
    np.testing.assert_allclose(x.flatten(), BY_HAND[std], rtol=1e-6)
    np.testing.assert_allclose(x.flatten(), (COLOUR / 255 - MEAN) / std, rtol=1e-6)
    np.testing.assert_allclose(to_colours(x, std).flatten(), COLOUR / 255, rtol=1e-6)


def test_a_checkpoint_names_it_only_where_it_differs(checkpoints: dict[Std, Path]) -> None:
    assert "std" not in read_checkpoint(checkpoints[IMAGENET_STD])
    for std, path in checkpoints.items():
        assert load_model(path).std == std
        assert untrained_of(read_checkpoint(path), seed=0).std == std


def test_features_differ_by_the_ratio(checkpoints: dict[Std, Path], data: Path) -> None:
    for std, path in checkpoints.items():
        images = find_images(data / "val")
        loader = load_in_order(ImageDataset(images, central_crop(32)), 4, 0, CPU)
        model, compute = load_model(path), select_compute("cpu", "fp32")
        found = compute_features(loader, model, range(4), compute, lambda unreadable: None)
        # A float16 is off by up to 1/2048; the two stds by 1/229
        np.testing.assert_allclose(found.rows, [BY_HAND[std]] * 4, rtol=5e-4)


def test_probes_see_pixels_divided_by_it(
    checkpoints: dict[Std, Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[float]] = []
    pooled = Heads.pooled

    def remember(self: Heads, model: ConvNet, x: torch.Tensor) -> Any:
        seen.append(x[:, :, 0, 0].mean(0).tolist())
        return pooled(self, model, x)

    monkeypatch.setattr(Heads, "pooled", remember)
    flags = "--conv 1 --size 28 --batch_size 8 --epochs 1 --workers 0 --device cpu --precision fp32"
    for std, path in checkpoints.items():
        seen.clear()
        command = ["--data", str(data), "--model", str(path), "--exp", str(tmp_path / path.stem)]
        eval_linear.main(eval_linear.parse_args([*command, *flags.split()]))
        assert len(seen) == 2, "a batch of train/ and one of val/"
        np.testing.assert_allclose(seen, [BY_HAND[std]] * 2, rtol=1e-5)


def test_results_of_one_are_not_taken_for_the_others(checkpoints: dict[Std, Path]) -> None:
    first, second = (load_model(path) for path in checkpoints.values())
    assert digest_of(first) != digest_of(second)


def test_safetensors_and_hub_keep_it(checkpoints: dict[Std, Path], tmp_path: Path) -> None:
    for std, path in checkpoints.items():
        out = tmp_path / "out.safetensors"
        export.main(export.parse_args([str(path), str(out)]))
        assert load_model(out).std == std
        assert hubconf._network("mirror", path, None, None, None).std == std


@torch.no_grad()
def test_an_exported_network_normalises_with_it(checkpoints: dict[Std, Path]) -> None:
    images = torch.from_numpy(COLOUR / 255).float().view(1, 3, 1, 1).expand(1, 3, 8, 8)
    for std, path in checkpoints.items():
        network = export.Exported(load_model(path), "embedding", normalise=True)
        np.testing.assert_allclose(network(images)[0], BY_HAND[std], rtol=1e-6)


@pytest.mark.parametrize("std", [0.5, [0.5, 0.5], [0.5, 0.0, 0.5], [1.0, float("nan"), 1.0], "a"])
def test_a_malformed_std_is_named(
    checkpoints: dict[Std, Path], tmp_path: Path, std: object
) -> None:
    path = tmp_path / "bad.pth.tar"
    torch.save({**network_entries(mirror()), "std": std}, path)
    with pytest.raises(InputError, match=r"bad\.pth\.tar: its std is .*three numbers above 0"):
        load_model(path)
