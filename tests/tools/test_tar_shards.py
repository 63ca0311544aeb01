"""Copies of any source in tar shards: same order, labels and pixels, and continued when cut off."""

import shutil
from pathlib import Path

import pytest
import torch
from conftest import ErrorLine, write_images
from packed_files import KINDS, write_as

from data.images import ImageList, find_images
from system.errors import InputError
from tools import prepare_data
from tools.tar_shards import TarShards, can_keep_names


def run(source: Path, target: Path, *flags: str) -> None:
    words = [str(source), str(target), "--size", "32", "--workers", "0", *flags]
    prepare_data.main(prepare_data.parse_args(words))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.tar"))}


def assert_same_images(one: ImageList, other: ImageList) -> None:
    assert len(one) == len(other)
    assert list(one.folders) == list(other.folders)
    for index in range(0, len(one), 7):
        assert torch.equal(one.read_pixels(index), other.read_pixels(index))


def test_shards_equal_a_copy_of_files(tree: Path, tmp_path: Path) -> None:
    run(tree, tmp_path / "files")
    run(tree, tmp_path / "shards", "--shards", "3")
    run(tree, tmp_path / "x.tar")
    files, shards, one = (find_images(tmp_path / name) for name in ("files", "shards", "x.tar"))
    assert_same_images(files, shards)
    assert_same_images(files, one)
    assert [name.partition("/")[2] for name in shards.names] == list(files.names)
    assert sorted(contents(tmp_path / "shards")) == [f"{n:05d}.tar" for n in range(3)]


@pytest.mark.parametrize("kind", KINDS)
def test_any_source_can_be_copied(tree: Path, tmp_path: Path, kind: str) -> None:
    source = write_as(kind, tree, tmp_path / "source")
    run(source, tmp_path / "copy", "--shards", "2")
    run(tree, tmp_path / "files")
    copied = find_images(tmp_path / "copy")
    assert_same_images(find_images(tmp_path / "files"), copied)
    assert copied.names[13] == "00000.tar/13_" + ("b_003" if "Parquet" in kind else "003") + ".png"


def test_names_that_a_tar_cannot_keep(tmp_path: Path) -> None:
    write_images(tmp_path / "images" / "a", 2)
    assert can_keep_names(find_images(tmp_path / "images"))
    shutil.copy(tmp_path / "images" / "a" / "000.png", tmp_path / "images" / "a" / "000.seg.png")
    shutil.copy(tmp_path / "images" / "a" / "000.png", tmp_path / "images" / "photo_1")
    assert not can_keep_names(find_images(tmp_path / "images"))
    run(tmp_path / "images", tmp_path / "x.tar")
    copied = find_images(tmp_path / "x.tar")
    assert list(copied.names) == [
        f"x.tar/{name}" for name in ("0_photo_1.png", "1_000.png", "2_000_seg.png", "3_001.png")
    ]
    assert list(copied.folders) == ["", "a", "a", "a"]


@pytest.mark.parametrize("kind", ["folder", "Parquet 4.6"])
@pytest.mark.parametrize("fails_at", [3, 20, 33])
def test_an_interrupted_copy_continues_with_the_same_bytes(
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    fails_at: int,
) -> None:
    source = write_as(kind, tree, tmp_path / "source")
    run(source, tmp_path / "whole", "--shards", "2")
    add = TarShards.add

    def failing(self: TarShards, image: int, content: bytes | None) -> None:
        if image == fails_at:
            raise KeyboardInterrupt
        add(self, image, content)

    with monkeypatch.context() as patch:
        patch.setattr(TarShards, "add", failing)
        with pytest.raises(KeyboardInterrupt):
            run(source, tmp_path / "cut", "--shards", "2")
    number = fails_at // 20
    assert sorted(contents(tmp_path / "cut")) == [f"{n:05d}.tar" for n in range(number)]
    part = tmp_path / "cut" / f".{number:05d}.tar.part"
    if part.exists():
        with part.open("r+b") as file:
            file.truncate(part.stat().st_size - 700)  # the last image is not whole
    capsys.readouterr()
    run(source, tmp_path / "cut", "--shards", "2")
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    there = fails_at - (fails_at % 20 > 0)
    assert f"{there} there already" in capsys.readouterr().out
    run(source, tmp_path / "cut", "--shards", "2")
    assert "40 there already" in capsys.readouterr().out


def test_unreadable_images_are_left_out(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "c" / "009.png").write_bytes(b"nothing")
    said = (
        "more than 1% of the images are unreadable, .* copy to another TARGET; the tars lack them"
    )
    with pytest.raises(InputError, match=said):
        run(tree, tmp_path / "x.tar")
    assert f"left out, unreadable: {tree}/c/009.png" in capsys.readouterr().err
    assert len(find_images(tmp_path / "x.tar")) == 39


def test_bad_targets_are_one_line(tree: Path, tmp_path: Path, error_line: ErrorLine) -> None:
    (tmp_path / "mine.tar").write_bytes(b"precious")
    packed = write_as("pax", tree, tmp_path / "packed")
    for words, message in (
        ([tree, tmp_path / "mine.tar"], "mine.tar: is neither empty nor a copy"),
        ([tree, tmp_path / "x.tar", "--shards", 2], "--shards 2: "),
        ([tree, tree / "x.tar"], "is in the source"),
        ([tree, tmp_path / "many", "--shards", 41], "--shards 41: more than the 40 images"),
        ([packed, tmp_path / "files"], "only a folder of image files can be copied to a folder"),
        ([packed, packed], "is neither empty nor a copy"),
    ):
        assert message in error_line(prepare_data, *words)
    assert (tmp_path / "mine.tar").read_bytes() == b"precious"
    run(tree, tmp_path / "x.tar")
    error = error_line(prepare_data, tree, tmp_path / "x.tar", "--size", 64)
    assert "was made with other settings (size 32 → 64); give another TARGET" in error
