"""The index: made once, kept beside the images or in a cache, and made again if it doesn't fit."""

import errno
import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packed_files import write_table, write_tar

from data.images import ImageList, find_all_images, find_images
from data.packed import build
from data.packed.entries import Entries
from data.packed.packed import Packed
from system.errors import Fault, InputError


def shards(folder: Path, count: int = 4) -> Path:
    folder.mkdir()
    for shard in range(count):
        names = (f"{shard}/{n}.png" for n in range(5))
        write_tar(folder / f"{shard}.tar", [(name, name.encode()) for name in names])
    return folder


def folder_of(images: ImageList) -> Path:
    assert isinstance(images.source, Packed)
    return images.source.index.folder


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The containers that are indexed in this process."""
    found: list[str] = []

    def noted(path: Path) -> Entries:
        found.append(path.name)
        return build.read_tar(path)

    monkeypatch.setitem(build.READERS, "tar", noted)
    monkeypatch.setattr(build, "allowed_cores", lambda: 1)
    return found


def test_an_index_is_made_once_and_again_when_a_container_changed(
    tmp_path: Path, made: list[str]
) -> None:
    root = shards(tmp_path / "x")
    first = find_images(root)
    assert made == [f"{n}.tar" for n in range(4)]
    again = find_images(root)
    assert len(made) == 4
    assert again.digest == first.digest
    assert list(again.names) == list(first.names)
    write_tar(root / "2.tar", [("new.png", b"new")])
    changed = find_images(root)
    assert len(made) == 8
    assert list(changed.names)[10] == "2.tar/new.png"
    assert changed.digest != first.digest
    (root / "0.tar").unlink()
    assert len(find_images(root)) == 11
    moved = Path(shutil.move(root, tmp_path / "y"))
    assert len(find_images(moved)) == 11
    assert len(made) == 11, "the index moves with the images"


def test_an_index_that_is_out_of_use_is_removed(tmp_path: Path) -> None:
    root = shards(tmp_path / "x")
    first = folder_of(find_images(root))
    write_tar(root / "2.tar", [("new.png", b"new")])
    second = folder_of(find_images(root))
    assert first.exists(), "another machine may use it"
    for folder in (first, second):
        os.utime(folder, (0, 0))
    find_images(root)
    write_tar(root / "1.tar", [("1.png", b"new")])
    third = folder_of(find_images(root))
    assert set((root / build.INDEX_FOLDER).iterdir()) == {second, third}


def test_processes_whose_containers_differ_only_in_content_differ(tmp_path: Path) -> None:
    """The names are the same; `check_alike` compares checksums."""
    found = []
    for folder, content in (("a", b"1"), ("b", b"2" * 1000), ("c", b"3")):
        (tmp_path / folder).mkdir()
        write_tar(tmp_path / folder / "x.tar", [("0/x.png", content), ("1/y.png", b"y")])
        found.append(find_images(tmp_path / folder))
    assert len({images.digest for images in found}) == 1
    sums = [images.source.checksum for images in found]
    assert sums[0] == sums[2] != sums[1], "the places count"
    joined = [find_all_images([tmp_path / folder]).source for folder in "ab"]
    assert joined[0].checksum != joined[1].checksum


def test_a_damaged_index_is_made_again(tmp_path: Path, made: list[str]) -> None:
    root = shards(tmp_path / "x")
    names = list(find_images(root).names)
    for damaged in ("offset.npy", "index.json", "names.npy", "ends.npy"):
        path = folder_of(find_images(root)) / damaged
        content = path.read_bytes()
        for wrong in (content[: len(content) // 2], b"", content[:-3], b"x" + content[1:]):
            path.write_bytes(wrong)
            made.clear()
            assert list(find_images(root).names) == names
            assert len(made) == 4
        path.unlink()
        assert list(find_images(root).names) == names


def test_the_index_is_elsewhere_if_the_images_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: list[str]
) -> None:
    root = shards(tmp_path / "x")
    (root / build.INDEX_FOLDER).write_text("in the way")
    monkeypatch.setenv(build.CACHE, str(tmp_path / "cache"))
    assert folder_of(find_images(root)).is_relative_to(tmp_path / "cache")
    assert len(find_images(root)) == 20
    assert len(made) == 4
    monkeypatch.delenv(build.CACHE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert folder_of(find_images(root)).is_relative_to(tmp_path / "xdg" / "deepcluster")
    (tmp_path / "file").touch()
    monkeypatch.setenv(build.CACHE, str(tmp_path / "file"))
    with pytest.raises(InputError) as caught:
        find_images(root)
    assert str(caught.value) == (
        f"{root}/.deepcluster_index: cannot write the index of the images there, nor in "
        f"{tmp_path}/file/.deepcluster_index; set DEEPCLUSTER_CACHE to a folder that can be written"
    )


def test_folders_that_look_alike_have_their_own_index_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(build.CACHE, str(tmp_path / "cache"))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shard = write_tar(tmp_path / folder / "x.tar", [(f"{folder}.png", b"same length")])
        os.utime(shard, (0, 0))
        (tmp_path / folder / build.INDEX_FOLDER).write_text("in the way")
    assert [list(find_images(tmp_path / folder).names) for folder in ("a", "b")] == [
        ["x.tar/a.png"],
        ["x.tar/b.png"],
    ]


def test_where_locks_do_not_work_the_index_of_the_first_process_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, make = shards(tmp_path / "x"), build._make

    def beaten(*args: Any) -> None:
        make(*args)
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(build, "_make", full)
    with pytest.raises(
        InputError, match=r"cannot write the index .*: No space left on device; set"
    ):
        find_images(root)
    monkeypatch.setattr(build, "_make", beaten)
    assert len(find_images(root)) == 20


def test_several_processes_make_the_same_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, several = shards(tmp_path / "one"), shards(tmp_path / "several")
    write_tar(several / "3.tar", [("x.tiff", b"x"), ("y.txt", b"y"), ("z.cls", b"1")])
    shutil.copy(several / "3.tar", one / "3.tar")
    found = []
    for root, cores in ((one, 1), (several, 3)):
        monkeypatch.setattr(build, "allowed_cores", lambda cores=cores: cores)
        found.append(find_images(root))
    assert found[0].digest == found[1].digest
    for name in ("container", "offset", "length", "label", "names", "ends"):
        arrays = [np.load(folder_of(images) / f"{name}.npy") for images in found]
        np.testing.assert_array_equal(*arrays)


def test_a_damaged_container_ends_all_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = shards(tmp_path / "x")
    (root / "2.tar").write_bytes(b"no tar" * 200)
    monkeypatch.setattr(build, "allowed_cores", lambda: 2)
    with pytest.raises(InputError, match=r"2\.tar: not a tar: "):
        find_images(root)
    assert not list((root / build.INDEX_FOLDER).glob("*")), "nothing is half written"
    monkeypatch.setitem(build.READERS, "tar", lambda path: os._exit(9))
    with pytest.raises(Fault, match="a process that indexes it was killed"):
        find_images(root)


def _find(root: Path) -> None:
    find_images(root)


def test_of_two_processes_one_makes_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, log = shards(tmp_path / "x", 1), tmp_path / "log"

    def slow(path: Path) -> Entries:
        with log.open("a") as file:
            file.write("made\n")
        return build.read_tar(path)

    monkeypatch.setitem(build.READERS, "tar", slow)
    processes = [
        multiprocessing.get_context("fork").Process(target=_find, args=(root,)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert log.read_text() == "made\n"


def test_labels_of_containers_are_joined(tmp_path: Path) -> None:
    for number, classes in enumerate(("ab", "bc", "ca")):
        members = [(f"{name}/x", name.encode()) for name in classes]
        write_table(tmp_path / f"{number}.parquet", members)
    images = find_images(tmp_path)
    assert images.classes == ["a", "b", "c"]
    assert images.labels is not None
    assert images.labels.tolist() == [0, 1, 1, 2, 2, 0]
    assert images.take([4, 5, 3]).labels is not None
