"""Checkpoints side by side: which are one row, what is measured, and what is kept."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ErrorLine, read_file, tiny, write_images
from PIL import Image

from checkpoints.checkpoint import (
    digest_of,
    load_model,
    read_checkpoint,
    save_checkpoint,
    untrained_of,
)
from data.decode import read_pixels
from data.transforms import central_crop, to_input
from evaluation.learned import fit_probe
from models import MODELS
from models.network import Network
from tools import compare, contenders

NAMES = ["linear", "20nn", "nmi", "ari", "acc"]
Make = Callable[..., Path]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split, count, seed in (("train", 10, 0), ("val", 5, 7)):
        for label in "ab":
            write_images(tmp_path / "data" / split / label, count, seed + ord(label))
    return tmp_path / "data"


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Write the checkpoint of a run, without training."""
    monkeypatch.setitem(MODELS, "tiny", tiny)

    def write(name: str, seed: int, *, sobel: bool = False, **settings: Any) -> Path:
        torch.manual_seed(int.from_bytes(name.encode()) % 2**32)
        folder = tmp_path / name
        folder.mkdir()
        of_run = {
            "seed": seed,
            "size": 32,
            "lr": 0.1,
            "exp": str(folder),
            "data": "x",
            "workers": 4,
        }
        state = {"epoch": 2, "step": 0, "arch": "tiny", "method": "deepcluster"}
        state |= {"images_digest": "ab", "state_dict": tiny(sobel, out=4).state_dict()}
        save_checkpoint(folder / "checkpoint.pth.tar", {**state, "settings": of_run | settings})
        return folder / "checkpoint.pth.tar"

    return write


def run(data: Path, *checkpoints: Path, flags: str = "") -> dict[str, Any]:
    """The rows of compare.json by their names."""
    out = data.parent / "out"
    command = [*map(str, checkpoints), "--data", str(data), "--out", str(out), "--workers", "0"]
    command += ["--device", "cpu", "--precision", "fp32", *flags.split()]
    compare.main(compare.parse_args(command))
    rows = json.loads((out / "compare.json").read_text())["results"]["rows"]
    return {row["name"]: row for row in rows}


def groups_of(*paths: Path) -> list[list[str]]:
    args = argparse.Namespace(network_key=None, size=None, exif=None, range=None, channels=None)
    groups = contenders.look_at_all(paths, args)
    return [[found.path.parent.name for found in group] for group in groups]


def test_checkpoints_that_differ_only_by_their_seed_are_one_row(make: Make) -> None:
    one, other = make("one", 1), make("other", 1, lr=0.2)
    two = make("two", 2, workers=8, verbose=True, checkpoints=9)
    again = make("again", 2)
    assert groups_of(one, other, two, again) == [["one", "two"], ["other"], ["again"]]


@pytest.mark.parametrize("entry", ["epoch", "method", "images_digest"])
def test_runs_of_other_images_methods_or_epochs_are_other_rows(make: Make, entry: str) -> None:
    one, two = make("one", 1), make("two", 2)
    state = torch.load(two, weights_only=True)
    save_checkpoint(two, {**state, entry: {"epoch": 3}.get(entry, "deepercluster")})
    assert groups_of(one, two) == [["one"], ["two"]]


def test_networks_of_other_programs_are_rows_of_their_own(make: Make, tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        torch.save(tiny().state_dict(), tmp_path / name / "net.pth")
    assert groups_of(tmp_path / "x" / "net.pth", tmp_path / "y" / "net.pth") == [["x"], ["y"]]


@pytest.mark.parametrize("sobel", [False, True])
def test_the_untrained_network_is_that_of_the_run(make: Make, sobel: bool) -> None:
    path = make("one", 5, sobel=sobel)
    args = argparse.Namespace(network_key=None, size=None, exif=None, range=None, channels=None)
    kind = contenders.look_at(path, args).kind
    truth = untrained_of(read_checkpoint(path), 0)
    assert digest_of(kind.untrained(5)) == digest_of(truth) != digest_of(kind.untrained(6))


def test_the_table_the_picture_and_the_file(
    data: Path, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [make("one", 1), make("two", 2), make("other", 1, lr=0.2)]
    rows = run(data, *paths, flags="--seeds 1 3")
    folder = data.parent
    named = [f"{folder / 'one'} and 1 more", str(folder / "other")]
    assert list(rows) == ["raw pixels", "untrained", *named]
    pair, alone = (rows[name] for name in list(rows)[2:])
    assert (pair["seeds"], alone["seeds"]) == ([1, 2], [1])
    assert rows["untrained"]["seeds"] == [1, 2, 3], "those of the runs, too"
    assert pair["checkpoints"] == [str(path) for path in paths[:2]]
    assert list(pair["figures"]) == NAMES
    assert pair["measures"][0] != pair["measures"][1]
    assert set(pair["against untrained"].values()) <= {"better", "worse", "no clear change"}
    assert set(rows["untrained"]["against untrained"].values()) == {None}
    shown = capsys.readouterr().out
    text = (data.parent / "out" / "compare.md").read_text()
    figures = np.array(pair["figures"]["linear"])
    line = f"one and 1 more | 2 | {figures.mean():.3f} ± {figures.std(ddof=1):.3f}, "
    assert line in text
    assert line in shown
    assert f"{data}: 20 images to train on, 10 to validate on, 2 labels." in text
    assert Image.open(data.parent / "out" / "compare.png").width > 1000


def test_the_linear_probe_is_that_of_the_networks_embeddings(data: Path, make: Make) -> None:
    path = make("one", 1)
    rows = run(data, path, flags="--names mine --seeds 1")
    args = argparse.Namespace(network_key=None, size=None, exif=None, range=None, channels=None)
    untrained = contenders.look_at(path, args).kind.untrained(1)

    def embed(model: Network, split: str) -> tuple[np.ndarray, np.ndarray]:
        paths = sorted((data / split).rglob("*.png"))
        crops = [central_crop(32)(read_file(read_pixels, each)) for each in paths]
        with torch.inference_mode():
            found = model.eval().embedding(to_input(torch.stack(crops), torch.device("cpu")))
        return found.half().numpy(), np.array([each.parent.name for each in paths])

    for name, model in {"mine": load_model(path), "untrained": untrained}.items():
        (train, labels), (val, truth) = (embed(model, split) for split in ("train", "val"))
        expected = float((fit_probe(train, labels).predict(val) == truth).mean())
        assert rows[name]["figures"]["linear"] == [pytest.approx(expected, abs=0.11)], name


def test_nothing_is_measured_twice(data: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one = make("one", 1)
    before = run(data, one, flags="--seeds 1")
    judged, calls = compare.judge, []

    def counted(*args: Any, **more: Any) -> Any:
        calls.append(1)
        return judged(*args, **more)

    monkeypatch.setattr(compare, "judge", counted)
    assert run(data, one, flags="--seeds 1") == before
    assert calls == []
    after = run(data, one, make("two", 1, lr=0.2), flags="--seeds 1")
    assert calls == [1]
    assert {name: after[name] for name in before} == before
    run(data, one, flags="--seeds 1 2")
    assert calls == [1, 1], "another untrained network"
    (data / "val" / "a" / "000.png").rename(data / "val" / "b" / "new.png")
    run(data, one, flags="--seeds 1")
    assert calls == [1] * 5, "pixels, untrained and trained, with other labels"


def test_other_images_that_can_be_read_are_measured_anew(data: Path, make: Make) -> None:
    """With a lower limit, a val image of a hundred is too large."""
    write_images(data / "val" / "a", 95, side=34)
    large = data / "val" / "a" / "large.png"
    Image.new("RGB", (200, 200)).save(large)
    one = make("one", 1)
    few = run(data, one, flags="--seeds 1 --max-pixels 20000")
    every = run(data, one, make("two", 1, lr=0.2), flags="--seeds 1")
    assert len(every) == len(few) + 1
    assert run(data, one, flags="--seeds 1 --max-pixels 20000") == few


def test_different_kinds_have_their_own_untrained_networks_and_pixels(
    data: Path, make: Make
) -> None:
    paths = [make("one", 1), make("sobel", 1, sobel=True, sobel_flag=True), make("big", 1, size=40)]
    assert list(run(data, *paths, flags="--seeds 1 --names a b c")) == [
        "raw pixels, 32 pixels",
        "raw pixels, 40 pixels",
        "untrained, without Sobel filters, 32 pixels",
        "untrained, with Sobel filters, 32 pixels",
        "untrained, without Sobel filters, 40 pixels",
        "a", "b", "c",
    ]  # fmt: skip


def test_a_network_whose_features_are_infinite_is_named(
    data: Path, make: Make, error_line: ErrorLine
) -> None:
    path = make("broken", 1)
    state = torch.load(path, weights_only=True)
    state["state_dict"]["classifier.4.weight"].fill_(3e38)
    save_checkpoint(path, state)
    command = f"{path} --data {data} --out {data.parent}/out --workers 0 --device cpu --seeds 1"
    line = error_line(compare, *command.split(), "--precision", "fp32")
    assert f"{path}: {data}/train/a/000.png: its features are NaN or infinite" in line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("{one} {one}", "one/checkpoint.pth.tar: is given twice; give each checkpoint once"),
        ("{one} --names a b", "--names a b: give one for each of 1: "),
        ("{one} {two} --names a a", "--names a a: give each row its own name"),
        ("{one} {tmp}/none", "none: cannot read this checkpoint: No such file or directory"),
        ("{one} --size 1", "--size 1: too small for tiny; give "),
        ("{one} --data {tmp}/nowhere", "nowhere: needs train/ with a folder per class"),
        ("{one} --out {one}/x", "--out {one}/x: cannot write there"),
        ("--names a", "the following arguments are required: CHECKPOINT"),
    ],
)
def test_bad_input_is_one_line(
    data: Path, make: Make, error_line: ErrorLine, flags: str, message: str
) -> None:
    made = {"one": make("one", 1), "two": make("two", 2, lr=0.2), "tmp": data.parent}
    command = f"--data {data} --out {data.parent}/out {flags.format(**made)}".split()
    assert message.format(**made) in error_line(compare, *command)
    assert not (data.parent / "out").exists()
