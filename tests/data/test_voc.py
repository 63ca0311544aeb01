"""VOC 2007's annotations."""

from pathlib import Path

import numpy as np
import pytest
from voc_tree import write_voc

from data.voc import CLASSES, find_voc
from system.errors import InputError


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    return write_voc(tmp_path, train=3, val=2)


def annotation(voc: Path, name: str, split: str = "train") -> Path:
    return voc / "ImageSets" / "Main" / f"{name}_{split}.txt"


def test_targets_are_by_image_and_class(voc: Path) -> None:
    annotation(voc, "bird").write_text("000000 -1\n000001  0\n000002  1\n\n")
    train, val = find_voc(voc, "train"), find_voc(voc, "val")
    assert [Path(train.images.where(i)).name for i in range(3)] == [
        "000000.jpg",
        "000001.jpg",
        "000002.jpg",
    ]
    assert train.targets.shape == (3, 20)
    assert train.targets.dtype == np.int8
    assert train.targets[:, CLASSES.index("bird")].tolist() == [-1, 0, 1]
    assert train.targets[:, 0].tolist() == [1, -1, -1]
    assert val.images.names == ["000003.jpg", "000004.jpg"]
    assert val.targets[:, 3].tolist() == [1, 0], "4 + 3 is a multiple of 7"


def test_the_devkit_is_found_from_above(voc: Path) -> None:
    roots = {find_voc(place, "train").images.root for place in (voc, voc.parent, voc.parents[1])}
    assert roots == {voc / "JPEGImages"}


def test_a_folder_without_voc_is_named(voc: Path, tmp_path: Path) -> None:
    (voc / "JPEGImages").rename(voc / "elsewhere")
    for place in (voc, tmp_path / "gone"):
        with pytest.raises(InputError) as caught:
            find_voc(place, "train")
        assert str(caught.value) == (
            f"{place}: not PASCAL VOC 2007: no ImageSets/Main and JPEGImages in it, nor in VOC2007 "
            "or VOCdevkit/VOC2007 below it"
        )


def test_an_incomplete_folder_does_not_end_the_search(voc: Path) -> None:
    """Such as the trainval archive, unpacked above the whole of it."""
    for above in (voc.parent, voc.parents[1]):
        (above / "ImageSets" / "Main").mkdir(parents=True)
        (above / "JPEGImages").mkdir()
        assert find_voc(above, "train").images.root == voc / "JPEGImages"


def test_a_split_that_is_missing(voc: Path) -> None:
    with pytest.raises(InputError) as caught:
        find_voc(voc, "test")
    path = annotation(voc, "aeroplane", "test")
    assert str(caught.value) == f"{path}: cannot read this annotation: No such file or directory"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", ": cannot read this annotation: not text"),
        (b"\n \n", ": lists no image"),
        (b"000000 1\n\n000001 2\n", ":3: '000001 2' is not an image and 1, 0 or -1"),
        (b"000000\n", ":1: '000000' is not an image and 1, 0 or -1"),
        (b"000000 1 1\n", ":1: '000000 1 1' is not an image and 1, 0 or -1"),
        (
            b"000000 1\n000002 1\n000001 1\n",
            ": lists other images than aeroplane_train.txt",
        ),
    ],
)
def test_a_malformed_annotation_is_named(voc: Path, content: bytes, message: str) -> None:
    path = annotation(voc, "cat")
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        find_voc(voc, "train")
    assert str(caught.value) == f"{path}{message}"


def test_an_image_that_is_missing(voc: Path) -> None:
    path = voc / "JPEGImages" / "000001.jpg"
    path.unlink()
    find_voc(voc, "val")
    with pytest.raises(InputError) as caught:
        find_voc(voc, "train")
    assert str(caught.value) == f"{path}: this image of train is missing"
