"""Linear SVMs on VOC 2007, from a checkpoint and a tree of images to the result file."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ErrorLine, tiny
from PIL import Image
from sklearn.svm import LinearSVC
from torch import nn
from torchvision.transforms.v2 import functional as F
from voc_mixture import write_voc

import eval_svm
from checkpoints.checkpoint import save_checkpoint
from data.images import ImageList
from data.voc import CLASSES, find_voc
from evaluation import svm_rows
from evaluation.metrics import interpolated_average_precision
from evaluation.svm import Rows
from evaluation.svm_rows import layer_rows
from models import MODELS
from models.convnet import ConvNet
from system import kept
from system.device import select_compute
from system.seeding import derive_seed

ROOT = Path(__file__).parent.parent
FLAGS = ["--size", "32", "--workers", "0", "--device", "cpu", "--precision", "fp32"]
WRONG_NUMBERS = ["--costs 0", "--k 0", "--samples 0", "--jobs 0", "--costs"]
FEW = ["--costs", "0.1", "1", "--k", "2", "--samples", "2"]
Place = tuple[Path, Path]  # VOCdevkit, checkpoint


def network() -> ConvNet:
    """A network with batch norm statistics of random images."""
    torch.manual_seed(0)
    model = tiny(sobel=True)
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(16, 3, 32, 32))
    return model


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "tiny", tiny)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    path = tmp_path / "run" / "checkpoint.pth.tar"
    path.parent.mkdir()
    save_checkpoint(path, {"arch": "tiny", "epoch": 1, "state_dict": network().state_dict()})
    return write_voc(tmp_path), path


def command(place: Place, *flags: str) -> list[str]:
    return ["--vocdir", str(place[0]), "--model", str(place[1]), *FLAGS, *flags]


def run(place: Place, *flags: str) -> dict[str, Any]:
    """The contents of the result file."""
    eval_svm.main(eval_svm.parse_args(command(place, "--exp", str(place[1].parent / "e"), *flags)))
    return json.loads((place[1].parent / "e" / "svm.json").read_text())


def rows_by_hand(root: Path, split: str, layer: int) -> np.ndarray:
    """Rows by Pillow and the plain network, one image at a time."""
    model, rows = network().eval(), []
    listed = (root / "VOC2007" / "ImageSets" / "Main" / f"cat_{split}.txt").read_text()
    for line in listed.splitlines():
        photo = Image.open(root / "VOC2007" / "JPEGImages" / f"{line.split()[0]}.jpg")
        short = 37 / min(photo.size)  # 256/224 of 32
        sides = int(photo.width * short), int(photo.height * short)
        image = photo.resize(sides, Image.Resampling.BILINEAR)
        pixels = F.pil_to_tensor(image.resize((32, 32), Image.Resampling.BILINEAR)) / 255
        pixels = F.normalize(pixels, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        with torch.no_grad():
            maps = model.conv_features(pixels[None], layer)
        side = {8: 34, 16: 24}[maps.shape[1]]  # 9,248 and 9,216 dimensions
        row = nn.AdaptiveAvgPool2d(side)(maps).flatten().numpy()
        rows.append(row / np.sqrt((row**2).sum()))
    return np.stack(rows)


def direct_rows(place: Place, split: str, layers: list[int]) -> dict[int, np.ndarray]:
    images, compute = find_voc(place[0], split).images, select_compute("cpu", "fp32")
    return layer_rows(network().eval(), images, layers, split, compute, 32, 0, False)


def test_rows_are_pooled_activations_of_length_1_in_float32(place: Place) -> None:
    found = direct_rows(place, "test", [1, 2])
    for layer, rows in found.items():
        assert rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)
        np.testing.assert_array_equal(direct_rows(place, "test", [layer])[layer], rows)
        expected = rows_by_hand(place[0], "test", layer)
        # tensors are resized as Pillow does, to one grey level
        assert np.linalg.norm(rows - expected, axis=1).max() < 0.02
    flat = np.concatenate([rows.ravel() for rows in found.values()])
    assert (flat != flat.astype(np.float16)).any(), "no half precision on the way"


def test_the_result_file_has_scikit_learns_ap(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = run(place, *FEW, "--jobs", "1")
    assert "3-fold cross-validation on trainval" in saved["protocol"]
    assert saved["settings"]["costs"] == [0.1, 1]
    assert saved["settings"]["precision"] == "fp32"
    assert saved["versions"]["scikit-learn"]
    layers = saved["results"]["layers"]
    assert {name: layer["dims"] for name, layer in layers.items()} == {"conv1": 9248, "conv2": 9216}
    assert saved["results"]["best_layer"] == max(layers, key=lambda n: layers[n]["svm"]["map"])
    out = capsys.readouterr().out
    assert f"{100 * layers['conv2']['svm']['map']:.1f}" in out
    assert f"{100 * layers['conv2']['low_shot']['2']['best_on_test']['mean']:.1f}" in out
    assert "written to" in out

    number, name = 4, CLASSES[4]
    rows = {split: direct_rows(place, split, [2])[2] for split in ("trainval", "test")}
    targets = {s: find_voc(place[0], s).targets[:, number] for s in ("trainval", "test")}
    direct = LinearSVC(
        C=layers["conv2"]["svm"]["cost"][name], dual=True, max_iter=2000, class_weight={1: 2},
        random_state=derive_seed(31, "coordinate descent") % 2**32,
    ).fit(rows["trainval"].astype(float), np.where(targets["trainval"] == 1, 1, 0))  # fmt: skip
    known = targets["test"] != 0
    scores = direct.decision_function(rows["test"].astype(float))[known]
    ap = interpolated_average_precision(scores, targets["test"][known] == 1)
    assert layers["conv2"]["svm"]["ap"][name] == pytest.approx(ap)


def test_two_processes_give_the_results_of_one(place: Place) -> None:
    flags = [*FEW, "--conv", "2"]
    alone = run(place, *flags, "--jobs", "1")["results"]
    shutil.rmtree(place[1].parent / "e")
    assert run(place, *flags, "--jobs", "2")["results"] == alone


def test_an_interrupted_run_resumes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = [*FEW, "--jobs", "1"]
    uncut = run(place, *flags)["results"]
    files = sorted((place[1].parent / "e").rglob("*.json"))
    shutil.rmtree(place[1].parent / "e")

    write, written = kept.write_text, []

    def cut(path: Path, text: str) -> None:
        written.append(path)
        if len(written) == 150:  # in the second layer: each has 40 + 20 + 40 pieces
            raise KeyboardInterrupt
        write(path, text)

    monkeypatch.setattr(kept, "write_text", cut)
    with pytest.raises(KeyboardInterrupt):
        run(place, *flags)
    assert not (place[1].parent / "e" / "svm.json").exists()
    assert run(place, *flags)["results"] == uncut
    assert len(written) - 150 == 202 - 149, "existing results are kept"
    assert sorted((place[1].parent / "e").rglob("*.json")) == files

    monkeypatch.setattr(eval_svm, "kept_rows", None)  # all is there: images are not even read
    assert run(place, *flags)["results"] == uncut


def test_other_svms_on_the_same_rows_do_not_run_the_network(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--k", "--jobs", "1", "--costs"]
    computed: list[tuple[int, list[int]]] = []
    judged: list[Rows] = []

    def counted(model: ConvNet, images: ImageList, layers: list[int], *more: Any) -> Any:
        computed.append((len(images), layers))
        return layer_rows(model, images, layers, *more)

    def note(rows: Rows, *_: Any) -> dict[str, Any]:
        judged.append(rows)
        return {"svm": {"map": 0.5}, "low_shot": {}}

    monkeypatch.setattr(svm_rows, "layer_rows", counted)
    monkeypatch.setattr(eval_svm, "judge", note)
    run(place, *flags, "1", "--conv", "1")
    run(place, *flags, "0.1")
    trainval, test = (len(find_voc(place[0], split).images) for split in ("trainval", "test"))
    assert computed == [(trainval, [1]), (test, [1]), (trainval, [2]), (test, [2])]
    for before, after in ((judged[0].train, judged[1].train), (judged[0].test, judged[1].test)):
        np.testing.assert_array_equal(before, after)
    assert (judged[1].train != judged[2].train).any(), "the other layer's"


@pytest.mark.parametrize("change", ["weights", "annotations", "size"])
def test_results_with_other_settings_are_computed_again(place: Place, change: str) -> None:
    flags = ["--costs", "1", "--k", "--conv", "1", "--jobs", "1"]
    before = run(place, *flags)["results"]
    if change == "weights":
        state = network().state_dict()
        state["features.0.weight"] = -state["features.0.weight"]
        save_checkpoint(place[1], {"arch": "tiny", "epoch": 1, "state_dict": state})
    elif change == "annotations":
        path = place[0] / "VOC2007" / "ImageSets" / "Main" / "cat_test.txt"
        names = [line.split()[0] for line in path.read_text().splitlines()]
        path.write_text("".join(f"{name} {(-1) ** n}\n" for n, name in enumerate(names)))
    else:
        flags += ["--size", "48"]
    after = run(place, *flags)["results"]
    shutil.rmtree(place[1].parent / "e")
    assert after == run(place, *flags)["results"]
    assert after != before


def test_k_without_numbers_skips_low_shot(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eval_svm, "allowed_cores", lambda: 1)
    saved = run(place, "--costs", "1", "--k", "--conv", "1")
    assert saved["settings"]["jobs"] == 1, "as many as cores"
    assert saved["results"]["layers"]["conv1"]["low_shot"] == {}
    assert "low-shot" not in capsys.readouterr().out


def spoil(place: Place, how: str) -> list[str]:
    """Damage the tree or the checkpoint, or give wrong flags."""
    root = place[0] / "VOC2007"
    if how == "photo":
        photo = root / "JPEGImages" / "000040.jpg"
        photo.write_bytes(photo.read_bytes()[:200])
    elif how == "gone":
        (root / "JPEGImages" / "000029.jpg").unlink()
    elif how == "annotation":
        (root / "ImageSets" / "Main" / "dog_test.txt").unlink()
    elif how in ("rare", "untested"):
        path = root / "ImageSets" / "Main" / f"cow_{'trainval' if how == 'rare' else 'test'}.txt"
        names = [line.split()[0] for line in path.read_text().splitlines()]
        found = 2 if how == "rare" else 0
        lines = [f"{name} {1 if n < found else -1}\n" for n, name in enumerate(names)]
        path.write_text("".join(lines))
    elif how == "nan":
        state = network().state_dict()
        state["features.0.bias"][:] = float("nan")
        save_checkpoint(place[1], {"arch": "tiny", "epoch": 1, "state_dict": state})
    elif how == "no model":
        place[1].unlink()
    else:
        return how.format(place[1]).split()
    return []


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("photo", "000040.jpg: cannot read this image: "),
        ("gone", "000029.jpg: this image of trainval is missing"),
        ("annotation", "dog_test.txt: cannot read this annotation: No such file"),
        ("rare", "cow: 2 images with it in trainval, fewer than 3"),
        ("untested", "cow: 0 images with it in test, fewer than 1"),
        ("nan", "its weights do not fit tiny: not finite: features.0.bias"),
        ("no model", "checkpoint.pth.tar: cannot read this checkpoint"),
        ("--vocdir {}", "not PASCAL VOC 2007"),
        ("--conv 3", "--conv 3: tiny has conv layers 1 to 2"),
        ("--conv all 1", "--conv all: tiny has conv layers 1 to 2; give some of them, or all"),
        ("--size 4", "--size 4: too small for tiny"),
        ("--exp {}/e", "checkpoint.pth.tar/e: cannot write there: Not a directory"),
        *((flag, f"argument {flag.split()[0]}: ") for flag in WRONG_NUMBERS),
    ],
)
def test_bad_input_is_one_line(place: Place, error_line: ErrorLine, how: str, message: str) -> None:
    assert message in error_line(eval_svm, *command(place, *spoil(place, how)))


def test_the_defaults_are_those_of_the_protocol() -> None:
    args = eval_svm.parse_args(["--vocdir", "v", "--model", "m"])
    assert sorted(args.costs) == sorted([1, 10, 100] + [2.0**-n for n in range(4, 20)])
    assert list(args.k) == [1, 2, 4, 8, 16, 32, 64, 96]
    assert (args.samples, args.size, args.seed, args.conv) == (5, 224, 31, ["all"])


def test_the_script_passes_its_variables_and_flags_on(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    for name in ("recipes/env.sh", "recipes/eval_svm.sh"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "python").write_text('#!/usr/bin/env bash\necho "$@"\n')
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "elsewhere").mkdir()
    env = {
        **os.environ,
        "PYTHON": "../python",
        "VOCDIR": "voc",
        "MODEL": "m.pth",
        "WORKERS": "3",
        "EXP": "e",
    }
    done = subprocess.run(
        ["../recipes/eval_svm.sh", "--conv", "4"],
        cwd=tmp_path / "elsewhere", env=env, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == ""
    here = tmp_path / "elsewhere"
    assert done.stdout == (
        f"eval_svm.py --vocdir {here}/voc --model {here}/m.pth --workers 3 --verbose "
        f"--exp {here}/e --conv 4\n"
    )
