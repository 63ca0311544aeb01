"""Runs of SwAV and DeepCluster-v2 that go wrong are noticed, and those that learn are not."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from methods import multicrop
from methods.health import check_collapse, check_memorised
from models import MODELS
from models.convnet import ConvNet, conv_layers

Train = Callable[..., Path]

GUESSING = math.log(50)
HEALTHY = {
    "epoch": 4, "ln_k": GUESSING, "window_loss": 0.9 * GUESSING, "code_entropy": 0.5,
    "mean_cosine": 0.1, "nonempty_clusters": 50, "clusters": 50, "nmi_previous": 0.7,
}  # fmt: skip
SIGNS = {
    "code_entropy": (0.99 * GUESSING, f"codes are even (entropy {0.99 * GUESSING:.3f})"),
    "mean_cosine": (0.95, "embeddings of different images have a mean cosine of 0.95"),
    "nonempty_clusters": (4, "4 of 50 prototypes are used"),
}


def collapse(
    changed: dict[str, Any], loss: float | None = GUESSING, warmup_epochs: int = 2
) -> list[str]:
    return check_collapse({**HEALTHY, "window_loss": loss, **changed}, warmup_epochs)


@pytest.mark.parametrize("sign", list(SIGNS))
def test_swavs_collapse_is_a_loss_of_guessing_with_a_second_sign(sign: str) -> None:
    value, words = SIGNS[sign]
    (warning,) = collapse({sign: value}, 0.996 * GUESSING)
    assert words in warning
    assert "ln K = 3.912" in warning
    assert "--epsilon" in warning
    assert collapse({sign: value}, 1.2 * GUESSING), "a loss above guessing"
    assert collapse({sign: value}, 0.994 * GUESSING) == [], "it learns"
    assert collapse({}) == [], "a single sign"


def test_all_signs_are_named() -> None:
    (warning,) = collapse({name: value for name, (value, _) in SIGNS.items()})
    assert all(words in warning for _, words in SIGNS.values())


def test_the_warm_up_is_skipped() -> None:
    assert collapse({"mean_cosine": 1.0}, warmup_epochs=5) == []
    assert collapse({"mean_cosine": 1.0}, warmup_epochs=4)
    assert collapse({"mean_cosine": None, "code_entropy": None}, None) == [], "no step yet"


def memorised(before: float | None, probed: float | None, **changed: Any) -> list[str]:
    return check_memorised({**HEALTHY, "window_loss": 0.04 * GUESSING, **changed}, before, probed)


def test_labels_are_memorised_if_the_loss_is_near_0_with_a_second_sign() -> None:
    (warning,) = memorised(None, None, nmi_previous=0.97)
    assert "clusters hardly change (NMI 0.970 to the previous)" in warning
    (warning,) = memorised(0.80, 0.75)
    assert "nearest neighbours got worse by 0.050" in warning
    assert "--nmb_cluster" in warning
    (warning,) = memorised(0.80, 0.75, nmi_previous=0.97)
    assert "0.970" in warning
    assert "0.050" in warning


def test_labels_are_not_memorised_otherwise() -> None:
    assert memorised(None, None) == []
    assert memorised(None, 0.75) == []
    assert memorised(0.80, 0.795) == [], "less than a hundredth"
    assert memorised(0.70, 0.75, nmi_previous=None) == []
    assert memorised(0.80, 0.75, window_loss=0.06 * GUESSING, nmi_previous=0.97) == []
    assert memorised(0.80, 0.75, window_loss=None, nmi_previous=0.97) == []


def write_patterns(folder: Path, blank: bool = False) -> Path:
    """32 pictures of horizontal or vertical stripes, with other grey levels in each; or as many
    black ones."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    stripes = np.mgrid[:40, :40] // 4 % 2
    for number in range(32):
        dark, light = rng.integers(0, 60), rng.integers(190, 256)
        grey = np.where(stripes[number % 2], light, dark) * (not blank)
        pixels = np.repeat(grey[:, :, None], 3, axis=2).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return folder


def simple(sobel: bool = False, out: int = 1000) -> ConvNet:
    """Two convolutions with batch norm, without dropout."""
    features = conv_layers(2 if sobel else 3, [(8, 5, 2, 2), (16, 3, 2, 1)])
    return ConvNet("simple", features, 2, nn.Sequential(), 64, out, sobel)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "simple", simple)
    monkeypatch.setattr(multicrop, "WINDOW", 8)


CROPS = "--nmb_crops 2 2 --size_crops 32 16 --min_scale_crops 0.4 0.2 --max_scale_crops 1 0.4"
RUN = (
    f"--arch simple {CROPS} --hidden_mlp 32 --feat_dim 16 --k 2 --batch 16 --optimizer sgd --lr 0.1"
)


def lines_of(exp: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (exp / "metrics.jsonl").read_text().splitlines()]


def warnings_of(exp: Path) -> list[str]:
    lines = (exp / "log.txt").read_text().splitlines()
    return [line.partition("unhealthy: ")[2] for line in lines if "unhealthy: " in line]


def test_swav_collapses_on_black_pictures(tmp_path: Path, train: Train) -> None:
    """All embeddings are the same there, on any processor."""
    images = write_patterns(tmp_path / "images", blank=True)
    exp = train(images, "--method", "swav", *RUN.split(), "--epochs", "2", report=True)
    found = [warning for warning in warnings_of(exp) if "SwAV has collapsed" in warning]
    assert len(found) == 2, "in each epoch"
    assert "mean cosine of 1.00" in found[-1]
    assert "codes are even" in found[-1]
    assert "SwAV has collapsed" in (exp / "report.html").read_text()
    last = lines_of(exp)[-1]
    assert last["mean_cosine"] == pytest.approx(1, abs=1e-3)
    assert last["code_entropy"] == pytest.approx(math.log(2), abs=1e-3)


def test_swav_learns_patterns(tmp_path: Path, train: Train) -> None:
    images = write_patterns(tmp_path / "images")
    flags = ["--method", "swav", *RUN.split(), "--epsilon", "0.03", "--epochs", "6"]
    exp = train(images, *flags, report=True)
    assert not [warning for warning in warnings_of(exp) if "SwAV" in warning]
    lines = lines_of(exp)
    assert lines[-1]["window_loss"] < 0.9 * lines[-1]["ln_k"]
    curves = EventAccumulator(str(exp / "tensorboard")).Reload()
    page = (exp / "report.html").read_text()
    for name in ("window_loss", "mean_cosine", "code_entropy"):
        values = [event.value for event in curves.Scalars(name)]
        assert values == pytest.approx([line[name] for line in lines])
        assert name.replace("_", " ") in page


def test_deepclusterv2_memorises_patterns(tmp_path: Path, train: Train) -> None:
    images = write_patterns(tmp_path / "images")
    exp = train(images, "--method", "deepclusterv2", *RUN.split(), "--epochs", "12")
    assert any("the labels are memorised" in warning for warning in warnings_of(exp)[-1:])
    assert lines_of(exp)[-1]["window_loss"] < 0.05 * math.log(2)


def test_deepclusterv2_learns(tree: Path, train: Train) -> None:
    exp = train(tree, "--method", "deepclusterv2", *RUN.split(), "--epochs", "2")
    assert not [warning for warning in warnings_of(exp) if "memorised" in warning]
    assert all(line["window_loss"] > 0.05 * line["ln_k"] for line in lines_of(exp))
