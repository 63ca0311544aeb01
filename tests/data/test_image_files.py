"""Images in files: nested folders, flat folders, list files, pipes and devices."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import write_images
from torchvision.datasets import ImageFolder

from data.decode import UnreadableImageError
from data.folder import LINE_BREAK, below_again, find_below
from data.images import find_images
from data.lists import listed, read_list
from system.errors import InputError


def test_a_tree_is_listed_in_the_order_of_image_folder(tmp_path: Path) -> None:
    for folder in ("b", "a", "a-b", "a/deeper", "a/deeper/still", "c/only/below"):
        write_images(tmp_path / folder, 3)
    images = find_images(tmp_path)
    reference = ImageFolder(str(tmp_path))
    assert [images.where(i) for i in range(len(images))] == [path for path, _ in reference.samples]
    assert images.labels is not None
    assert images.labels.tolist() == reference.targets


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    write_images(tmp_path, 4)
    images = find_images(tmp_path)
    assert images.names == ["000.png", "001.png", "002.png", "003.png"]
    assert images.labels is None


def test_a_single_folder_is_not_a_label(tmp_path: Path) -> None:
    write_images(tmp_path / "only", 4)
    assert find_images(tmp_path).labels is None


def test_other_files_are_ignored(tmp_path: Path) -> None:
    write_images(tmp_path, 1)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "folder.png").mkdir()
    shutil.copy(tmp_path / "000.png", tmp_path / "UPPER.PNG")
    assert find_images(tmp_path).names == ["000.png", "UPPER.PNG"]


def test_a_list_file_takes_relative_and_absolute_paths(tmp_path: Path) -> None:
    write_images(tmp_path / "x", 2)
    elsewhere = write_images(tmp_path / "y", 1)[0]
    source = tmp_path / "list.txt"
    source.write_text(f"x/001.png\r\n\n{elsewhere}\nx/000.png\n")
    images = find_images(source)
    assert images.names == ["x/001.png", str(elsewhere), "x/000.png"]
    assert [Path(images.where(i)).resolve() for i in range(3)] == [
        (tmp_path / "x/001.png").resolve(),
        elsewhere.resolve(),
        (tmp_path / "x/000.png").resolve(),
    ]
    assert images.labels is not None, "the folders that hold the images"
    assert images.labels[0] == images.labels[2] != images.labels[1]


def test_one_folder_is_one_label_however_a_list_spells_it(tmp_path: Path) -> None:
    _, second = write_images(tmp_path / "x", 2)
    other = write_images(tmp_path / "y", 1)[0]
    (tmp_path / "list.txt").write_text(f"x/000.png\n{second}\n./x/../x/000.png\n{other}\n")
    labels = find_images(tmp_path / "list.txt").labels
    assert labels is not None
    assert labels.tolist() == [0, 0, 0, 1]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    write_images(tmp_path, 1)
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    (tmp_path / "000.png").rename(tmp_path / name)
    assert find_images(tmp_path).names == [name]
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.png\n")
    assert Path(find_images(tmp_path / "list.txt").where(0)).exists()


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    write_images(tmp_path, 2)
    (tmp_path / "list.txt").write_text("000.png\n001.png\n", encoding="utf-8-sig")
    assert find_images(tmp_path / "list.txt").names == ["000.png", "001.png"]


def test_no_image(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match="no image in this folder or below it"):
        find_images(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"gone.png\nlost.png\n"])
def test_a_list_without_images(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"list.txt: none of its \d lines names an image"):
        find_images(tmp_path / "list.txt")


def test_a_binary_file_is_not_a_list(tmp_path: Path) -> None:
    (image,) = write_images(tmp_path, 1)
    with pytest.raises(InputError, match=r"000\.png: is one image; give its folder, or a list"):
        find_images(image)
    (tmp_path / "x.7z").write_bytes(b"7z\xbc\xaf\x27\x1c\n\x04\xff")
    with pytest.raises(InputError, match=r"x.7z: neither .*, nor a \.tar, \.zip or \.parquet$"):
        find_images(tmp_path / "x.7z")


def test_links_in_a_circle_are_followed_once(tmp_path: Path) -> None:
    """Followed each time, two of them in each folder would make 2^40 paths."""
    for folder in ("a", "b/deeper"):
        write_images(tmp_path / folder, 2)
    paths = find_images(tmp_path).names
    for number, target in enumerate(("..", ".", "../b", "../b/deeper")):
        (tmp_path / "a" / f"link{number}").symlink_to(target)
    for number, target in enumerate(("..", "../..", "../../a")):
        (tmp_path / "b" / "deeper" / f"link{number}").symlink_to(target)
    (tmp_path / "top").symlink_to(".")
    found = find_images(tmp_path).names
    assert set(paths) <= set(found)
    assert {str(Path(path).name) for path in found} == {"000.png", "001.png"}
    assert len(found) == len(set(found)) < 40
    for path in found:
        folders = [(tmp_path / path).parents[i].resolve() for i in range(len(Path(path).parents))]
        assert len(set(folders)) == len(folders), "no folder lies in itself"


def test_a_link_to_another_folder_is_followed(tmp_path: Path) -> None:
    write_images(tmp_path / "elsewhere", 2)
    (tmp_path / "data").mkdir()
    for name in ("a", "b"):
        (tmp_path / "data" / name).symlink_to("../elsewhere")
    expected = ["a/000.png", "a/001.png", "b/000.png", "b/001.png"]
    assert find_images(tmp_path / "data").names == expected
    reference = ImageFolder(str(tmp_path / "data"))
    assert [str(tmp_path / "data" / path) for path in expected] == [p for p, _ in reference.samples]


@pytest.mark.parametrize("place", ["", "a"])
def test_dangling_links_and_pipes_are_listed(tmp_path: Path, place: str) -> None:
    """They are unreadable only when they are opened."""
    write_images(tmp_path / "b", 1)
    (tmp_path / "a").mkdir()
    folder = tmp_path / place
    (folder / "circle.png").symlink_to("circle.png")
    (folder / "gone.png").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.png")
    found = [Path(path).name for path in find_images(tmp_path).names]
    assert found == ["circle.png", "gone.png", "pipe.png", "000.png"]


@pytest.mark.parametrize("reason", ["Permission denied", "No such file or directory"])
def test_a_folder_that_is_closed_or_vanishes_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """Skipping it would lose a class."""
    write_images(tmp_path / "a" / "closed", 1)
    scan = os.scandir

    def refuse(path: str) -> Any:
        if str(path).endswith("closed"):
            raise OSError(errno.EACCES if "denied" in reason else errno.ENOENT, reason, str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=f"a/closed: cannot list this folder: {reason}"):
        find_images(tmp_path)


@pytest.mark.parametrize("name", ["two\nlines.png", "end.png\r", "\n"])
def test_an_image_whose_name_has_a_line_break_is_unreadable(tmp_path: Path, name: str) -> None:
    (image,) = write_images(tmp_path, 1)
    (tmp_path / "folder").mkdir()
    image.rename(tmp_path / "folder" / f"{name}.png")
    images = find_images(tmp_path)
    assert images.names == [f"folder/{name}.png"]
    with pytest.raises(UnreadableImageError, match=f"^{LINE_BREAK}$"):
        images.open(0)


def test_backslashes_in_a_list_are_kept(tmp_path: Path) -> None:
    (image,) = write_images(tmp_path, 1)
    image.rename(tmp_path / "\\odd\\n.png")
    (tmp_path / "list.txt").write_text("\\odd\\n.png\n")
    images = find_images(tmp_path / "list.txt")
    assert images.names == ["\\odd\\n.png"]
    images.open(0).close()


def test_files_open_by_index(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "x", 3)
    files = find_below(tmp_path)
    for chosen in (files, files.take([2, 0, 2])):
        for index, name in enumerate(chosen.names):
            assert chosen.path(index) == f"{tmp_path}/{name}"
            with chosen.open(index) as file:
                assert file.read() == (tmp_path / name).read_bytes()
    assert files.take([2, 0, 2]).names == ["x/002.png", "x/000.png", "x/002.png"]
    assert files.take([1]).folders == ["x"]
    paths[1].unlink()
    with pytest.raises(FileNotFoundError):
        files.open(1)


def test_names_alone_restore_a_listing(tmp_path: Path) -> None:
    write_images(tmp_path / "b" / "deeper", 2)
    write_images(tmp_path, 1)
    found = find_below(tmp_path)
    assert found.folders == ["", "b", "b"]
    assert below_again(tmp_path, found.names) == found
    (tmp_path / "list.txt").write_text("b/deeper/001.png\n./000.png\n")
    found = read_list(tmp_path / "list.txt")
    assert listed(tmp_path, found.names) == found
