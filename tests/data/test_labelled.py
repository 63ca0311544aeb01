"""Labelled data sets, and Tiny-ImageNet's own layout."""

import zipfile
from functools import partial
from pathlib import Path

import pytest
from conftest import ErrorLine, write_images

from data.labelled import find_train_and_val
from system import cli
from system.errors import InputError
from system.files import write_text
from tools import make_tiny_imagenet


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Tiny-ImageNet with fewer classes and images."""
    root = tmp_path / "source" / "tiny-imagenet-200"
    for name in ("n1", "n2"):
        for path in write_images(root / "train" / name / "images", 3):
            path.rename(path.with_name(f"{name}_{path.stem}.JPEG"))
        (root / "train" / name / f"{name}_boxes.txt").write_text(f"{name}_000.JPEG\t0\t0\t1\t1\n")
    for folder, count in (("val", 4), ("test", 2)):
        for path in write_images(root / folder / "images", count):
            path.rename(path.with_name(f"{folder}_{path.stem}.JPEG"))
    lines = [f"val_{i:03d}.JPEG\tn{2 - i % 2}\t0\t0\t62\t62\n" for i in range(4)]
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    path = tmp_path / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(path, "w") as file:
        for each in sorted(root.rglob("*")):
            file.write(each, each.relative_to(root.parent))
    return path


def test_tiny_imagenets_val_has_its_classes_in_a_file(archive: Path, tmp_path: Path) -> None:
    train, val = find_train_and_val(tmp_path / "source" / "tiny-imagenet-200")
    assert train.classes == val.classes == ["n1", "n2"]
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert [Path(path).name for path in val.images.names] == [f"val_00{i}.JPEG" for i in range(4)]
    assert val.labels.tolist() == [1, 0, 1, 0]


def test_the_archive_is_laid_out_as_a_tree(archive: Path, tmp_path: Path) -> None:
    command = [str(archive), str(tmp_path / "tiny")]
    assert cli.run(make_tiny_imagenet.main, make_tiny_imagenet.parse_args, command) == 0
    tree = sorted(str(p.relative_to(tmp_path / "tiny")) for p in (tmp_path / "tiny").rglob("*.*"))
    assert tree == [
        *(f"train/{n}/{n}_00{i}.JPEG" for n in ("n1", "n2") for i in range(3)),
        "val/n1/val_001.JPEG", "val/n1/val_003.JPEG", "val/n2/val_000.JPEG", "val/n2/val_002.JPEG",
    ]  # fmt: skip
    from_tree = find_train_and_val(tmp_path / "tiny")[1]
    unpacked = find_train_and_val(tmp_path / "source" / "tiny-imagenet-200")[1]
    by_name = [
        {Path(path).name: label for path, label in zip(each.images.names, each.labels, strict=True)}
        for each in (from_tree, unpacked)
    ]
    assert by_name[0] == by_name[1]


def test_wrong_archives_are_named(archive: Path, tmp_path: Path, error_line: ErrorLine) -> None:
    error = partial(error_line, make_tiny_imagenet)
    assert "cannot be unpacked" in error(tmp_path / "none.zip", tmp_path / "new")
    (tmp_path / "text.zip").write_text("no archive")
    assert "cannot be unpacked" in error(tmp_path / "text.zip", tmp_path / "new")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("a/b.txt", "text")
    assert "not Tiny-ImageNet's archive" in error(tmp_path / "other.zip", tmp_path / "new")
    for member in ("a.JPEG", "x/train/a.JPEG", "x/train/../images/a.JPEG"):
        with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
            file.writestr("x/val/val_annotations.txt", "val_0.JPEG n1\n")
            file.writestr(member, "image")
        assert "no train/<class>/images" in error(tmp_path / "other.zip", tmp_path / "new")
    for line in ("val_0.JPEG ../../../evil", "val_1.JPEG n1"):
        with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
            file.writestr("x/val/val_annotations.txt", line)
            file.writestr("x/val/images/val_0.JPEG", "image")
        assert "has no class for val_0.JPEG" in error(tmp_path / "other.zip", tmp_path / "new")
    damaged = bytearray(archive.read_bytes())
    damaged[len(damaged) // 3] ^= 0xFF
    (tmp_path / "damaged.zip").write_bytes(damaged)
    assert "cannot be unpacked" in error(tmp_path / "damaged.zip", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert "is there already" in error(archive, tmp_path / "source")


def test_classes_are_numbered_as_in_train(tmp_path: Path) -> None:
    for name in ("x", "a", "m"):
        write_images(tmp_path / "train" / name, 2)
    write_images(tmp_path / "val" / "m", 3)
    train, val = find_train_and_val(tmp_path)
    assert train.classes == ["a", "m", "x"]
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert val.labels.tolist() == [1, 1, 1]


def test_lists_of_images_and_classes(tmp_path: Path) -> None:
    write_images(tmp_path / "all images", 4)
    (tmp_path / "train.txt").write_text("all images/002.png 1\nall images/000.png 0\n")
    (tmp_path / "val.txt").write_text("all images/003.png 1\n")
    train, val = find_train_and_val(tmp_path)
    assert train.images.names == ["all images/002.png", "all images/000.png"]
    assert (train.labels.tolist(), val.labels.tolist()) == ([1, 0], [1])
    odd = ["no \udcff UTF-8.png", "paragraph\u2029.png"]
    write_text(tmp_path / "val.txt", "".join(f"all images/{name} 1\n" for name in odd))
    (tmp_path / "all images" / "003.png").rename(tmp_path / "all images" / odd[0])
    assert find_train_and_val(tmp_path)[1].images.names == [f"all images/{name}" for name in odd]
    for text, message in (
        ("all images/000.png\n", ":1: 'all images/000.png' is no image and its class"),
        ("none.png 1\n", ": none of its 1 lines names an image file: the first, 'none.png 1', is"),
        ("", ": none of its 0 lines names an image"),
    ):
        (tmp_path / "val.txt").write_text(text)
        with pytest.raises(InputError, match=f"val.txt{message}"):
            find_train_and_val(tmp_path)


def test_wrong_layouts_are_described(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"needs train/ with a folder per class, or train.txt"):
        find_train_and_val(tmp_path)
    write_images(tmp_path / "train" / "a", 2)
    write_images(tmp_path / "val" / "b", 2)
    with pytest.raises(InputError, match=r"train: needs labels of at least 2 classes: a fold"):
        find_train_and_val(tmp_path)
    write_images(tmp_path / "train" / "c", 2)
    with pytest.raises(InputError, match=r"val: has a class 'b', which .*train lacks \(2 classes"):
        find_train_and_val(tmp_path)
    write_images(tmp_path / "val", 2)
    for path in (tmp_path / "val" / "b").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"val: has neither a folder for each class nor"):
        find_train_and_val(tmp_path)
    annotations = tmp_path / "val" / "val_annotations.txt"
    annotations.write_text("000.png a\n")
    with pytest.raises(InputError, match=r"has no class for the image '001.png'"):
        find_train_and_val(tmp_path)
    annotations.write_text("000.png\n")
    with pytest.raises(InputError, match="not lines of an image and its class"):
        find_train_and_val(tmp_path)


def test_a_folder_without_classes_does_not_end_the_search(tmp_path: Path) -> None:
    """Places205 has its images in one folder, and the classes in lists beside it."""
    for split in ("train", "val"):
        write_images(tmp_path / split, 2)
        (tmp_path / f"{split}.txt").write_text(f"{split}/000.png 0\n{split}/001.png 1\n")
    for found in find_train_and_val(tmp_path):
        assert (found.labels.tolist(), found.classes) == ([0, 1], ["0", "1"])


def test_annotations_that_were_left_behind_do_not_end_the_search(tmp_path: Path) -> None:
    """Tiny-ImageNet's val, moved into class folders and renamed."""
    for split in ("train", "val"):
        for name in ("a", "b"):
            write_images(tmp_path / split / name, 2)
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.JPEG a\n")
    assert find_train_and_val(tmp_path)[1].labels.tolist() == [0, 0, 1, 1]
