"""Exact and near duplicates among image files."""

import csv
from pathlib import Path

import numpy as np
import pytest
from arrays import sphere
from PIL import Image

from data.folder import Files
from data.images import ImageList
from features.duplicates import (
    BEST,
    COPY,
    NEAR,
    find_duplicates,
    largest_group,
    write_duplicates,
)
from system.errors import InputError


@pytest.fixture
def images(tmp_path: Path) -> ImageList:
    """Two copies of a small picture, a large one of it, one that is like nothing, and two alike of
    which the second has more bytes."""
    noise = np.random.default_rng(0).integers(256, size=(24, 24, 3), dtype=np.uint8)
    names = ["a.png", "b,b.png", "large.png", "odd.png", "flat.png", "rich.png"]
    for name in names[:2]:
        Image.fromarray(noise[:8, :8]).save(tmp_path / name)
    Image.fromarray(noise).save(tmp_path / names[2])
    for name, content in zip(names[3:], (noise[:16], 0 * noise[:16], noise[8:]), strict=True):
        Image.fromarray(content).save(tmp_path / name)
    return ImageList(Files(tmp_path, names, ["."] * 6))


ROWS = sphere(6, seed=2)[[0, 0, 0, 3, 4, 4]]


def test_the_best_of_a_group_comes_first(images: ImageList, tmp_path: Path) -> None:
    found = find_duplicates(images, ROWS, 0.01)
    assert [(each.index, each.group, each.kind, each.pixels) for each in found] == [
        (2, 0, BEST, 576), (0, 0, NEAR, 64), (1, 0, COPY, 64), (5, 1, BEST, 384), (4, 1, NEAR, 384),
    ]  # fmt: skip
    out = tmp_path / "duplicates.csv"
    write_duplicates(out, images, found)
    header, *rows = csv.reader(out.open(newline=""))
    assert header == ["group", "kind", "path", "pixels", "bytes"]
    size = (tmp_path / "b,b.png").stat().st_size
    assert rows[2] == ["0", "exact copy", "b,b.png", "64", str(size)]
    assert len(rows) == 5


def test_the_largest_group_comes_first(images: ImageList) -> None:
    rows = sphere(6, seed=2)[[0, 0, 2, 2, 4, 2]]
    found = find_duplicates(images, rows, 0.01)
    assert [(each.group, each.index) for each in found] == [(0, 2), (0, 3), (0, 5), (1, 0), (1, 1)]
    assert largest_group(found) == 3
    assert largest_group(found[3:]) == 0, "exact copies alone"


def test_a_file_that_has_gone_is_named(images: ImageList, tmp_path: Path) -> None:
    (tmp_path / "large.png").unlink()
    with pytest.raises(InputError, match=r"large\.png: cannot read this image any more: No such"):
        find_duplicates(images, ROWS, 0.01)
