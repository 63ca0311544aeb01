"""A data set's images by index: names, messages, digest, pickling."""

import hashlib
import os
import pickle
from pathlib import Path

import pytest
from conftest import image_list, write_images

from data.decode import UnreadableImageError
from data.folder import Files
from data.images import ImageList, check_alike, find_all_images, find_images
from data.listing import describe_change
from system.errors import InputError


def test_missing_source() -> None:
    with pytest.raises(InputError, match=r"^nowhere/x: no such folder or file$"):
        find_images("nowhere/x")


def test_an_image_opens_by_index_and_says_where_it_is(tree: Path) -> None:
    images = find_images(tree)
    assert images.names[10] == "b/000.png"
    assert images.where(10) == f"{tree}/b/000.png"
    with images.open(10) as file:
        assert file.read() == (tree / "b" / "000.png").read_bytes()


def test_an_image_that_cannot_be_opened_has_a_one_line_reason(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    images = image_list(tmp_path / "pipe.png", tmp_path / "gone.png", "null\0byte.png")
    for index, reason in enumerate(
        ("is a pipe", "No such file or directory$", r"(\w+: )?embedded null")
    ):
        with pytest.raises(UnreadableImageError, match=f"^{reason}"):
            images.open(index)


def test_a_selection_keeps_the_given_order(tree: Path) -> None:
    images = find_images(tree)
    few = images.take([30, 2, 30])
    assert few.names == ["c/000.png", "a/002.png", "c/000.png"]
    assert few.folders == ["c", "a", "c"]
    assert (len(few), few.root) == (3, tree)
    assert few.labels is not None
    assert few.labels.tolist() == [1, 0, 1]
    assert few.where(0) == images.where(30)


def test_sources_follow_one_after_the_other(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "more", 2)
    (tmp_path / "list.txt").write_text("more/001.png\n")
    monkeypatch.chdir(tmp_path)
    images = find_all_images(["images", "list.txt"])
    assert len(images) == 41
    assert (images.names[0], images.names[40]) == ("images/a/000.png", "./more/001.png")
    assert images.where(0) == "./images/a/000.png"
    assert images.labels is not None
    assert len(set(images.labels.tolist())) == 4
    with images.open(40) as file:
        assert file.read() == (tmp_path / "more" / "001.png").read_bytes()


def test_the_digest_is_of_the_names_in_their_order(tree: Path) -> None:
    """Checkpoints of all versions contain it."""
    names = [f"{folder}/{n:03d}.png" for folder, count in zip("abc", (10, 20, 10), strict=True)
             for n in range(count)]  # fmt: skip
    assert find_images(tree).digest == hashlib.sha256("\0".join(names).encode()).hexdigest()
    odd = image_list("no\udcff UTF-8.png")
    assert odd.digest == hashlib.sha256(b"no\xff UTF-8.png").hexdigest()


def test_workers_get_the_names_once(tmp_path: Path) -> None:
    names = [f"class {number % 1000:04d}/{number:08d}.jpg" for number in range(20_000)]
    folders = [f"class {number:04d}" for number in range(1000)] * 20
    images = ImageList(Files(tmp_path, names, folders))
    sent = pickle.dumps(images)
    assert len(sent) < len(pickle.dumps((names, folders))) + 500
    assert pickle.loads(sent) == images


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (["a", "b", "c"], "2 there, 3 now: 1 added, such as c"),
        (["b", "a"], "2 there, 2 now: the same names in another order"),
    ],
)
def test_a_change_of_images_is_described(now: list[str], expected: str) -> None:
    assert describe_change(["a", "b"], now) == expected


def test_processes_with_other_images_end_with_one_line(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = find_images(tree)
    check_alike(images)
    other = images.take([1, 0]).digest
    monkeypatch.setattr("data.images.gather_objects", lambda digest: [digest, other])
    with pytest.raises(InputError, match=rf"^{tree}: the processes found different images there"):
        check_alike(images)
