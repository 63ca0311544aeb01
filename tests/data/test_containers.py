"""Which containers a path means: folders, patterns, splits, kinds."""

import os
import re
import shutil
from pathlib import Path

import pytest
from conftest import write_images
from packed_files import pairs_of, write_table, write_tar, write_zip

from data.images import find_images
from data.labelled import find_train_and_val
from data.listing import packed_again, to_listing
from data.packed.containers import find_containers, natural, split_of
from system.errors import InputError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names_of(path: Path) -> list[str]:
    found = find_containers(path)
    assert found is not None
    return found.names


def test_containers_come_in_natural_order(tmp_path: Path) -> None:
    touch(tmp_path, "10.tar", "9.tar", "a/1.tar", "010.tar", ".hidden.tar", "x.txt")
    assert names_of(tmp_path) == ["9.tar", "010.tar", "10.tar", "a/1.tar"]
    assert sorted(["b2", "b10", "b", "a11"], key=natural) == ["a11", "b", "b2", "b10"]


def test_links_to_a_folder_above_end(tmp_path: Path) -> None:
    touch(tmp_path, "d/1.tar", "d/pipe/2.tar")
    for name in ("self", "again"):
        (tmp_path / "d" / name).symlink_to(".")
    os.mkfifo(tmp_path / "d" / "3.tar")
    assert names_of(tmp_path / "d") == ["1.tar", "pipe/2.tar"]


def test_absolute_and_relative_names_in_braces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(touch(tmp_path, "a/1.tar", "b/2.tar"))
    assert names_of(Path(f"{{{tmp_path}/a/1,b/2}}.tar")) == ["a/1.tar", "b/2.tar"]


def test_patterns(tmp_path: Path) -> None:
    touch(tmp_path, *(f"in-train-{n:04d}.tar" for n in range(12)), "other.tar", "x.txt")
    assert names_of(tmp_path / "in-train-{0003..0010}.tar") == [
        f"in-train-{n:04d}.tar" for n in range(3, 11)
    ]
    assert names_of(tmp_path / "in-train-{0010..0003}.tar")[0] == "in-train-0003.tar"
    assert len(names_of(tmp_path / "in-*-000?.tar")) == 10
    touch(tmp_path / "b", "1.tar", "2.tar")
    assert names_of(tmp_path / "{b,.}" / "{1,2,other}*.tar") == ["b/1.tar", "b/2.tar", "other.tar"]
    assert find_containers(tmp_path / "none.tar") is None
    assert find_containers(tmp_path / "x.txt") is None


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("in-{0..3}.tar", r"in-\{0\.\.3\}\.tar: there is no file .*/in-3\.tar$"),
        ("out-*.tar", r"out-\*\.tar: matches no file that ends in \.tar, \.parquet, \.zip$"),
        ("{0..99999999}.tar", r"its braces give more than 10,000,000 names$"),
        ("{0..9999}{0..9999}.tar", r"its braces give more than 10,000,000 names$"),
    ],
)
def test_patterns_without_files_are_one_line(tmp_path: Path, pattern: str, message: str) -> None:
    touch(tmp_path, "in-0.tar", "in-1.tar", "in-2.tar")
    with pytest.raises(InputError, match=message):
        find_containers(tmp_path / pattern)


def test_names_of_splits() -> None:
    splits = {
        "train-00000-of-00294.parquet": "train",
        "imagenet1k-validation-03.tar": "validation",
        "data/val/0000.parquet": "validation",
        "test/train-1.tar": "train",
        "pretrained-1.tar": None,
        "00000.tar": None,
    }
    assert {name: split_of(name) for name in splits} == splits


def test_splits_are_never_mixed_silently(tmp_path: Path) -> None:
    touch(tmp_path / "data", "train-0.parquet", "train-1.parquet", "validation-0.parquet")
    train = find_containers(tmp_path / "data")
    assert train is not None
    assert train.names == ["train-0.parquet", "train-1.parquet"]
    (note,) = train.notes
    assert note == (
        "holds train (2 files), validation (1 file); train is taken, "
        f"{tmp_path}/data:validation takes another split"
    )
    assert names_of(Path(f"{tmp_path}/data:val")) == ["validation-0.parquet"]
    assert names_of(Path(f"{tmp_path}/data/*.parquet:validation")) == ["validation-0.parquet"]
    with pytest.raises(InputError, match="no container of the split test: has only train and val"):
        find_containers(Path(f"{tmp_path}/data:test"))
    (tmp_path / "data" / "train-0.parquet").unlink()
    (tmp_path / "data" / "train-1.parquet").unlink()
    touch(tmp_path / "data", "test-0.parquet")
    with pytest.raises(InputError, match=r"several splits, .*; give .*data:test or .*:validation$"):
        find_containers(tmp_path / "data")
    touch(tmp_path / "data", "00001.parquet")
    with pytest.raises(InputError, match="some containers belong to a split by name"):
        find_containers(tmp_path / "data")


def test_unknown_splits_are_told_from_missing_folders(tmp_path: Path) -> None:
    write_images(tmp_path / "files", 2)
    touch(tmp_path, "two/train-0.tar", "two/val-0.tar", "none/0.tar")
    for given, why in {
        "two:nosuch": "no split is called 'nosuch'; there are train and validation",
        "none:nosuch": "no split is called 'nosuch', and the containers' names name none",
        "files:train": ":train would choose a split of tars, zips or Parquet files, and there are "
        "none",
        "missing:train": "no such folder or file",
    }.items():
        with pytest.raises(InputError) as error:
            find_images(tmp_path / given)
        assert str(error.value) == f"{tmp_path / given}: {why}"


def test_kinds_are_not_mixed(tmp_path: Path) -> None:
    touch(tmp_path, "00000.tar", "00001.tar", "00000.parquet", "00000_stats.json")
    found = find_containers(tmp_path)
    assert found is not None
    assert (found.kind, found.names) == ("tar", ["00000.tar", "00001.tar"])
    assert found.notes == [
        "1 Parquet file beside the tars is left out, as img2dataset's descriptions of the images"
    ]
    for name in ("x.zip", "images.parquet"):  # a Parquet file that no tar belongs to has images
        touch(tmp_path, name)
        with pytest.raises(InputError, match=r"holds containers of several kinds \(.*\); choose"):
            find_containers(tmp_path)
        (tmp_path / name).unlink()


def test_a_folder_with_image_files_stays_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As img2dataset's `files` output, with Parquet beside the folders."""
    write_images(tmp_path / "00000", 3)
    touch(tmp_path, "00000.parquet", "BMW.tar")
    (tmp_path / "BMW.tar").write_bytes(b"BM")  # as a bitmap begins
    assert list(find_images(tmp_path).names) == [f"00000/{n:03d}.png" for n in range(3)]
    assert capsys.readouterr().err == (
        f"note: {tmp_path}: left out 1 Parquet file and 1 tar file, because the folder has image "
        f"files; for the images in containers give a pattern such as '{tmp_path}/*.parquet'\n"
    )


def test_the_index_is_no_name_that_systems_leave(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path, 1)
    touch(tmp_path, ".deepcluster_index/x", "Thumbs.db")
    find_images(tmp_path)
    assert "passed over 1 name that is hidden or left by a system (Thumbs.db)" in (
        capsys.readouterr().err
    )


def test_evaluations_find_their_splits(tree: Path, tmp_path: Path) -> None:
    members = pairs_of(find_images(tree))
    for kind, write in (("tar", write_tar), ("parquet", write_table), ("zip", write_zip)):
        folder = tmp_path / kind
        folder.mkdir()
        write(folder / f"x-train-0.{kind}", members[::2])
        write(folder / f"x-validation-0.{kind}", members[1::2])
        train, val = find_train_and_val(folder)
        assert (len(train.images), len(val.images)) == (20, 20)
        assert train.classes == val.classes == ["a", "b", "c"]
        assert train.labels.tolist() == [0] * 5 + [1] * 10 + [2] * 5
    for split in ("train", "val"):
        (tmp_path / "one" / split).mkdir(parents=True)
        write_tar(tmp_path / "one" / split / "0.tar", [("one/1.png", b"1"), ("one/2.png", b"2")])
    with pytest.raises(InputError, match=r"/one/train/0\.tar: needs labels of at least 2 cl"):
        find_train_and_val(tmp_path / "one")
    (tmp_path / "in").mkdir()
    shutil.copytree(tmp_path / "tar", tmp_path / "in" / "train")
    (tmp_path / "in" / "train" / "x-validation-0.tar").rename(tmp_path / "in" / "val.tar")
    train, val = find_train_and_val(tmp_path / "in")
    assert (len(train.images), len(val.images)) == (20, 20)


def test_a_runs_containers_are_told_from_others_by_example(tree: Path, tmp_path: Path) -> None:
    members = pairs_of(find_images(tree))
    listing = to_listing(find_images(write_tar(tmp_path / "x.tar", members)))
    for others, why in {
        "fewer.tar": (members[1:], "39 images there, 40 in the run"),
        "y.tar": (members, "y.tar, images: 40 there, x.tar, images: 40 in the run"),
    }.items():
        with pytest.raises(InputError, match=re.escape(f"hold other images now ({why[1]})")):
            packed_again(listing, [write_tar(tmp_path / others, why[0])])
    renamed = [(f"other/{number}.png", content) for number, (_, content) in enumerate(members)]
    write_tar(tmp_path / "x.tar", renamed)
    with pytest.raises(InputError, match=r"\(images have other names there, such as x.tar/other/0"):
        packed_again(listing, [tmp_path / "x.tar"])
