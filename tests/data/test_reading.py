"""`--range`: which scripts take it, where it is kept, and the warning about lost grey levels."""

import argparse
import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ErrorLine, read_file, tiny
from image_zoo import tiff
from PIL import Image

import assign
import eval_knn
import main
from checkpoints.checkpoint import read_checkpoint
from checkpoints.safetensors_file import read_weights
from data.decode import read_pixels
from data.images import find_images
from data.labelled import find_train_and_val
from data.levels import warn_of_lost_levels
from data.reading import AS_STORED, Reading, chosen_reading
from data.retrieval import find_readable
from data.unreadable import remedy
from features.network import open_inputs
from models import MODELS
from system.errors import InputError
from tools import export, prepare_data
from training.finished_run import read_run

Train = Callable[..., Path]
FLAGS_OF_SCRIPTS = [
    "main", "assign", "extract_features", "eval_knn", "eval_linear", "eval_svm",
    "eval_voc_classif", "eval_retrieval", "tools.prepare_data", "tools.eval_quick",
    "visu.clusters", "visu.feature_map", "visu.activ_retrieval",
]  # fmt: skip


@pytest.fixture
def float_tree(tree: Path) -> Path:
    """The tree's images in grey, as floats from 0 to 1."""
    for path in tree.rglob("*.png"):
        grey = np.asarray(Image.open(path).convert("L"))
        path.with_suffix(".tif").write_bytes(tiff((grey / 255).astype("f4")))
        path.unlink()
    return tree


@pytest.mark.parametrize("script", FLAGS_OF_SCRIPTS)
def test_every_script_that_decodes_images_takes_a_range(
    script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(script).parse_args(["--help"])
    assert ended.value.code == 0
    assert "--range LOW HIGH" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flag", "kept", "expected"),
    [
        (None, {}, None), (None, {"range": None}, None), ([0, 1], {}, (0, 1)),
        (None, {"range": [0.0, 4095.0]}, (0, 4095)), ([-5, 5], {"range": [0, 1]}, (-5, 5)),
        ([0, 1], {"range": "damaged"}, (0, 1)),
    ],
)  # fmt: skip
def test_the_flag_wins_over_the_checkpoint(
    flag: list[float] | None, kept: dict[str, Any], expected: tuple[float, float] | None
) -> None:
    args = argparse.Namespace(exif=None, range=flag, channels=None)
    assert chosen_reading(args, kept, Path("network")) == Reading(range=expected)


@pytest.mark.parametrize("kept", ["0 1", [0], [1, 0], [0, float("nan")], [0, "1"], 7])
def test_a_checkpoint_with_a_malformed_range(kept: Any) -> None:
    args = argparse.Namespace(exif=None, range=None, channels=None)
    with pytest.raises(InputError, match=r"^network: its range is .*; give --range LOW HIGH$"):
        chosen_reading(args, {"range": kept}, Path("network"))


@pytest.mark.parametrize("ends", [("1", "1"), ("4095", "0")])
def test_low_must_be_below_high(tree: Path, error_line: ErrorLine, ends: tuple[str, str]) -> None:
    expected = f"--range {ends[0]} {ends[1]}: give LOW below HIGH"
    assert expected in error_line(main, str(tree), "--range", *ends)


def test_kept_work_knows_the_choices_that_are_no_defaults() -> None:
    assert AS_STORED.key == {}
    assert Reading("apply", (0, 1)).key == {"exif": "apply", "range": [0, 1]}
    assert Reading(range=(0, 1)).settings == {"exif": "ignore", "range": [0, 1], "channels": None}


def test_resume_and_export_keep_the_range(float_tree: Path, train: Train, tmp_path: Path) -> None:
    exp = train(float_tree, "--range", "0", "1")
    assert not (exp / "bad_images.txt").exists()
    file = exp / "checkpoint.pth.tar"
    assert read_checkpoint(file)["settings"]["range"] == [0, 1]
    resume = [str(float_tree), "--resume", str(file)]
    assert main.parse_args(resume).range == [0, 1]
    assert main.parse_args([*resume, "--range", "-1", "2"]).range == [-1, 2]
    train(float_tree, "--resume", str(file), "--epochs", "2")
    assert read_run(exp).images.reading == Reading(range=(0, 1))
    flags = [str(file), str(float_tree), "--device", "cpu"]
    assert open_inputs(assign.parse_args(flags)).images.reading == Reading(range=(0, 1))
    other = assign.parse_args([*flags, "--range", "0", "2"])
    assert open_inputs(other).images.reading == Reading(range=(0, 2))
    out = tmp_path / "network.safetensors"
    export.main(export.parse_args([str(file), str(out)]))
    assert read_weights(out)["settings"] == {"size": 32, "range": [0, 1]}


def test_a_damaged_range_in_a_resumed_run(tree: Path, train: Train, error_line: ErrorLine) -> None:
    file = train(tree) / "checkpoint.pth.tar"
    state = read_checkpoint(file)
    for kept in ([0.0], "0 1", [0.0, "x"]):
        state["settings"]["range"] = kept
        torch.save(state, file)
        assert "its setting range is" in error_line(main, str(tree), "--resume", str(file))


def test_a_run_without_the_range_ends_with_the_reason(
    float_tree: Path, train: Train, tmp_path: Path
) -> None:
    reason = r"its grey levels are float numbers, here from .*--range LOW HIGH"
    with pytest.raises(InputError, match=reason):
        train(float_tree)
    assert len((tmp_path / "exp" / "bad_images.txt").read_text().splitlines()) == 40


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("main", "train -a tiny --k 4 --batch 8 --size 32 --exp {exp} --no-report"),
        ("tools.prepare_data", "train {exp}"),
        ("eval_knn", "--data . --model {model} --k 1 --exp {exp}"),
        ("eval_linear", "--data . --model {model} --conv 2 --batch_size 20 --exp {exp}"),
    ],
)
def test_the_last_line_of_every_script_says_to_give_a_range(
    float_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, flags: str
) -> None:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    model = tmp_path / "model.pth"
    torch.save({"arch": "tiny", "state_dict": tiny().state_dict()}, model)
    shutil.copytree(float_tree, tmp_path / "data" / "train")
    shutil.copytree(float_tree, tmp_path / "data" / "val")
    monkeypatch.chdir(tmp_path / "data")
    command = [*flags.format(exp=tmp_path / "exp", model=model).split(), "--workers", "0"]
    script = importlib.import_module(name)
    with pytest.raises(
        InputError, match=r"unreadable.*; give --range LOW HIGH(, and start again)?$"
    ):
        script.main(script.parse_args(command))


def test_the_remedy_follows_the_reasons() -> None:
    floats, damaged = "float numbers: give --range LOW HIGH", "the file is empty"
    assert remedy([floats]) == "give --range LOW HIGH"
    assert remedy([damaged]) == "repair or remove them"
    assert remedy([damaged, floats]) == "give --range LOW HIGH, and repair or remove them"


def test_neighbours_are_those_of_the_8_bit_copies(
    tree: Path, train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = train(tree) / "checkpoint.pth.tar"
    for number, path in enumerate(sorted(tree.rglob("*.png"))):
        grey = np.asarray(Image.open(path).convert("L"))
        name = Path(("train", "val")[number % 2], path.parent.name, path.name)
        for kind in ("8 bits", "floats"):
            (tmp_path / kind / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey).save(tmp_path / "8 bits" / name)
        floats = (tmp_path / "floats" / name).with_suffix(".tif")
        floats.write_bytes(tiff((grey / 255 * 0.3 - 7).astype("f4")))
    results = []
    capsys.readouterr()
    for kind, flags in (("8 bits", []), ("floats", ["--range", "-7", "-6.7"])):
        exp = ["--exp", str(tmp_path / f"exp {kind}"), "--workers", "0", "--device", "cpu"]
        command = ["--data", str(tmp_path / kind), "--model", str(model), "--k", "3", *exp, *flags]
        eval_knn.main(eval_knn.parse_args(command))
        results.append(capsys.readouterr().out.split("written")[0])
    assert results[0] == results[1]


def test_the_range_reaches_the_images_of_evaluations(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for label in "ab":
            (tmp_path / split / label).mkdir(parents=True)
            (tmp_path / split / label / "1.tif").write_bytes(tiff(np.full((8, 8), 0.2, "f4")))
    reading = Reading(range=(0, 1))
    train, val = find_train_and_val(tmp_path, reading)
    for images in (train.images, val.images, find_readable(tmp_path, reading)):
        assert images.read_pixels(0).unique().tolist() == [51]


def test_a_copy_is_scaled_if_it_is_resized(tmp_path: Path) -> None:
    """Small images are copied as they are, so training on the copy takes the same range."""
    source, target, scale = tmp_path / "source", tmp_path / "copy", Reading(range=(0, 1))
    source.mkdir()
    for name, side in (("large", 40), ("small", 8)):
        (source / f"{name}.tif").write_bytes(tiff(np.full((side, side), 0.2, "f4")))
    flags = [str(source), str(target), "--size", "10", "--workers", "0"]
    prepare_data.main(prepare_data.parse_args([*flags, "--range", "0", "1"]))
    assert read_file(read_pixels, target / "large.tif").unique().tolist() == [51]
    for index in range(2):
        assert find_images(target, scale).read_pixels(index).unique().tolist() == [51]
    with pytest.raises(InputError, match=r"made with other settings \(range"):
        prepare_data.main(prepare_data.parse_args([*flags, "--range", "0", "2"]))


RAMP = np.arange(4096).reshape(64, 64)


@pytest.mark.parametrize(
    ("values", "scale", "warning"),
    [
        (RAMP.astype("u2"), None, "(values from 0 to 4095) keep 16 of their 4,096 levels; "
                                  "--range 0 4095 keeps more"),
        (RAMP.astype("u2") + 30000, None, "keep 17 of their 4,096 levels; "
                                          "--range 30000 34095 keeps more"),
        ((RAMP / 4095).astype("f4"), (0, 4095), "--range 0 1 keeps more"),
        ((RAMP - 2048).astype("i2"), (0, 9), "--range -2048 2047 keeps more"),
        (RAMP.astype("u2"), (0, 4095), None),
        (RAMP.astype("u2") * 16, None, None),
        ((RAMP % 2).astype("u2"), None, None),  # a mask: two levels
        ((RAMP / 4095).astype("f4"), None, None),  # unreadable
        ((RAMP % 256).astype("u1"), None, None),
    ],
)  # fmt: skip
def test_lost_grey_levels_give_one_warning(
    tmp_path: Path,
    values: np.ndarray,
    scale: tuple[float, float] | None,
    warning: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number in range(12):
        (tmp_path / f"{number}.tif").write_bytes(tiff(values))
    warn_of_lost_levels(find_images(tmp_path, Reading(range=scale)))
    said = capsys.readouterr().err
    if warning is None:
        assert said == ""
    else:
        assert said.startswith(f"warning: {tmp_path}: grey images ")
        assert warning in said
        assert said.count("\n") == 1


def test_training_and_applying_warn_of_lost_levels(
    tmp_path: Path, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wide").mkdir()
    for number in range(16):
        (tmp_path / "wide" / f"{number}.tif").write_bytes(tiff((RAMP + number).astype("u2")))
    exp = train(tmp_path / "wide", "--batch", "4")
    assert capsys.readouterr().err.count("--range 0 8191 keeps more") == 1
    command = [str(exp / "checkpoint.pth.tar"), str(tmp_path / "wide"), "--device", "cpu"]
    open_inputs(assign.parse_args(command))
    assert capsys.readouterr().err.count("--range 0 8191 keeps more") == 1
