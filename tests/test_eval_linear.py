"""eval_linear.py on a small tree of images."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ErrorLine, tiny
from linear_probe import run_probe, save_tiny
from PIL import Image
from runs import Server

import eval_linear
from models import MODELS
from system.errors import InputError

FLAGS = "--size 32 --batch_size 16 --epochs 2 --workers 0 --lr 0.001 --device cpu --precision fp32"
Probe = Callable[..., dict[str, Any]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Classes that differ in their ground, dark, grey and bright."""
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 5)):
        for name, ground in (("a", 40), ("b", 128), ("c", 215)):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = ground + random.integers(-40, 40, size=(40, 40, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:03d}.png")
    return tmp_path / "data"


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    return save_tiny(tmp_path / "exp")


@pytest.fixture
def probe_it(data: Path, network: Path) -> Probe:
    def run(*flags: str, exp: str = "linear") -> dict[str, Any]:
        return run_probe(data, network, network.parent / exp, *FLAGS.split(), *flags)

    return run


def test_the_result_file_has_protocol_settings_and_all_epochs(
    probe_it: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    report = probe_it("--verbose", "--untrained")
    assert report["protocol"].startswith("Logistic regression on the activations of frozen conv")
    settings = report["settings"]
    assert (settings["lr"], settings["wd"], settings["conv"]) == (0.001, -4, [1, 2])
    assert (settings["device"], settings["precision"], settings["arch"]) == ("cpu", "fp32", "tiny")
    assert (settings["classes"], settings["train"], settings["val"]) == (3, 36, 15)
    assert set(report["versions"]) >= {"torch", "python"}
    assert set(report["results"]) == {"trained", "untrained"}
    for by_layer in report["results"].values():
        assert set(by_layer) == {"conv1", "conv2"}
        for found in by_layer.values():
            first, second = found["epochs"]
            assert found["last"] == second
            best = found["best"]
            assert best["top1"] == max(first["top1"], second["top1"])
            assert found["epochs"][best["epoch"]]["top1"] == best["top1"]
            assert best["top5"] == 1, "of three classes"
    assert report["results"]["trained"] != report["results"]["untrained"]
    out = capsys.readouterr().out
    assert "conv2: 9216 dimensions" in out
    assert "epoch 1, conv1: train loss" in out
    trained = report["results"]["trained"]["conv1"]["best"]
    assert f"conv1   trained     {100 * trained['top1']:11.2f}" in out


def test_the_paper_protocol_learns_the_classes(probe_it: Probe) -> None:
    report = probe_it("--epochs", "8", "--conv", "1")
    epochs = report["results"]["trained"]["conv1"]["epochs"]
    assert epochs[-1]["train_loss"] < 0.5 * epochs[0]["train_loss"]
    assert epochs[-1]["top1"] > 0.9


@pytest.mark.parametrize(
    ("flags", "saved"),
    [
        ("", {"linear.1.weight", "linear.2.bias"}),
        (
            "--protocol modelzoo --steps 1 --conv all avgpool",
            {"norm.1.mean", "norm.2.var", "norm.avgpool.mean", "linear.2.bias"},
        ),
    ],
)
def test_an_interrupted_probe_resumes_with_the_same_bits(
    probe_it: Probe, network: Path, flags: str, saved: set[str]
) -> None:
    whole = probe_it(*flags.split(), exp="whole")
    probe_it(*flags.split(), "--epochs", "1", exp="cut")
    cut = probe_it(*flags.split(), exp="cut")
    assert cut["results"] == whole["results"]
    heads = [
        torch.load(network.parent / exp / "linear_trained.pth.tar", weights_only=True)["heads"]
        for exp in ("whole", "cut")
    ]
    assert saved <= set(heads[0])
    for name, weight in heads[0].items():
        assert torch.equal(heads[1][name], weight), name


def test_the_result_file_of_a_model_zoo_protocol(
    probe_it: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    report = probe_it("--protocol", "modelzoo", "--conv", "2", "avgpool")
    assert "\n" not in report["protocol"]
    assert "modelzoo: before each classifier, batch norm" in report["protocol"]
    assert "paper: " not in report["protocol"]
    settings = report["settings"]
    assert (settings["protocol"], settings["conv"]) == ("modelzoo", [2, "avgpool"])
    assert (settings["lr"], settings["wd"], settings["steps"]) == (0.001, -4, [30, 60, 90])
    assert set(report["results"]["trained"]) == {"conv2", "avgpool"}
    out = capsys.readouterr().out
    assert "avgpool: 16 dimensions, AdaptiveAvgPool2d" in out
    assert "\navgpool trained " in out
    pool = probe_it("--protocol", "modelzoo-avgpool", "--lr", "1", exp="pool")
    assert pool["settings"]["conv"] == ["avgpool"]
    assert pool["settings"]["wd"] is None


def test_a_layers_results_do_not_depend_on_the_other_layers(probe_it: Probe) -> None:
    together = probe_it(exp="together")["results"]["trained"]
    for layer in ("1", "2"):
        alone = probe_it("--conv", layer, exp=layer)["results"]["trained"][f"conv{layer}"]
        for one, other in zip(alone["epochs"], together[f"conv{layer}"]["epochs"], strict=True):
            assert one == pytest.approx(other, rel=1e-5)


def test_workers_change_nothing(probe_it: Probe) -> None:
    assert probe_it(exp="a")["results"] == probe_it("--workers", "2", exp="b")["results"]


def test_ten_crops_change_neither_training_nor_loss(probe_it: Probe) -> None:
    one, ten = probe_it(exp="one"), probe_it("--tencrops", exp="ten")
    for layer in ("conv1", "conv2"):
        for single, many in zip(
            one["results"]["trained"][layer]["epochs"],
            ten["results"]["trained"][layer]["epochs"],
            strict=True,
        ):
            assert many["loss"] == pytest.approx(single["loss"], rel=1e-4), "the central crop's"
            assert many["train_loss"] == pytest.approx(single["train_loss"], rel=1e-6)


def test_an_unreadable_image_is_named_once_and_counts_as_an_error(
    probe_it: Probe,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for path in (data / "val").rglob("*.png"):
        if path.parent.name != "a":
            path.unlink()
    for path in sorted((data / "val" / "a").iterdir())[:3]:
        path.write_bytes(b"no image")
    (data / "train" / "b" / "000.png").write_bytes(b"no image")
    with pytest.raises(
        InputError, match=r"more than 1% of the images to train on are unreadable \(1 of 36,"
    ):
        probe_it()
    monkeypatch.setattr("data.labelled.MOST_UNREADABLE", 0.05)
    with pytest.raises(InputError, match=r"images to validate on are unreadable \(3 of 5,"):
        probe_it()
    monkeypatch.setattr("data.labelled.MOST_UNREADABLE", 0.6)
    capsys.readouterr()
    report = probe_it()
    best = report["results"]["trained"]["conv1"]["best"]
    assert best["top5"] == pytest.approx(2 / 5)
    named = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert len(named) == 4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--conv 3", "--conv 3: tiny has conv layers 1 to 2; give some of them, or all"),
        ("--size 1", "--size 1: too small for tiny; give "),
        ("--data {}/nowhere", "{}/nowhere: needs train/ with a folder per class"),
        ("--model {}/none", "{}/none: cannot read this checkpoint: No such file or directory"),
        ("--exp {}/data/val/a/000.png/x", "--exp {}/data/val/a/000.png/x: cannot write there"),
        ("--wd 400", "--wd 400: give an exponent of ten, such as -4 for 1e-4"),
        ("--conv avgpool 3", "--conv 3: tiny has conv layers 1 to 2; give some of them, or all"),
        ("--steps 3 4", "--steps 3 4: the rate of --protocol paper falls with every it"),
        (
            "--protocol deepercluster --steps 3 --conv 1",
            "--steps 3: the rate of --protocol deep",
        ),
        ("--protocol modelzoo --steps 0", "argument --steps: '0' is not a whole number of 1 or"),
        ("--protocol zoo", "argument --protocol: invalid choice: 'zoo' (choose from"),
        ("--epochs 0", "argument --epochs: '0' is not a whole number of 1 or more"),
    ],
)
def test_bad_input_is_one_line(
    data: Path, network: Path, error_line: ErrorLine, flags: str, message: str
) -> None:
    command = ["--data", data, "--model", network, *FLAGS.split()]
    flags, message = (text.format(*[data.parent] * 2) for text in (flags, message))
    assert message in error_line(eval_linear, *command, *flags.split())
    assert [path.name for path in network.parent.iterdir()] == ["checkpoint.pth.tar"]


def test_deeperclusters_rates_are_for_the_layers_of_vgg16(
    data: Path, network: Path, error_line: ErrorLine, probe_it: Probe
) -> None:
    command = ["--data", data, "--model", network, "--protocol", "deepercluster", "--size", "32"]
    message = "--protocol deepercluster: its learning rates are for the 13 conv layers of vgg16; "
    assert f"{message}give --lr for tiny" in error_line(eval_linear, *command)
    report = probe_it("--protocol", "deepercluster")  # with --lr
    assert report["settings"]["rates"] == {"conv1": 0.001, "conv2": 0.001}
    assert (report["settings"]["wd"], report["settings"]["protocol"]) == (-5, "deepercluster")


def test_a_folder_with_other_settings_is_an_error(
    probe_it: Probe, data: Path, network: Path, error_line: ErrorLine
) -> None:
    probe_it("--epochs", "1")
    before = (network.parent / "linear" / "linear.json").read_text()
    command = ["--data", str(data), "--model", str(network), *FLAGS.split(), "--lr", "0.2"]
    command += ["--exp", str(network.parent / "linear")]
    error = error_line(eval_linear, *command)
    assert "was made with other settings (lr 0.001 → 0.2); give another --exp" in error
    assert (network.parent / "linear" / "linear.json").read_text() == before

    kept = sorted((data / "train" / "a").iterdir())
    kept[0].rename(data / "train" / "b" / "new.png")
    assert "was made with other settings (train " in error_line(
        eval_linear, *command, "--lr", "0.001"
    )

    saved = network.parent / "linear" / "linear_trained.pth.tar"
    saved.write_bytes(b"no checkpoint")
    error = error_line(eval_linear, *command)
    assert "linear_trained.pth.tar: is damaged; give another --exp" in error


def test_fewer_epochs_than_done_give_the_first_results(probe_it: Probe) -> None:
    whole = probe_it()["results"]["trained"]["conv1"]["epochs"]
    first = probe_it("--epochs", "1")["results"]["trained"]["conv1"]
    assert first["epochs"] == whole[:1]
    assert first["last"] == whole[0]


def test_a_cosine_cannot_be_made_longer(
    probe_it: Probe, data: Path, network: Path, error_line: ErrorLine
) -> None:
    probe_it("--protocol", "swav", "--epochs", "1")
    command = ["--data", str(data), "--model", str(network), *FLAGS.split(), "--protocol", "swav"]
    command += ["--exp", str(network.parent / "linear"), "--epochs", "2"]
    error = error_line(eval_linear, *command)
    assert "was made with other settings (epochs 1 → 2); give another --exp" in error


def test_the_results_folder_is_named_by_epoch_and_protocol(
    data: Path, network: Path, tmp_path: Path
) -> None:
    numbered = network.parent / "checkpoints" / "checkpoint_7.pth.tar"
    numbered.parent.mkdir()
    shutil.copy(network, numbered)
    for path, protocol, folder in (
        (network, "paper", "linear_epoch_1"),
        (numbered, "paper", "linear_checkpoint_7"),
        (network, "modelzoo", "linear_modelzoo_epoch_1"),
    ):
        command = ["--data", str(data), "--model", str(path), *FLAGS.split(), "--epochs", "1"]
        eval_linear.main(eval_linear.parse_args([*command, "--conv", "1", "--protocol", protocol]))
        assert (tmp_path / "exp" / folder / "linear.json").exists()


def test_two_processes_give_the_results_of_one(
    server: Server, probe_it: Probe, data: Path, network: Path, tmp_path: Path
) -> None:
    """The last batch has one image, and the number of val images is odd. The protocols are the
    paper's, and the model zoos', whose batch norm is over the whole batch."""
    shutil.rmtree(data / "train" / "c")
    shutil.rmtree(data / "val" / "c")
    for number in range(7):
        (data / "train" / "a" / f"{number:03d}.png").unlink()  # 17 left
    (data / "val" / "a" / "000.png").unlink()
    protocols = ("paper", "modelzoo")
    ones = {name: probe_it("--protocol", name, exp=name)["results"] for name in protocols}
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nimport eval_linear\nfrom parallel.collectives import process_group\n"
        "with process_group('cpu'):\n"
        f"    for name in {protocols}:\n"
        f"        flags = ['--protocol', name, '--exp', {str(tmp_path / 'two')!r} + '/' + name]\n"
        "        eval_linear.main(eval_linear.parse_args([*sys.argv[1:], *flags]))\n"
    )
    command = ["--data", data, "--model", network, *FLAGS.split()]
    server.run_script(script, command, tmp_path / "run")
    for name, one in ones.items():
        two = json.loads((tmp_path / "two" / name / "linear.json").read_text())["results"]
        for layer in ("conv1", "conv2"):
            epochs = (report["trained"][layer]["epochs"] for report in (one, two))
            for first, second in zip(*epochs, strict=True):
                assert second == pytest.approx(first, rel=1e-4), (name, layer)


def test_the_network_stays_unchanged(
    probe_it: Probe, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = eval_linear.open_network(network, None, 32)
    model = opened.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    monkeypatch.setattr(eval_linear, "open_network", lambda *given: opened)
    probe_it()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
