"""Labels from a table."""

from pathlib import Path

import numpy as np
import pytest

import eval_knn
import main
from data.images import find_all_images, find_images
from data.labelled import find_train_and_val
from system.errors import InputError
from training.finished_run import label_names, read_run
from visu import feature_map

NAMES = ["a.png", "b b.png", "c,c.png", "sub/d.png"]


def touch(folder: Path, names: list[str]) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not opened")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    touch(tmp_path / "photos", NAMES)
    return tmp_path / "photos"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "tables" / "labels.csv"
    path.parent.mkdir()
    path.write_text('a.png,cat\nb b.png, dog\n"c,c.png",cat\nsub/d.png,""\n')
    return path


def test_a_table_replaces_the_folders(folder: Path, table: Path) -> None:
    images = find_images(folder, labels=table)
    assert images.classes == ["cat", "dog"]
    assert images.labels is not None
    named = dict(zip(images.names, images.labels.tolist(), strict=True))
    assert named == dict(zip(NAMES, [0, 1, 0, -1], strict=True))
    few = images.take([images.names.index("b b.png"), images.names.index("a.png")])
    assert few.labels is not None
    assert few.labels.tolist() == [1, 0]
    assert find_images(folder).classes == ["sub"], "without a table"


@pytest.mark.parametrize(
    "lines",
    [
        "id,class,filename\n1,x,photos/a.png\n2,y,photos/b b.png\n3,x,./photos/c,c.png\n",
        "path,label\n{root}/a.png,x\n{root}/b b.png,y\n{root}/c,c.png,x\n",
    ],
)
def test_paths_may_be_absolute_or_relative_to_the_current_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = lines.format(root=folder).replace("c,c.png", "sub/d.png")
    (tmp_path / "t.csv").write_text("\ufeff" + lines, encoding="utf-8")
    (folder / "c,c.png").unlink()
    images = find_all_images(["photos"], Path("t.csv"))
    assert dict(zip(map(str, images.names), images.folders, strict=True)) == {
        "photos/a.png": "x", "photos/b b.png": "y", "photos/sub/d.png": "x",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("a.png,cat", "gone.png,cat"), r":1: 'gone\.png' is none of the 4 images; give absolute"),
        (("a.png,cat\n", ""), r"csv: lacks 1 of the 4 images, such as .*/photos/a\.png; give each"),
        (("a.png,cat", "a.png,cat\na.png,dog"), r":2: has 'a\.png' again; give it once"),
        (("a.png,cat", "a.png"), r":1: 'a\.png' is not a path and a label; give both on each"),
        (("a.png,cat", "a.png,cat,3"), r":1: 'a\.png,cat,3' is not a path and a label"),
    ],
)
def test_bad_tables_are_named(
    folder: Path, table: Path, change: tuple[str, str], message: str
) -> None:
    table.write_text(table.read_text().replace(*change))
    with pytest.raises(InputError, match=message):
        find_images(folder, labels=table)


def test_a_table_that_cannot_be_read_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("\n")
    (tmp_path / "binary.csv").write_bytes(b"a\0b")
    for name, reason in {
        "none.csv": "cannot read this list file: No such file or directory",
        "empty.csv": "is empty",
        "binary.csv": "not a table of paths and labels",
    }.items():
        with pytest.raises(InputError, match=f"^--labels {tmp_path / name}: {reason}"):
            find_images(folder, labels=tmp_path / name)


def test_a_table_without_any_label_is_named(folder: Path, table: Path) -> None:
    table.write_text("".join(f'"{name}",\n' for name in NAMES))
    with pytest.raises(InputError, match=r"csv: has no label, only empty ones; give some"):
        find_images(folder, labels=table)


def test_labels_of_a_table_are_no_paths(folder: Path, table: Path) -> None:
    rows = zip(NAMES, ["cat", "cat/tabby", "../dog", "cat"], strict=True)
    table.write_text("".join(f'"{name}",{label}\n' for name, label in rows))
    assert label_names(find_images(folder, labels=table)) == ["../dog", "cat", "cat/tabby"]


def test_one_table_has_the_classes_of_both_splits(tmp_path: Path) -> None:
    names = [f"{split}/{n}.png" for split in ("train", "val") for n in range(4)]
    touch(tmp_path / "data", names)
    table = tmp_path / "t.csv"
    table.write_text("".join(f"{name},{'xy'[n % 2]}\n" for n, name in enumerate(names)))
    train, val = find_train_and_val(tmp_path / "data", labels=table)
    assert train.classes == val.classes == ["x", "y"]
    assert train.labels.tolist() == val.labels.tolist() == [0, 1, 0, 1]
    table.write_text(table.read_text().replace(",y", ",x"))
    with pytest.raises(InputError, match=r"needs images of at least 2 classes in .*train"):
        find_train_and_val(tmp_path / "data", labels=table)


def test_a_runs_pages_use_its_table(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table may have more images than the run, as with --size_dataset."""
    names = read_run(finished).images.names
    table = tmp_path / "labels.csv"
    table.write_text("".join(f"{name},{'xyz'[n % 3]}\n" for n, name in enumerate(names)) + "o,x\n")
    config = finished / "config.json"
    config.write_text(config.read_text().replace('"resume"', f'"labels": "{table}", "resume"'))
    labels = read_run(finished).images.labels
    np.testing.assert_array_equal(labels, np.arange(len(names)) % 3)
    table.unlink()
    assert read_run(finished).images.classes == ["a", "b", "c"]
    assert "labels.csv are gone; folders are taken for labels" in capsys.readouterr().err


def test_the_flag_reaches_the_images(folder: Path, table: Path, tmp_path: Path) -> None:
    assert main.parse_args([str(folder), "--labels", str(table)]).labels == table
    args = eval_knn.parse_args(["--data", "d", "--model", "m", "--labels", str(table)])
    assert args.labels == table
    with pytest.raises(InputError, match=r"--labels .*: goes with DIR"):
        feature_map.main(feature_map.parse_args([str(tmp_path), "--labels", str(table)]))
