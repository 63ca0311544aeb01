"""Linear probes on VOC 2007, against NumPy in float64 and scikit-learn."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ErrorLine, tiny
from linear_probe import run_probe, save_tiny
from runs import Server
from sklearn.metrics import average_precision_score
from torch import nn
from voc_tree import write_voc

import eval_linear
from data.batch import Batch
from data.transforms import to_input
from data.voc import CLASSES
from evaluation import linear as probe
from evaluation.linear_run import learning_rate_decay
from models import MODELS
from system.device import select_compute
from system.errors import InputError

CPU = torch.device("cpu")
COMPUTE = select_compute("cpu", "fp32")
FLAGS = (
    "--protocol deepercluster-voc --conv 2 --size 32 --batch_size 16 --epochs 2 --workers 0 "
    "--lr 0.01 --device cpu --precision fp32"
)
Probe = Callable[..., dict[str, Any]]


def batches(*crops: int) -> list[Batch]:
    """Random pixels, 30 images in three batches."""
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(
        256, (30, *crops, 3, 32, 32), dtype=torch.uint8, generator=random
    )  # fmt: skip
    return [Batch(pixels[i : i + 10], torch.arange(i, i + 10), {}) for i in (0, 10, 20)]


def some_targets() -> np.ndarray:
    targets = np.random.default_rng(0).integers(-1, 2, size=(30, 20)).astype(np.int8)
    targets[:2] = [[1], [-1]]  # each class has both
    return targets


def heads_with_large_weights() -> tuple[Any, probe.Heads]:
    torch.manual_seed(0)
    model = tiny().eval()
    heads = probe.Heads(model, [2], 20, 32, seed=5)
    nn.init.normal_(heads.get_parameter("linear.2.weight"))
    return model, heads


def ignore(_: Any) -> None:
    pass


def validate(model: Any, heads: probe.Heads, loader: list[Batch]) -> dict[str, Any]:
    labels = torch.from_numpy(some_targets())
    found = probe.validate(
        model, heads, loader, labels, COMPUTE,  # type: ignore[arg-type]
        on_unreadable=ignore, advance=ignore,
    )  # fmt: skip
    return found[2]


def logits_of(model: Any, heads: probe.Heads, pixels: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return heads(heads.pooled(model, to_input(pixels, CPU)))[2].double().numpy()


def losses_of(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """−log of the probability of each class that is not marked difficult, summed by image."""
    return (np.log1p(np.exp(-targets * logits)) * (targets != 0)).sum(axis=1)


def scikit_learns_map(scores: np.ndarray, targets: np.ndarray) -> list[float]:
    columns = zip(scores.T, targets.T, strict=True)
    return [average_precision_score(t[t != 0] > 0, s[t != 0]) for s, t in columns]


def test_training_equals_sgd_in_float64() -> None:
    """The gradient of a logit z with target t is −t / (1 + exp(t·z)) / B, and 0 where t is 0."""
    torch.manual_seed(0)
    model = tiny().eval()
    heads = probe.Heads(model, [2], 20, 32, seed=5)
    weight, bias = (p.detach().double().numpy().copy() for p in heads.parameters())
    targets = some_targets()
    optimizer = torch.optim.SGD(heads.parameters(), 0.1, 0.9, weight_decay=0.5)
    losses = probe.train_epoch(
        model, heads, optimizer, batches(), torch.from_numpy(targets), COMPUTE,  # type: ignore[arg-type]
        set_rate=lambda batch: learning_rate_decay(optimizer, 7 + batch, 0.1),
        on_unreadable=ignore, advance=ignore,
    )  # fmt: skip

    velocity, expected = [np.zeros_like(weight), np.zeros_like(bias)], []
    for t, batch in enumerate(batches(), 7):
        rows = heads.pooled(model, to_input(batch.pixels, CPU))[2].detach().double().numpy()
        target = targets[batch.index].astype(np.float64)
        logits = rows @ weight.T + bias
        expected.append(losses_of(logits, target).sum() / 10)
        slope = -target / (1 + np.exp(target * logits)) / 10
        lr = 0.1 / (1 + 0.1 * 0.5 * t) ** 0.5
        gradients = (slope.T @ rows, slope.sum(axis=0))
        for p, v, g in zip((weight, bias), velocity, gradients, strict=True):
            v[:] = 0.9 * v + g + 0.5 * p
            p -= lr * v
    assert losses[2] == pytest.approx(np.mean(expected), rel=1e-5)
    for own, other in zip(heads.parameters(), (weight, bias), strict=True):
        np.testing.assert_allclose(own.detach().numpy(), other, rtol=1e-4, atol=1e-6)


def test_scores_are_scikit_learns() -> None:
    model, heads = heads_with_large_weights()
    found = validate(model, heads, batches())
    logits = np.concatenate([logits_of(model, heads, batch.pixels) for batch in batches()])
    expected = scikit_learns_map(logits, some_targets())
    assert found["AP"] == pytest.approx(dict(zip(CLASSES, expected, strict=True)))
    assert found["mAP"] == pytest.approx(np.mean(expected))
    assert found["loss"] == pytest.approx(losses_of(logits, some_targets()).mean(), rel=1e-5)


def test_an_unreadable_image_is_ranked_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.labelled.MOST_UNREADABLE", 0.1)
    model, heads = heads_with_large_weights()
    loader = batches()
    loader[0] = Batch(loader[0].pixels[1:], loader[0].index[1:], {0: "no image"})
    found = validate(model, heads, loader)
    logits = np.concatenate([logits_of(model, heads, batch.pixels) for batch in batches()])
    losses = losses_of(logits, some_targets())
    logits[0] = logits.min() - 1
    assert found["mAP"] == pytest.approx(np.mean(scikit_learns_map(logits, some_targets())))
    assert found["loss"] == pytest.approx(losses[1:].mean(), rel=1e-5)


def test_ten_crops_give_the_mean_logit_and_the_central_loss() -> None:
    model, heads = heads_with_large_weights()
    found = validate(model, heads, batches(10))
    crops = [[logits_of(model, heads, b.pixels[:, c]) for b in batches(10)] for c in range(10)]
    logits = np.array([np.concatenate(each) for each in crops])
    expected = scikit_learns_map(logits.mean(axis=0), some_targets())
    assert found["mAP"] == pytest.approx(np.mean(expected))
    assert found["loss"] == pytest.approx(losses_of(logits[4], some_targets()).mean(), rel=1e-5)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    return write_voc(tmp_path, trainval=40, test=21)


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    return save_tiny(tmp_path / "exp")


@pytest.fixture
def probe_it(voc: Path, network: Path) -> Probe:
    def run(*flags: str, exp: str = "linear") -> dict[str, Any]:
        return run_probe(voc, network, network.parent / exp, *FLAGS.split(), *flags)

    return run


def test_colours_are_learned_and_the_result_file_is_complete(
    probe_it: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    report = probe_it("--epochs", "5", "--verbose", "--untrained")
    assert "deepercluster-voc: as deepercluster, but on PASCAL VOC 2007" in report["protocol"]
    assert "deepercluster-places205: " not in report["protocol"]
    settings = report["settings"]
    assert (settings["classes"], settings["train"], settings["val"]) == (20, 40, 21)
    assert (settings["conv"], settings["rates"]) == ([2], {"conv2": 0.01})
    assert set(report["results"]) == {"trained", "untrained"}
    found = report["results"]["trained"]["conv2"]
    epochs, best = found["epochs"], found["best"]
    assert best["mAP"] == max(epoch["mAP"] for epoch in epochs) > 0.5, "chance is about 0.1"
    assert epochs[-1]["train_loss"] < 0.5 * epochs[0]["train_loss"]
    assert set(best["AP"]) == set(CLASSES)
    assert best["mAP"] == pytest.approx(np.mean(list(best["AP"].values())))
    out = capsys.readouterr().out
    assert f"epoch 4, conv2: train loss {epochs[-1]['train_loss']:.4f}, val loss " in out
    assert f", mAP {epochs[-1]['mAP']:.2%}\n" in out
    lines = out.splitlines()
    assert "layer   network        best mAP  epoch    last mAP" in lines
    row = f"{100 * best['mAP']:11.2f}{best['epoch']:7}{100 * found['last']['mAP']:12.2f}"
    assert f"conv2   trained     {row}" in lines


def test_an_interrupted_probe_resumes_with_the_same_bits(probe_it: Probe, network: Path) -> None:
    whole = probe_it(exp="whole")
    probe_it("--epochs", "1", exp="cut")
    assert probe_it(exp="cut")["results"] == whole["results"]
    first, second = (
        torch.load(network.parent / exp / "linear_trained.pth.tar", weights_only=True)["heads"]
        for exp in ("whole", "cut")
    )
    assert all(weight.equal(second[name]) for name, weight in first.items())


def test_three_processes_give_the_results_of_one(
    server: Server, probe_it: Probe, voc: Path, network: Path, tmp_path: Path
) -> None:
    """The last of the batches has one image, so that two processes have none of it."""
    flags = ["--batch_size", "13"]
    one = probe_it(*flags)["results"]["trained"]["conv2"]["epochs"]
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nimport eval_linear\nfrom parallel.collectives import process_group\n"
        "with process_group('cpu'):\n    eval_linear.main(eval_linear.parse_args(sys.argv[1:]))\n"
    )
    command = ["--data", voc, "--model", network, *FLAGS.split(), *flags, "--exp", tmp_path / "3"]
    server.run_script(script, command, tmp_path / "run", ranks=3)
    report = json.loads((tmp_path / "3" / "linear.json").read_text())
    for first, other in zip(one, report["results"]["trained"]["conv2"]["epochs"], strict=True):
        assert other["AP"] == pytest.approx(first["AP"], rel=1e-6), "same ranks"
        for name in ("mAP", "loss", "train_loss"):
            assert other[name] == pytest.approx(first[name], rel=1e-4), name


def test_unreadable_images_are_counted(probe_it: Probe, voc: Path) -> None:
    (voc / "JPEGImages" / "000045.jpg").write_bytes(b"no image")
    message = r"more than 1% of the images to validate on are unreadable \(1 of 21,"
    with pytest.raises(InputError, match=message):
        probe_it()


def test_a_class_that_no_image_shows_is_an_error(
    voc: Path, network: Path, error_line: ErrorLine
) -> None:
    path = voc / "ImageSets" / "Main" / "sofa_test.txt"
    path.write_text(path.read_text().replace("  1", " -1"))
    error = error_line(eval_linear, "--data", voc, "--model", network, *FLAGS.split())
    assert "none of the 21 images that are tested on shows the class sofa" in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--data {}/exp", "/exp: not PASCAL VOC 2007: no ImageSets/Main and JPEGImages in it,"),
        ("--conv 13", "--conv 13: tiny has conv layers 1 to 2; give some of them, or all"),
        ("--steps 3", "--steps 3: the rate of --protocol deepercluster-voc falls with every it"),
        ("--protocol deepercluster", "VOC2007: needs train/ with a folder per class"),
    ],
)
def test_bad_input_is_one_line(
    voc: Path, network: Path, tmp_path: Path, error_line: ErrorLine, flags: str, message: str
) -> None:
    command = ["--data", voc, "--model", network, *FLAGS.split()]
    assert message in error_line(eval_linear, *command, *flags.format(tmp_path).split())
    assert [path.name for path in network.parent.iterdir()] == ["checkpoint.pth.tar"]
