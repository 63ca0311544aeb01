"""Whole runs over uncleaned data: every script on every kind of file and every kind of name."""

import csv
import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import read_file, write_images
from hostile import ODD, ODD_LINES
from image_zoo import kinds
from lock_holder import held_elsewhere

import assign
import extract_features
import main
from data.decode import read_pixels
from data.images import find_images
from features import row_file
from system import cli
from system.errors import InputError
from system.names import from_lines, from_reasons, read_text, to_lines
from tools import export, export_clusters, inspect_checkpoint, prepare_data
from training import unreadable
from training.finished_run import read_run
from training.logs import read_metrics
from training.summary import epoch_metrics
from visu import clusters as clusters_script
from visu import report

ROOT = Path(__file__).parents[1]
Train = Callable[..., Path]
ZOO = kinds()
REASONS = {name: kind.reason for name, kind in ZOO.items() if kind.reason}
REASONS |= {"gone.png": "No such file or directory", "pipe.png": "is a pipe, a socket or a device"}
REASONS = {f"zoo/{name}": reason for name, reason in REASONS.items()}


def names(odd: list[str]) -> list[str]:
    return [f"names/{name.replace('/', '_')[:60]}.png" for name in odd]


LINES = names(ODD_LINES)
REASONS |= {
    line: "its name has a line break"
    for line, name in zip(LINES, names(ODD), strict=True)
    if line != name
}


@pytest.fixture
def uncleaned(tmp_path: Path) -> Path:
    """Every kind of image and of name, a pipe, a broken link, and links in circles."""
    root = tmp_path / "uncleaned"
    (root / "zoo").mkdir(parents=True)
    for name, kind in ZOO.items():
        (root / "zoo" / name).write_bytes(kind.content)
    (root / "zoo" / "gone.png").symlink_to("nowhere")
    os.mkfifo(root / "zoo" / "pipe.png")
    (root / "names").mkdir()
    images = write_images(tmp_path / "plain", len(ODD))
    for image, name in zip(images, names(ODD), strict=True):
        image.rename(root / name)
    (root / "zoo" / "round").symlink_to("..")
    (root / "names" / "self").symlink_to(".")
    return root


def check_left_out(bad: dict[str, str], prefix: str = "") -> None:
    assert set(bad) == {f"{prefix}{name}" for name in REASONS}
    for name, reason in REASONS.items():
        assert bad[f"{prefix}{name}"].startswith(reason)


@pytest.mark.parametrize("decode", ["auto", "pil"])
def test_a_run_over_uncleaned_data(
    uncleaned: Path, train: Train, monkeypatch: pytest.MonkeyPatch, decode: str
) -> None:
    monkeypatch.setattr(unreadable, "MOST_UNREADABLE", 1.0)
    exp = train(uncleaned, "--decode", decode, "--workers", "1", report=True)
    listed = from_lines(read_text(exp / "images.txt"))
    expected = {f"zoo/{name}" for name in (*ZOO, "gone.png", "pipe.png")} | set(LINES)
    assert sorted(listed) == sorted(expected), "each once, despite the links"
    check_left_out(from_reasons(read_text(exp / "bad_images.txt")))
    log = (exp / "log.txt").read_text()
    assert log.count("left out, unreadable") == len(REASONS)
    assignment = np.load(exp / "assignments" / "epoch_0001.npy")
    left_out = {listed[index] for index in np.flatnonzero(assignment < 0)}
    assert left_out == set(REASONS)
    assert (exp / "report.html").exists()
    assert read_run(exp).images.names == listed


def test_every_script_handles_uncleaned_data(
    uncleaned: Path,
    train: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(unreadable, "MOST_UNREADABLE", 1.0)
    monkeypatch.setattr(prepare_data, "MOST_UNREADABLE", 1.0)
    exp = train(uncleaned)
    model, prefix = str(exp / "checkpoint.pth.tar"), f"{uncleaned}/"
    everywhere = ["--device", "cpu", "--precision", "fp32", "--workers", "0"]
    good = sorted(set(from_lines(read_text(exp / "images.txt"))) - set(REASONS))

    out = tmp_path / "features"
    run(extract_features, model, uncleaned, "--out", out, *everywhere)
    assert sorted(from_lines(read_text(out / "images.txt"))) == [prefix + name for name in good]
    check_left_out(from_reasons(read_text(out / "bad_images.txt")), prefix)
    assert len(np.load(out / "features.npy")) == len(good)
    assert not [path.name for path in out.iterdir() if path.name.endswith(".lock")]

    for script, table, of in (
        (assign, tmp_path / "assigned.csv", [model, uncleaned, *everywhere]),
        (export_clusters, tmp_path / "exported.csv", [exp]),
    ):
        folders, sheet = tmp_path / script.__name__, tmp_path / "sheet.png"
        flags = ["--contact-sheet", sheet] if script is assign else []
        run(script, *of, "--out", table, "--folders", folders, *flags)
        with table.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            assert sorted(row["path"] for row in csv.DictReader(file)) == [prefix + n for n in good]
        assert len(list(folders.glob("cluster_*/*"))) == len(good)

    capsys.readouterr()
    run(prepare_data, uncleaned, tmp_path / "copy", "--size", 16, "--workers", 0)
    said = capsys.readouterr().err
    assert said.count("left out, unreadable") == said.count("\n") == len(REASONS)
    assert sorted(find_images(tmp_path / "copy").names) == good
    for name in good:
        short = min(read_file(read_pixels, tmp_path / "copy" / name).shape[1:])
        assert short == min(16, *read_file(read_pixels, prefix + name).shape[1:])

    run(clusters_script, exp, *everywhere)
    run(report, exp, "--also", "names/\\two\\nlines.png.png")
    assert "nlines.png.png" in (exp / "report.html").read_text(errors="surrogateescape")


def run(script: object, *command: object) -> None:
    parts: Any = script
    parts.main(parts.parse_args([str(part) for part in command]))


def test_a_lower_limit_of_pixels_leaves_images_out_by_name(
    tree: Path, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unreadable, "MOST_UNREADABLE", 1.0)
    paths = find_images(tree).names
    large = [path for path in paths if int(Path(path).stem) % 7 >= 5]  # 40 × 45 and 40 × 46
    exp = train(tree, "--max-pixels", str(40 * 44))
    bad = from_reasons(read_text(exp / "bad_images.txt"))
    assert sorted(bad) == sorted(large)
    assert set(bad.values()) == {
        "1,800 pixels, more than --max-pixels 1760",
        "1,840 pixels, more than --max-pixels 1760",
    }
    assert json.loads((exp / "config.json").read_text())["settings"]["max_pixels"] == 1760
    resumed = ["--resume", str(exp / "checkpoint.pth.tar"), "--epochs", "2"]
    train(tree, *resumed, "--max-pixels", str(10**9))
    assert not (exp / "bad_images.txt").exists(), "read with the higher limit"
    assert (np.load(exp / "assignments" / "epoch_0002.npy") >= 0).all()
    assert "max_pixels 1760 → 1000000000" in (exp / "log.txt").read_text()


def test_images_that_vanish_after_listing_are_left_out(
    tree: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unreadable, "MOST_UNREADABLE", 1.0)

    def find_and_remove(*args: Any) -> Any:
        images = find_images(*args)
        (tree / "b" / "004.png").unlink()
        shutil.rmtree(tree / "c")
        return images

    monkeypatch.setattr(main, "find_images", find_and_remove)
    exp = train(tree)
    bad = from_reasons(read_text(exp / "bad_images.txt"))
    assert sorted(bad) == ["b/004.png", *(f"c/{n:03d}.png" for n in range(10))]
    assert set(bad.values()) == {"No such file or directory"}


def test_an_image_unreadable_for_one_epoch_comes_back(
    tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "images", 120)
    path, away = tmp_path / "images" / "050.png", tmp_path / "away"

    def find_and_take_away(*args: Any) -> Any:
        images = find_images(*args)
        path.rename(away)
        return images

    def bring_back(*args: Any) -> Any:
        if away.exists():
            away.rename(path)
        return epoch_metrics(*args)

    monkeypatch.setattr(main, "find_images", find_and_take_away)
    monkeypatch.setattr("training.summary.epoch_metrics", bring_back)
    exp = train(tmp_path / "images", "--epochs", "2")
    assert [line["unreadable"] for line in read_metrics(exp)] == [1, 0]
    assert np.load(exp / "assignments" / "epoch_0000.npy")[50] == -1
    assert np.load(exp / "assignments" / "epoch_0001.npy")[50] >= 0
    assert not (exp / "bad_images.txt").exists()
    assert (exp / "log.txt").read_text().count("050.png: No such file") == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("added", "40 there, 41 now: 1 added, such as b/new.png"),
        ("removed", "40 there, 39 now: 1 removed, such as b/004.png"),
        ("renamed", "40 there, 40 now: 1 added, such as b/new.png, 1 removed, such as b/004.png"),
    ],
)
def test_a_changed_data_set_is_noticed_at_resume(
    tree: Path, train: Train, tmp_path: Path, change: str, said: str
) -> None:
    exp = train(tree)
    before = (exp / "checkpoint.pth.tar").read_bytes()
    old, new = tree / "b" / "004.png", tree / "b" / "new.png"
    if change == "removed":
        old.unlink()
    elif change == "renamed":
        old.rename(new)
    else:
        shutil.copy(old, new)
    onward = ["--resume", str(exp / "checkpoint.pth.tar"), "--epochs", "2"]
    with pytest.raises(InputError, match=re.escape(f"images.txt ({said}); give another --exp")):
        train(tree, *onward)
    assert (exp / "checkpoint.pth.tar").read_bytes() == before
    other = train(tree, *onward, exp="other")
    assert "other images, by name or order" in (other / "log.txt").read_text()
    listed = from_lines(read_text(other / "images.txt"))
    assert listed == find_images(tree).names


def test_a_reordered_list_is_noticed_at_resume(tree: Path, train: Train, tmp_path: Path) -> None:
    paths = find_images(tree).names
    source = tmp_path / "list.txt"
    source.write_text(to_lines(f"images/{path}" for path in paths))
    exp = train(source)
    source.write_text(to_lines(f"images/{path}" for path in reversed(paths)))
    with pytest.raises(InputError, match="40 now: the same names in another order"):
        train(source, "--resume", str(exp / "checkpoint.pth.tar"), "--epochs", "2")


def test_a_second_extraction_into_a_folder_is_an_error(
    tree: Path, train: Train, tmp_path: Path
) -> None:
    exp = train(tree)
    out = tmp_path / "features"
    command = [exp / "checkpoint.pth.tar", tree, "--out", out, "--device", "cpu", "--workers", 0]
    out.mkdir()
    with held_elsewhere(out / extract_features.LOCK), pytest.raises(InputError) as error:
        run(extract_features, *command)
    said = f"--out {out}: another process writes there; wait for it, or give another"
    assert str(error.value) == said
    run(extract_features, *command)
    assert len(np.load(out / "features.npy")) == 40


def test_a_run_in_a_folder_whose_name_is_not_utf_8(
    tree: Path, train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """torch's mmap and safetensors can't open such a name themselves."""
    monkeypatch.setattr(
        logging.getLogger("deepcluster"), "propagate", False
    )  # nor can xdist print it
    cli.print_any_text()
    exp = train(tree, exp=os.fsdecode(b"bad\xff"))
    checkpoint = exp / "checkpoint.pth.tar"
    train(tree, "--epochs", "2", "--resume", "auto", exp=exp.name, report=True)
    assert [line["epoch"] for line in read_metrics(exp)] == [0, 1]
    assert "</html>" in (exp / "report.html").read_text()
    table, weights, rows = (exp / name for name in ("a.csv", "net.safetensors", "rows"))
    common = [str(checkpoint), str(tree), "--workers", "0", "--out"]
    assign.main(assign.parse_args([*common, str(table)]))
    assert len(table.read_text().splitlines()) == 1 + 40
    extract_features.main(
        extract_features.parse_args([*common, str(rows), "--format", "safetensors"])
    )
    count, features = row_file.read_rows(rows / "features.safetensors")
    assert features.shape == (count, 32)
    export.main(export.parse_args([str(checkpoint), str(weights)]))
    for path in (checkpoint, weights):
        assert inspect_checkpoint.card_of(path)["error"] is None
    assert "Done." in capsys.readouterr().out
