"""Settings of main.py over seeds: trained once, measured, compared."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny, write_images

from benchmarks import __main__ as benchmark
from benchmarks import learned
from data.labelled import Labelled, find_train_and_val
from models import MODELS
from system.errors import InputError

FLAGS = "--arch tiny --k 4 --batch 8 --size 32 --epochs 1 --workers 0 --device cpu"


def test_each_network_is_trained_once_and_compared_with_the_untrained_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    for split, seed in (("train", 0), ("val", 7)):
        for label in "ab":
            write_images(tmp_path / "data" / split / label, 12, seed + ord(label))
    settings = tmp_path / "settings.txt"
    settings.write_text(f"slow: {FLAGS} --lr 0.001\n\nquick: {FLAGS} --lr 0.01\n")
    command = ["learned", str(tmp_path / "data"), str(settings), "--out", str(tmp_path / "out")]
    command += ["--seeds", "1", "2"]
    listed, calls = learned.find_train_and_val, list[Path]()

    def counted(data: Path) -> tuple[Labelled, Labelled]:
        calls.append(data)
        return listed(data)

    monkeypatch.setattr(learned, "find_train_and_val", counted)
    benchmark.main(benchmark.parse_args(command))
    assert calls == [tmp_path / "data"]  # the images are listed once, not for each network
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    keys = [json.loads(line)[0] for line in lines]
    names = ["pixels", "untrained", "slow", "quick"]
    assert [(key[1], key[3]) for key in keys] == [(name, n) for n in (1, 2) for name in names]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results.jsonl"]
    shown = capsys.readouterr().out
    for name in names:
        assert f"\n| {name} | 0." in shown
    monkeypatch.setattr(learned, "measure", lambda *_: pytest.fail("measured again"))
    benchmark.main(benchmark.parse_args(command))
    assert capsys.readouterr().out == shown[shown.index("| |") :]
    settings.write_text(f"slow: {FLAGS} --lr 0.001\nquick: {FLAGS} --lr 0.02\n")
    with pytest.raises(pytest.fail.Exception, match="measured again"):  # other flags
        benchmark.main(benchmark.parse_args(command))


def test_a_stopped_run_is_measured_once_it_has_gone_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its CPU seconds are those of both calls."""
    monkeypatch.setitem(MODELS, "tiny", tiny)
    for split in ("train", "val"):
        for label in "ab":
            write_images(tmp_path / "data" / split / label, 12, ord(label))
    args = argparse.Namespace(data=tmp_path / "data")
    images = [split.images for split in find_train_and_val(args.data)]
    call = (args, images, "name", f"{FLAGS} --epochs 2", 1, tmp_path / "exp")
    whole = learned.main.main

    def stopped(run_args: argparse.Namespace) -> None:
        whole(argparse.Namespace(**{**vars(run_args), "epochs": 1}))

    monkeypatch.setattr(learned, "cpu_seconds", iter([10.0, 13.0, 20.0, 25.5]).__next__)
    with monkeypatch.context() as patch:
        patch.setattr(learned.main, "main", stopped)
        with pytest.raises(InputError, match="the run was stopped; the same command resumes it"):
            learned.measure(*call)
    assert (tmp_path / "exp" / "checkpoint.pth.tar").exists()
    assert learned.measure(*call)["cpu_seconds"] == {"mean": 3 + 5.5}


def test_settings_of_several_networks_are_bad_input(tmp_path: Path) -> None:
    args = argparse.Namespace(data=tmp_path, settings=tmp_path / "settings.txt")
    with pytest.raises(InputError, match="its settings differ in --arch, --sobel or --size"):
        learned.check_same_network(args, {"a": "--size 32", "b": "--size 64"})


@pytest.mark.parametrize("content", ["", "lr 0.1\n", "name:\n"])
def test_settings_without_a_name_or_flags_are_bad_input(tmp_path: Path, content: str) -> None:
    path = tmp_path / "settings.txt"
    path.write_text(content)
    with pytest.raises(InputError, match=r"settings.txt: give a line for each setting, NAME: FLAG"):
        learned.read_settings(path)


def test_two_levels_and_rotations_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    for split, seed in (("train", 0), ("val", 7)):
        for label in "ab":
            write_images(tmp_path / "data" / split / label, 12, seed + ord(label))
    flags = f"{FLAGS} --method deepercluster".replace("--k 4", "")
    settings = tmp_path / "settings.txt"
    settings.write_text(f"two: {flags} --super_classes 8 --k 4\nrotations: {flags} --k 1\n")
    judged, ks = learned.judge, list[int]()

    def watched(*args: Any) -> Any:
        ks.append(args[3])
        return judged(*args)

    monkeypatch.setattr(learned, "judge", watched)
    command = ["learned", str(tmp_path / "data"), str(settings), "--out", str(tmp_path / "out")]
    benchmark.main(benchmark.parse_args([*command, "--seeds", "1"]))
    assert ks == [4, 4, 4, 2], "pixels, untrained, two levels; those of the finished RotNet"
    assert "\n| rotations | 0." in capsys.readouterr().out
