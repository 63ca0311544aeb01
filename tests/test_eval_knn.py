"""eval_knn.py on a small tree of images, against scikit-learn."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ErrorLine, read_file, tiny
from PIL import Image
from runs import Server
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

import eval_knn
from checkpoints.checkpoint import load_model, save_checkpoint
from data.decode import read_pixels
from data.transforms import central_crop, to_input
from models import MODELS
from system.errors import InputError

FLAGS = "--workers 0 --batch 16 --device cpu --precision fp32 --k 5 1 100"
Evaluate = Callable[..., dict[str, Any]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Classes that differ in their ground, dark, grey and bright, but not always."""
    random = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 9)):
        for name, ground in (("a", 60), ("b", 128), ("c", 195)):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                noise = random.normal(random.normal(0, 40), 20, size=(40, 40, 3))
                pixels = (ground + noise).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return tmp_path / "data"


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    path = tmp_path / "exp" / "checkpoint.pth.tar"
    path.parent.mkdir()
    torch.manual_seed(0)
    state = {"epoch": 4, "arch": "tiny", "state_dict": tiny(out=4).state_dict()}
    save_checkpoint(path, {**state, "settings": {"seed": 3, "size": 32}})
    return path


@pytest.fixture
def evaluate(data: Path, network: Path) -> Evaluate:
    def run(*flags: str) -> dict[str, Any]:
        command = ["--data", str(data), "--model", str(network), *FLAGS.split(), *flags]
        eval_knn.main(eval_knn.parse_args(command))
        return json.loads((network.parent / "knn_epoch_4" / "knn.json").read_text())

    return run


def by_sklearn(network: Path, data: Path, k: int) -> float:
    """The accuracy on the readable images."""
    model = load_model(network).eval()

    def embed(split: str) -> tuple[np.ndarray, list[str]]:
        paths = sorted((data / split).rglob("*.png"))
        crops: list[Tensor] = [central_crop(32)(read_file(read_pixels, path)) for path in paths]
        with torch.inference_mode():
            rows = model.embedding(to_input(torch.stack(crops), torch.device("cpu")))
        return rows.half().double().numpy(), [path.parent.name for path in paths]

    def votes(distances: np.ndarray) -> np.ndarray:
        return np.exp((1 - distances) / 0.07)

    classifier = KNeighborsClassifier(k, metric="cosine", weights=votes)
    return classifier.fit(*embed("train")).score(*embed("val"))


def test_accuracies_equal_scikit_learns(
    evaluate: Evaluate, data: Path, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = evaluate("--untrained")
    trained = report["results"]["trained"]
    for k in (1, 5):
        assert trained[str(k)] == pytest.approx(by_sklearn(network, data, k)), k
    assert trained["60"] == pytest.approx(by_sklearn(network, data, 60)), "all there are"
    assert 1 / 3 < trained["5"] < 1, "neither chance nor trivial"
    assert report["results"]["untrained"] != trained
    assert report["protocol"].startswith("Classification of val images by their nearest neighbours")
    settings = report["settings"]
    assert (settings["k"], settings["size"], settings["arch"]) == ([1, 5, 60], 32, "tiny")
    assert (settings["classes"], settings["train"], settings["val"]) == (3, 60, 27)
    out = capsys.readouterr().out
    assert "network          k=1     k=5    k=60\n" in out
    assert f"trained     {100 * trained['1']:8.2f}{100 * trained['5']:8.2f}" in out


def test_val_in_parts_gives_the_same_accuracies(
    evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate()["results"]
    monkeypatch.setattr(eval_knn, "QUERIES", 4)
    assert evaluate()["results"]["trained"] == pytest.approx(whole["trained"])


def test_an_unreadable_image_is_an_error_in_val_and_ignored_in_train(
    evaluate: Evaluate, data: Path, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = [data / "train" / "a" / "003.png", data / "val" / "b" / "001.png"]
    for path in damaged:
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"images to compare with are unreadable \(1 of 60,"):
        evaluate()
    monkeypatch.setattr("data.labelled.MOST_UNREADABLE", 0.02)
    with pytest.raises(InputError, match=r"images to classify are unreadable \(1 of 27,"):
        evaluate()
    monkeypatch.setattr("data.labelled.MOST_UNREADABLE", 0.1)
    found = evaluate()["results"]["trained"]["5"]
    for path in damaged:
        path.unlink()
    assert found == pytest.approx(by_sklearn(network, data, 5) * 26 / 27)


def test_two_processes_give_the_results_of_one(
    server: Server, evaluate: Evaluate, data: Path, network: Path, tmp_path: Path
) -> None:
    (data / "val" / "a" / "000.png").write_bytes(b"no image")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom parallel import script\nimport data.labelled, eval_knn\n"
        "data.labelled.MOST_UNREADABLE = 0.1\n"
        "sys.exit(script.run(eval_knn.main, eval_knn.parse_args))\n"
    )
    command = ["--data", data, "--model", network, *FLAGS.split(), "--exp", tmp_path / "two"]
    server.run_script(script, command, tmp_path / "run")
    two = json.loads((tmp_path / "two" / "knn.json").read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data.labelled.MOST_UNREADABLE", 0.1)
        assert two["results"] == evaluate()["results"]
    assert two["settings"]["processes"] == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--k 0", "argument --k: '0' is not a whole number of 1 or more"),
        ("--size 1", "--size 1: too small for tiny; give "),
        ("--data {}/nowhere", "{}/nowhere: needs train/ with a folder per class"),
        ("--model {}/none", "{}/none: cannot read this checkpoint: No such file or directory"),
        ("--exp {}/data/val/a/000.png/x", "--exp {}/data/val/a/000.png/x: cannot write there"),
    ],
)
def test_bad_input_is_one_line(
    data: Path, network: Path, error_line: ErrorLine, flags: str, message: str
) -> None:
    command = ["--data", data, "--model", network, *FLAGS.split()]
    flags, message = (text.format(*[data.parent] * 2) for text in (flags, message))
    assert message in error_line(eval_knn, *command, *flags.split())
    assert [path.name for path in network.parent.iterdir()] == ["checkpoint.pth.tar"]
