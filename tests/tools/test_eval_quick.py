"""The quick look at a network, and scikit-learn's digits."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny, write_images
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from checkpoints.checkpoint import read_checkpoint
from data.images import find_images
from evaluation.embedded import embed_by, embed_pixels, embed_together, judge
from evaluation.verdict import UNCLEAR, WORSE, verdict
from features.kept import Pass
from system.device import select_compute
from system.errors import InputError
from tools import eval_quick
from tools.make_digits import write_digits


def test_the_digits_equal_scikit_learns(tmp_path: Path) -> None:
    write_digits(tmp_path / "digits")
    train, val = (sorted((tmp_path / "digits" / s).rglob("*.png")) for s in ("train", "val"))
    assert (len(train), len(val)) == (1437, 360)
    digits = load_digits()
    numbers = {int(path.stem): path for path in train + val}
    assert sorted(numbers) == list(range(1797))
    for number in (0, 5, 1796):
        path = numbers[number]
        assert path.parent.name == str(digits.target[number])
        scan = np.asarray(Image.open(path).resize((8, 8), Image.Resampling.BOX)) / 255 * 16
        assert np.corrcoef(scan.ravel(), digits.images[number].ravel())[0, 1] > 0.98


def test_scattered_digits_are_the_digits_at_other_places(tmp_path: Path) -> None:
    """A copy, cut out, turned back and resized, is the digit; train and val share no digit."""
    write_digits(tmp_path / "scattered", scatter=True)
    train, val = (sorted((tmp_path / "scattered" / s).rglob("*.png")) for s in ("train", "val"))
    assert (len(train), len(val)) == (4 * 1437, 4 * 360)
    assert not {path.name[:4] for path in train} & {path.name[:4] for path in val}
    digits = load_digits()
    found = []
    for path in train[::40]:
        assert path.parent.name == str(digits.target[int(path.name[:4])])
        image = Image.open(path)
        assert image.size == (32, 32)
        box = image.point(lambda grey: 255 * (grey > 40)).getbbox()
        scan = Image.fromarray((digits.images[int(path.name[:4])] * 15.9).astype(np.uint8))
        own = scan.point(lambda grey: 255 * (grey > 40)).getbbox()
        cut, whole = (np.asarray(each.resize((8, 8))) for each in (image.crop(box), scan.crop(own)))
        found.append(np.corrcoef(cut.ravel(), whole.ravel())[0, 1])
    assert np.mean(found) > 0.8


def test_a_folder_of_digits_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    write_digits(tmp_path / "digits")
    assert list((tmp_path / "digits").iterdir()) == []


def test_digits_that_cannot_be_written_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write the digits there: File exists"):
        write_digits(tmp_path / "file" / "digits")


def test_the_trained_network_is_compared_with_the_untrained_one(
    tmp_path: Path, train: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for split, count in (("train", 12), ("val", 6)):
        for seed, label in enumerate("abc"):
            write_images(tmp_path / "data" / split / label, count, seed + 10 * len(split))
    folder = train(tmp_path / "data" / "train", "--epochs", "2", report=True)
    before = read_checkpoint(folder / "checkpoint.pth.tar")["state_dict"]
    command = f"--data {tmp_path}/data --model {folder}/checkpoint.pth.tar --workers 0"
    eval_quick.main(eval_quick.parse_args([*command.split(), "--precision", "fp32"]))
    written = json.loads((folder / "quick.json").read_text())
    assert written["protocol"]["k"] == 4
    assert written["protocol"]["epoch"] == 2
    assert list(written["results"]) == ["pixels", "untrained", "trained"]
    assert written["results"]["untrained"] != written["results"]["trained"]
    shown = capsys.readouterr().out
    for line in written["summary"]:
        assert line in shown
    assert written["table"][1][0] == "linear probe"
    assert "linear probe" in (folder / "report.html").read_text()
    after = read_checkpoint(folder / "checkpoint.pth.tar")["state_dict"]
    assert all(before[name].equal(after[name]) for name in before)


@pytest.mark.parametrize(
    ("flags", "k"), [("--super_classes 8 --k 6", 6), ("--super_classes 4 --k 1", 2)]
)
def test_runs_of_deepercluster_and_rotnet_are_compared(
    flags: str, k: int, tmp_path: Path, train: Callable[..., Path]
) -> None:
    for split, count in (("train", 8), ("val", 3)):
        for seed, label in enumerate("abc"):
            write_images(tmp_path / "data" / split / label, count, seed + 10 * len(split))
    folder = train(tmp_path / "data" / "train", "--method", "deepercluster", *flags.split())
    command = f"--data {tmp_path}/data --model {folder}/checkpoint.pth.tar --workers 0"
    eval_quick.main(eval_quick.parse_args([*command.split(), "--precision", "fp32"]))
    written = json.loads((folder / "quick.json").read_text())
    assert written["protocol"]["k"] == k
    assert written["results"]["untrained"] != written["results"]["trained"]


def test_one_pass_gives_the_rows_of_several(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 12, seed=1)
    (tmp_path / "a" / "003.png").write_bytes(b"no image")
    images = find_images(tmp_path)
    by = Pass(24, select_compute("cpu", "fp32"), batch=5, workers=0)
    torch.manual_seed(0)
    networks = [tiny(), tiny()]
    alone = [embed_pixels(by), *(embed_by(network, by) for network in networks)]
    for each, together in zip(alone, embed_together(networks, by), strict=True):
        expected, readable, reasons = each(images, "train")
        rows, *rest = together(images, "train")
        np.testing.assert_array_equal(rows, expected)
        np.testing.assert_array_equal(rest[0], readable)
        assert list(rest[1]) == list(reasons)
    assert list(reasons) == ["cannot identify image file"]


@pytest.mark.parametrize("by_colour", [True, False])
def test_visible_labels_score_high_and_random_labels_low(tmp_path: Path, by_colour: bool) -> None:
    """The images are red and blue squares, labelled by colour or at random."""
    for split, count in (("train", 40), ("val", 20)):
        for number in range(count):
            red = number % 2 == 0
            label = "ab"[number % 2] if by_colour else "ab"[number // 2 % 2]
            folder = tmp_path / split / label
            folder.mkdir(parents=True, exist_ok=True)
            colour = (200, 0, 0) if red else (0, 0, 200)
            Image.new("RGB", (32, 32), colour).save(folder / f"{number}.png")
    train, val = (find_images(tmp_path / split) for split in ("train", "val"))
    torch.manual_seed(0)
    by = Pass(32, select_compute("cpu", "fp32"), workers=0)
    for embed in (embed_by(tiny(), by), embed_pixels(by)):
        found, readable = judge(embed, train, val, k=2, seed=0)
        assert readable == 40
        if by_colour:
            assert found["linear"].all()
            assert found["plain_1nn"].all()
            assert found["plain_nmi"].max() == pytest.approx(1)
        else:
            assert 0.3 <= found["linear"].mean() <= 0.7
            assert found["plain_nmi"].mean() < 0.1


def test_a_blinded_network_is_called_worse_and_the_same_one_unchanged(tmp_path: Path) -> None:
    """The images are red or blue; the blinded network sees green only, which is noise."""
    noise = np.random.default_rng(0)
    for split, count in (("train", 80), ("val", 40)):
        for number in range(count):
            pixels = np.zeros((32, 32, 3), np.uint8)
            pixels[..., 1] = noise.integers(0, 256, (32, 32))
            pixels[..., 0 if number % 2 else 2] = 255
            folder = tmp_path / split / "ab"[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    train, val = (find_images(tmp_path / split) for split in ("train", "val"))
    torch.manual_seed(0)
    network = tiny()
    blinded = copy.deepcopy(network)
    first = next(layer for layer in blinded.features if isinstance(layer, nn.Conv2d))
    first.weight.data[:, [0, 2]] = 0
    by = Pass(32, select_compute("cpu", "fp32"), workers=0)
    good, again, bad = (
        judge(embed_by(each, by), train, val, k=4, seed=0)[0]
        for each in (network, copy.deepcopy(network), blinded)
    )
    assert {name: verdict(good[name], bad[name]) for name in good} == dict.fromkeys(good, WORSE)
    assert {verdict(good[name], again[name]) for name in good} == {UNCLEAR}


def test_fewer_images_than_clusters_are_bad_input(
    tmp_path: Path, train: Callable[..., Path]
) -> None:
    for split in ("train", "val"):
        for label in "ab":
            write_images(tmp_path / "data" / split / label, 6)
    folder = train(tmp_path / "data" / "train", "--k", "9")
    for path in sorted((tmp_path / "data" / "train").rglob("*.png"))[:4]:
        path.unlink()
    command = ["--data", f"{tmp_path}/data", "--model", str(folder / "checkpoint.pth.tar")]
    with pytest.raises(InputError, match=r"8 readable images, fewer than the run's 9 clusters"):
        eval_quick.main(eval_quick.parse_args([*command, "--workers", "0"]))


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_readable_images_is_bad_input(
    tmp_path: Path, train: Callable[..., Path], split: str
) -> None:
    for each in ("train", "val"):
        for label in "ab":
            write_images(tmp_path / "data" / each / label, 6)
    folder = train(tmp_path / "data" / "train")
    for path in (tmp_path / "data" / split).rglob("*.png"):
        path.write_bytes(b"no image")
    command = ["--data", f"{tmp_path}/data", "--model", str(folder / "checkpoint.pth.tar")]
    use = {"train": "train on", "val": "validate on"}[split]
    with pytest.raises(InputError, match=f"more than 1% of the images to {use} are unreadable"):
        eval_quick.main(eval_quick.parse_args([*command, "--workers", "0"]))


def test_a_checkpoint_of_another_program_is_bad_input(
    tmp_path: Path, train: Callable[..., Path]
) -> None:
    for label in "ab":
        write_images(tmp_path / "data" / label, 6)
    path = train(tmp_path / "data") / "checkpoint.pth.tar"
    checkpoint = read_checkpoint(path)
    for settings in ({}, {"seed": "x", "size": 32}):
        torch.save({**checkpoint, "settings": settings}, path)
        with pytest.raises(InputError, match="has no k, seed or input size"):
            eval_quick.protocol_of(read_checkpoint(path), path)


def test_data_without_labels_are_bad_input(tmp_path: Path, train: Callable[..., Path]) -> None:
    for split in ("train", "val"):
        write_images(tmp_path / "data" / split, 12)
    folder = train(tmp_path / "data" / "train")
    command = ["--data", f"{tmp_path}/data", "--model", str(folder / "checkpoint.pth.tar")]
    with pytest.raises(InputError, match="train: needs labels of at least 2 classes: a folder"):
        eval_quick.main(eval_quick.parse_args(command))
