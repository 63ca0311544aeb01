"""eval_linear.py --protocol simple, against scikit-learn; its features are those of eval_knn.py."""

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
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import top_k_accuracy_score
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

import eval_knn
import eval_linear
from checkpoints.checkpoint import load_model, save_checkpoint
from data.decode import read_pixels
from data.transforms import central_crop, to_input
from features import kept
from models import MODELS
from system.errors import InputError

FLAGS = "--protocol simple --workers 0 --device cpu --precision fp32"
CLASSES = "abcdefghij"
Evaluate = Callable[..., dict[str, Any]]
Rows = tuple[np.ndarray, np.ndarray]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten classes, which differ in their ground, but not always."""
    random = np.random.default_rng(0)
    for split, count in (("train", 9), ("val", 6)):
        for number, name in enumerate(CLASSES):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for image in range(count):
                ground = 20 * number + random.normal(40, 50)
                pixels = ground + random.normal(0, 20, size=(40, 40, 3))
                pixels = pixels.clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{image:03d}.png")
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
        eval_linear.main(eval_linear.parse_args(command))
        return json.loads((network.parent / "linear_simple_epoch_4" / "linear.json").read_text())

    return run


def embed(network: Path, folder: Path) -> Rows:
    model = load_model(network).eval()
    paths = sorted(folder.rglob("*.png"))
    crops: list[Tensor] = [central_crop(32)(read_file(read_pixels, path)) for path in paths]
    with torch.inference_mode():
        rows = model.embedding(to_input(torch.stack(crops), torch.device("cpu")))
    labels = [CLASSES.index(path.parent.name) for path in paths]
    return rows.half().float().numpy(), np.array(labels)


def tried_by_sklearn(train: Rows, seed: int) -> dict[float, float]:
    """The accuracies on the held-out fifth by C."""
    x, y = StandardScaler().fit_transform(train[0]), train[1]
    count = -(-len(x) // 5)
    ((own, others),) = StratifiedShuffleSplit(1, test_size=count, random_state=seed).split(x, y)
    tried = {}
    for c in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        classifier = LogisticRegression(C=c, max_iter=5000, tol=1e-6).fit(x[own], y[own])
        tried[c] = classifier.score(x[others], y[others])
    return tried


def by_sklearn(train: Rows, val: Rows, c: float) -> tuple[float, float]:
    """Top-1 and top-5."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=5000, tol=1e-6))
    scores = probe.fit(*train).decision_function(val[0])
    return float(probe.score(*val)), float(top_k_accuracy_score(val[1], scores, k=5))


@pytest.mark.parametrize("seed", [31, 4])
def test_accuracies_and_the_chosen_regularisation_are_scikit_learns(
    evaluate: Evaluate, data: Path, network: Path, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    report = evaluate("--seed", str(seed))
    found = report["results"]["trained"]
    train, val = (embed(network, data / split) for split in ("train", "val"))
    held_out = {float(c): accuracy for c, accuracy in found["held_out"].items()}
    image = 1.1 / 18  # a solver that stops earlier may differ in a single image
    assert held_out == pytest.approx(tried_by_sklearn(train, seed), abs=image)
    assert len(set(held_out.values())) > 1
    assert found["c"] == max(held_out, key=held_out.__getitem__), "the strongest of the best"
    top1, top5 = by_sklearn(train, val, found["c"])
    assert 1 / 10 < top1 < top5 < 1, "neither chance nor trivial"
    assert found["top1"] == pytest.approx(top1, abs=1.1 / 60)
    assert found["top5"] == pytest.approx(top5, abs=1.1 / 60)
    assert found["converged"]
    assert found["dimensions"] == 32
    assert report["protocol"].startswith("Logistic regression on the embeddings of a frozen netw")
    settings = report["settings"]
    assert (settings["size"], settings["seed"], settings["lr"]) == (32, seed, None)
    assert (settings["classes"], settings["train"], settings["val"]) == (10, 90, 60)
    line = f"trained     {100 * found['top1']:8.2f}{100 * found['top5']:8.2f}{found['c']:9g}\n"
    assert line in capsys.readouterr().out


def test_features_are_computed_once_for_this_protocol_and_the_neighbours(
    evaluate: Evaluate, data: Path, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = evaluate("--untrained")["results"]
    assert before["untrained"] != before["trained"]
    names = sorted(path.name for path in (network.parent / "features").iterdir())
    assert [name.partition("_")[0] for name in names] == ["train", "train", "val", "val"]
    monkeypatch.setattr(kept, "forward_pass", lambda *_, **__: pytest.fail("computed again"))
    assert evaluate("--untrained")["results"] == before
    command = f"--data {data} --model {network} --workers 0 --device cpu --precision fp32"
    eval_knn.main(eval_knn.parse_args(command.split()))
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        eval_knn.main(eval_knn.parse_args([*command.split(), "--size", "40"]))


def test_with_exp_the_features_are_kept_there(data: Path, network: Path, tmp_path: Path) -> None:
    exp = tmp_path / "elsewhere"
    command = f"--data {data} --model {network} {FLAGS} --exp {exp}"
    eval_linear.main(eval_linear.parse_args(command.split()))
    assert sorted(path.name for path in exp.iterdir()) == ["features", "linear.json"]
    assert [path.name for path in network.parent.iterdir()] == ["checkpoint.pth.tar"]


def test_an_unreadable_val_image_counts_as_a_mistake(
    evaluate: Evaluate, data: Path, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = data / "val" / "c" / "002.png"
    damaged.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"images to validate on are unreadable \(1 of 60,"):
        evaluate()
    monkeypatch.setattr("data.labelled.MOST_UNREADABLE", 0.1)
    found = evaluate()["results"]["trained"]
    damaged.unlink()
    top1 = evaluate()["results"]["trained"]["top1"]
    assert found["top1"] == pytest.approx(top1 * 59 / 60)


def test_a_class_whose_images_cannot_be_read_is_never_right(
    evaluate: Evaluate, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.labelled.MOST_UNREADABLE", 0.99)
    for path in (data / "train").rglob("*.png"):
        if path.parent.name not in "ab":
            path.write_bytes(b"no image")
    for path in (data / "val").rglob("*.png"):
        if path.parent.name in "ab":
            path.unlink()
    assert evaluate()["results"]["trained"]["top1"] == 0
    for path in (data / "train" / "b").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"data/train: readable images of one class only; give "):
        evaluate()


def test_two_processes_give_the_results_of_one(
    server: Server, evaluate: Evaluate, data: Path, network: Path, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom parallel import script\nimport eval_linear\n"
        "sys.exit(script.run(eval_linear.main, eval_linear.parse_args))\n"
    )
    command = ["--data", data, "--model", network, *FLAGS.split(), "--exp", tmp_path / "two"]
    server.run_script(script, command, tmp_path / "run")
    two = json.loads((tmp_path / "two" / "linear.json").read_text())
    assert two["results"] == evaluate()["results"]
    assert two["settings"]["processes"] == 2
    assert len(list((tmp_path / "two" / "features").iterdir())) == 4, "a share of each split"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--lr 0.1", "--lr: not with --protocol simple, which trains without it"),
        ("--conv 1", "--conv: not with --protocol simple"),
        ("--tencrops", "--tencrops: not with --protocol simple"),
        ("--wd -4", "--wd: not with --protocol simple"),
        ("--epochs 90", "--epochs: not with --protocol simple"),
        ("--size 1", "--size 1: too small for tiny; give "),
    ],
)
def test_bad_input_is_one_line(
    data: Path, network: Path, error_line: ErrorLine, flags: str, message: str
) -> None:
    command = ["--data", data, "--model", network, *FLAGS.split(), *flags.split()]
    assert message in error_line(eval_linear, *command)
    assert [path.name for path in network.parent.iterdir()] == ["checkpoint.pth.tar"]
