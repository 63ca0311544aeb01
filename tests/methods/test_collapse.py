"""Runs of SwAV and DeepCluster-v2 that go wrong are noticed, and those that learn are not."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_crops import COMPUTE, Crops, FakeRun, parse, steps_of, toy
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import main
from methods import window
from methods.health import check_collapse, check_memorised
from models import MODELS

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
    assert collapse({"mean_cosine": 1.0, "epoch": 0}, warmup_epochs=0) == [], "it has just begun"
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


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "toy", toy)
    monkeypatch.setattr(window, "STEPS", 8)


def metrics_of(method: str, flags: str, crops: Crops) -> tuple[dict[str, Any], list[str]]:
    """Train on made crops. Returns the last epoch's metrics and advice."""
    trained: Any = main.METHODS[method](parse(method, flags), COMPUTE)
    for _ in steps_of(trained, FakeRun(crops)):
        pass
    found = {**trained.metrics(None), "epoch": trained.args.epochs - 1, "knn_top1": None}
    return found, trained.advice(found)


SGD = "--optimizer sgd --lr 0.2 --nmb_prototypes"


def test_swav_collapses_if_all_images_are_the_same() -> None:
    crops = Crops(noise=1)
    crops.colours[:] = 100
    found, advice = metrics_of("swav", f"{SGD} 4 --epochs 60", crops)
    assert found["mean_cosine"] > 0.9
    (warning,) = advice
    assert "SwAV has collapsed" in warning


def test_swav_learns_colours() -> None:
    found, advice = metrics_of("swav", f"{SGD} 4 --epochs 60 --epsilon 0.03", Crops())
    assert found["window_loss"] < 0.9 * found["ln_k"]
    assert advice == []


def test_deepclusterv2_learns_and_then_memorises() -> None:
    found, advice = metrics_of("deepclusterv2", f"{SGD} 3 3 --epochs 3", Crops())
    assert found["window_loss"] > 0.05 * found["ln_k"]
    assert advice == []
    crops = Crops(noise=20)
    crops.colours[:] = [180, 60, 60]
    crops.colours[::2] = [60, 60, 180]
    found, advice = metrics_of("deepclusterv2", f"{SGD} 2 2 --epochs 80", crops)
    assert found["window_loss"] < 0.05 * found["ln_k"]
    (warning,) = advice
    assert "the labels are memorised" in warning


CROPS = "--nmb_crops 2 2 --size_crops 32 16 --min_scale_crops 0.4 0.2 --max_scale_crops 1 0.4"
RUN = f"--method swav --arch toy {CROPS} --hidden_mlp 32 --feat_dim 16 --k 4 --batch 8 --epochs 2"
RUN += " --lr 0.1"


def test_a_collapse_is_shown_in_log_page_metrics_and_curves(tmp_path: Path, train: Train) -> None:
    """All embeddings of black pictures are the same, on any processor."""
    images = tmp_path / "images"
    images.mkdir()
    for number in range(32):
        Image.new("RGB", (40, 40)).save(images / f"{number:02d}.png")
    exp = train(images, *RUN.split(), report=True)
    log = (exp / "log.txt").read_text()
    assert log.count("unhealthy: SwAV has collapsed") == 1, "the first epoch is skipped"
    assert "mean cosine of 1.00" in log
    assert "codes are even" in log
    page = (exp / "report.html").read_text()
    assert "SwAV has collapsed" in page
    lines = [json.loads(line) for line in (exp / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["mean_cosine"] == pytest.approx(1, abs=1e-3)
    assert lines[-1]["code_entropy"] == pytest.approx(math.log(4), abs=1e-3)
    curves = EventAccumulator(str(exp / "tensorboard")).Reload()
    for name in ("window_loss", "mean_cosine", "code_entropy"):
        values = [event.value for event in curves.Scalars(name)]
        assert values == pytest.approx([line[name] for line in lines])
        assert name.replace("_", " ") in page
    assert "code entropy" in page
    assert "mean cosine of two images" in page
