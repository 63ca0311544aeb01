"""The card of a checkpoint agrees with the file and the network."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny
from networks import vgg_like
from old_torch import optimizer_of_2018, save_as_2018

from checkpoints.checkpoint import load_model
from models import MODELS
from system import cli
from system.errors import InputError
from tools import inspect_checkpoint


@pytest.fixture(autouse=True)
def _tiny_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    monkeypatch.setattr(sys, "argv", ["inspect_checkpoint.py"])


def inspect(*argv: str | Path) -> int:
    return cli.run(inspect_checkpoint.main, inspect_checkpoint.parse_args, list(map(str, argv)))


def released(path: Path) -> Path:
    """A checkpoint like the released ones: with the original's keys only, by Python 2."""
    weights = {
        name.replace("features.", "features.module."): weight
        for name, weight in tiny(sobel=True, out=10).state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    optimizer = optimizer_of_2018([torch.zeros(3)])
    contents = {"epoch": 500, "arch": "tiny", "state_dict": weights, "optimizer": optimizer}
    save_as_2018(contents, path)
    return path


def rows(text: str) -> dict[str, str]:
    lines = text.splitlines()[1:]
    return {line[2:16].strip(): line[16:] for line in lines if line[2:16].strip()}


def test_the_card_of_a_run(
    train: Callable[..., Path], tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = train(tree, "--seed", "5") / "checkpoint.pth.tar"
    capsys.readouterr()
    assert inspect(path, "--json") == 0
    (card,) = json.loads(capsys.readouterr().out)
    model = load_model(path)
    assert card["error"] is None
    assert (card["architecture"], card["sobel"], card["k"]) == ("tiny", True, 4)
    assert card["clusters"] == {"algorithm": "Kmeans", "k": 4, "epoch": 1}
    assert (card["epoch"], card["step"]) == (1, 0)
    assert card["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert (card["conv_layers"], card["embedding"]) == (2, 32)
    assert card["bytes"] == path.stat().st_size
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert card["input"] == {
        "channels": "RGB",
        "range": [0, 1],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "margin": 0,
        "size": 32,
    }
    assert card["settings"] == json.loads((path.parent / "config.json").read_text())["settings"]
    assert inspect(path) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{path}\n")
    card_in_words = rows(text)
    assert card_in_words["epoch"] == "1, the next to run"
    assert card_in_words["clusters"].startswith("4 centroids of Kmeans")
    assert card_in_words["layout"] == "zip of torch 1.6 or later"
    assert card_in_words["settings"].startswith(f"data {tree}"[:80])


def test_the_card_of_a_released_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect(released(tmp_path / "checkpoint.pth.tar")) == 0
    found = rows(capsys.readouterr().out)
    assert found["architecture"] == "tiny"
    assert found["Sobel filters"] == "yes"
    assert found["k"] == "10 (outputs of the top layer)"
    assert found["clusters"] == "not saved"
    assert found["epoch"] == "500, the next to run"
    assert found["layout"].startswith("not zip, written by Python 2, names with features.module.")
    assert "settings" not in found


@pytest.mark.parametrize(
    ("sobel", "made_by"),
    [(True, "DeeperCluster, or DeepCluster on Flickr images"), (False, "RotNet")],
)
def test_a_file_of_deeperclusters_release_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sobel: bool,
    made_by: str,
) -> None:
    monkeypatch.setitem(MODELS, "vgg16", vgg_like)
    weights = vgg_like(sobel).state_dict()
    kept = {f"module.body.{n}": w for n, w in weights.items() if not n.startswith(("sobel", "top"))}
    filters = {f"module.{n}": w for n, w in weights.items() if n.startswith("sobel")}
    torch.save({"state_dict": kept | filters}, tmp_path / "ours.pth")
    assert inspect(tmp_path / "ours.pth") == 0
    found = rows(capsys.readouterr().out)
    assert found["released"] == f"a file of DeeperCluster's release: {made_by}"
    assert (found["architecture"], found["Sobel filters"]) == ("vgg16", "yes" if sobel else "no")
    assert inspect(tmp_path / "ours.pth", "--json") == 0
    (card,) = json.loads(capsys.readouterr().out)
    assert (card["input"]["margin"], card["conv_layers"]) == (1, 13)


def test_a_state_dict_alone_without_top_layer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny(sobel=False)
    model.top_layer = None
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    assert inspect(tmp_path / "weights.pth") == 0
    found = rows(capsys.readouterr().out)
    assert (found["Sobel filters"], found["k"]) == ("no", "no top layer")
    assert (found["epoch"], found["conv layers"]) == ("not known", "2")
    assert "architecture recognised by the" in found["layout"]


def test_a_checkpoint_within_an_epoch_has_its_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tiny().state_dict()
    torch.save({"epoch": 3, "step": 20, "arch": "tiny", "state_dict": weights}, tmp_path / "c")
    assert inspect(tmp_path / "c") == 0
    assert rows(capsys.readouterr().out)["epoch"] == "3, 20 batches done"


def test_unusable_files_are_listed_with_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tiny(sobel=True, out=6).state_dict()
    weights["classifier.1.bias"] = torch.full((32,), float("nan"))
    torch.save({"epoch": 3, "arch": "tiny", "state_dict": weights}, tmp_path / "bad")
    (tmp_path / "none").write_bytes(b"hello")
    good = released(tmp_path / "good")
    assert inspect(tmp_path / "bad", tmp_path / "none", good) == 2
    out, err = capsys.readouterr()
    assert err == (
        f"inspect_checkpoint.py: error: {tmp_path / 'bad'}: its weights do not fit tiny: "
        f"not finite: classifier.1.bias; {tmp_path / 'none'}: not a checkpoint, or a damaged one\n"
    )
    bad, none, fine = (f"{tmp_path}/{part}" for part in out.split(f"{tmp_path}/")[1:])
    assert rows(bad)["k"] == "6 (outputs of the top layer)"
    assert "embedding" not in rows(bad)
    assert set(rows(none)) == {"file", "SHA-256"}
    assert rows(fine)["embedding"] == "32 dimensions"
    assert inspect("--json", tmp_path / "bad") == 2
    (card,) = json.loads(capsys.readouterr().out)
    assert card["error"].endswith("not finite: classifier.1.bias")


def test_a_missing_file_is_named_before_any_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect(released(tmp_path / "good"), tmp_path / "gone") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"inspect_checkpoint.py: error: {tmp_path / 'gone'}: no such file\n"


@pytest.mark.parametrize(
    "odd",
    [
        {"clusters": [1]},
        {"clusters": {"centroids": 5, "algorithm": "Kmeans", "epoch": 1}},
        {"epoch": "many"},
        {"settings": {"size": "large", "n": float("nan"), "t": "a\nb"}},
    ],
)
def test_odd_values_do_not_stop_the_card(
    tmp_path: Path, odd: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"arch": "tiny", "state_dict": tiny().state_dict()} | odd, tmp_path / "c")
    for flags in ([], ["--json"]):
        assert inspect(tmp_path / "c", *flags) == 0
        assert "tiny" in capsys.readouterr().out


def test_control_characters_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a\x1b[31m.pth"
    contents = {"arch": "tiny", "settings": {"evil\x1b[31m": "\x1b[2J"}}
    torch.save({**contents, "state_dict": tiny().state_dict()}, path)
    assert inspect(path) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert r"evil\x1b[31m \x1b[2J" in shown


def test_a_folder_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect(tmp_path) == 2
    line = f"{tmp_path}: a folder; give files, such as {tmp_path / 'checkpoint.pth.tar'}\n"
    assert capsys.readouterr().err == f"inspect_checkpoint.py: error: {line}"
    with pytest.raises(InputError, match=r"a folder; give a checkpoint, such as .*/checkpoint"):
        load_model(tmp_path)
