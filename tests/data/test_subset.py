"""Subsets of labelled images, by percentage and by list."""

import argparse
import itertools
from pathlib import Path

import numpy as np
import pytest

from data.folder import Files
from data.images import ImageList
from data.labelled import Labelled
from data.subset import add_subset_flags, chosen_subset, drawn, listed
from system.errors import InputError

COUNTS = {"ant": 3, "bee": 20, "cat": 45}
CLASSES = list(COUNTS)


@pytest.fixture
def train() -> Labelled:
    """Three classes, of 3, 20 and 45 images with names like ImageNet's."""
    names = [f"{name}/{name}_{i}.JPEG" for name, count in COUNTS.items() for i in range(count)]
    folders = [name.partition("/")[0] for name in names]
    labels = np.array([CLASSES.index(folder) for folder in folders])
    return Labelled(ImageList(Files(Path("/t"), names, folders)), labels, CLASSES)


def names_of(found: Labelled) -> list[str]:
    assert [CLASSES[label] for label in found.labels] == found.images.folders
    assert found.classes == CLASSES
    return list(found.images.names)


@pytest.mark.parametrize(
    ("percent", "counts"),
    [(0.01, [1, 1, 1]), (1, [1, 1, 1]), (10, [1, 2, 4]), (33.4, [1, 7, 15]), (50, [2, 10, 22])],
)
def test_a_percentage_is_of_each_class_but_at_least_one_image(
    train: Labelled, percent: float, counts: list[int]
) -> None:
    """Of 45 images 10 % are 4.5, which round to the even 4."""
    found = drawn(train, percent, seed=31)
    assert np.bincount(found.labels).tolist() == counts
    names = names_of(found)
    assert [name for name in train.images.names if name in names] == names, "in the same order"


def test_the_draw_depends_on_the_seed_alone(train: Labelled) -> None:
    first = names_of(drawn(train, 10, 31))
    assert first == [
        "ant/ant_1.JPEG", "bee/bee_6.JPEG", "bee/bee_16.JPEG",
        "cat/cat_9.JPEG", "cat/cat_14.JPEG", "cat/cat_32.JPEG", "cat/cat_33.JPEG",
    ], "on any machine"  # fmt: skip
    np.random.seed(5)
    assert names_of(drawn(train, 10, 31)) == first
    assert names_of(drawn(train, 10, 32)) != first


def test_each_image_of_a_class_is_drawn_equally_often(train: Labelled) -> None:
    draws = 500
    times = np.zeros(20)
    for seed in range(draws):
        for name in names_of(drawn(train, 10, seed)):
            if name.startswith("bee"):
                times[int(name[8:-5])] += 1
    expected = draws * 2 / 20
    assert ((times - expected) ** 2 / expected).sum() < 43.8, "chi-square of 19 degrees, p 0.001"


def test_a_smaller_share_is_part_of_a_larger_one(train: Labelled) -> None:
    shares = [set(names_of(drawn(train, percent, 4))) for percent in (1, 10, 30, 100)]
    assert all(small < large for small, large in itertools.pairwise(shares))


def test_a_hundred_percent_are_all_images(train: Labelled) -> None:
    found = drawn(train, 100, 31)
    assert found.digest == train.digest
    np.testing.assert_array_equal(found.labels, train.labels)
    assert drawn(train, 50, 31).digest != train.digest


@pytest.mark.parametrize(
    "content",
    [
        b"cat_7.JPEG\nant_0.JPEG\nbee_19.JPEG\n",
        b"bee_19.JPEG\r\ncat_7.JPEG\r\nant_0.JPEG",
        b"\xef\xbb\xbfant_0.JPEG\n\nant_0.JPEG\ncat_7.JPEG\nbee_19.JPEG\ncat_7.JPEG\n",
        b"ant/ant_0.JPEG\ncat/cat_7.JPEG\nbee_19.JPEG\n",
        "ant_0.JPEG\nbee_19.JPEG\ncat_7.JPEG\n".encode("utf-16"),
        b"ant_0.JPEG \n bee_19.JPEG\t\ncat/cat_7.JPEG  \n",
    ],
    ids=["names", "carriage returns", "twice, with a mark", "paths", "UTF-16", "blanks"],
)
def test_a_list_has_a_file_name_a_line(train: Labelled, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    assert names_of(listed(train, path)) == [
        "ant/ant_0.JPEG", "bee/bee_19.JPEG", "cat/cat_7.JPEG"
    ]  # fmt: skip


def test_flags_choose_the_subset_and_its_percentage(train: Labelled, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_subset_flags(parser)
    path = tmp_path / "list.txt"
    path.write_text("ant_0.JPEG\nbee_19.JPEG\ncat_7.JPEG\ncat_8.JPEG\n")
    found = {}
    for command in ("", "--percent 100", "--percent 10", f"--subset {path}"):
        args = parser.parse_args(command.split())
        args.seed = 31
        subset, percent = chosen_subset(args, train)
        found[command.partition("/")[0]] = len(subset.images), percent
    assert found == {
        "": (68, 100), "--percent 100": (68, 100), "--percent 10": (7, 10),
        "--subset ": (4, pytest.approx(400 / 68)),
    }  # fmt: skip


ANY = "ant_0.JPEG\nbee_1.JPEG\ncat_7.JPEG\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("PK\0\1", "{}: not a text file with a file name on each line"),
        ("", "none of its 0 lines is the name of an image in /t; give names such as cat_44.JPEG"),
        (
            "n1_5.JPEG\nn2_6.JPEG\n",
            "none of its 2 lines (the first is 'n1_5.JPEG') is the name of an image in /t; give",
        ),
        (
            f"{ANY}ant_3.JPEG\nbee_20.JPEG\n",
            "--subset {}: 2 of its 5 images are not in /t, the first of which is 'ant_3.JPEG'",
        ),
        (
            "bee_1.JPEG\nbee_2.JPEG\n",
            "--subset {}: has no image of 2 of the 3 classes in /t, the first of which is 'ant'",
        ),
    ],
)
def test_a_wrong_list_is_one_line(
    train: Labelled, tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "list.txt"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        listed(train, path)
    assert message.format(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_list_that_is_missing_or_a_folder_is_named(train: Labelled, tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "x", "No such file or directory"), (tmp_path, "Is a direct")):
        with pytest.raises(InputError, match=f"{path}: cannot read this list file: {reason}"):
            listed(train, path)


def test_a_file_name_of_several_images_needs_paths(tmp_path: Path) -> None:
    names = ["ant/0.png", "ant/1.png", "bee/0.png"]
    files = Files(Path("/t"), names, ["ant", "ant", "bee"])
    train = Labelled(ImageList(files), np.array([0, 0, 1]), ["ant", "bee"])
    path = tmp_path / "list.txt"
    path.write_text("1.png\n0.png\n")
    with pytest.raises(InputError, match=r"/t has several images called '0.png'; give paths such "):
        listed(train, path)
    path.write_text("1.png\nbee/0.png\n")
    assert listed(train, path).images.names == ["ant/1.png", "bee/0.png"]


def test_a_missing_list_is_named_with_its_flag(train: Labelled, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        listed(train, tmp_path / "none.txt")
    assert str(caught.value) == (
        f"--subset {tmp_path}/none.txt: cannot read this list file: No such file or directory"
    )
