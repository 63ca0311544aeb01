"""Labelled images that can't be read, in the measures of what was learned."""

from pathlib import Path

import numpy as np
import pytest

from data.folder import Files
from data.images import ImageList
from evaluation.embedded import Embed, judge
from system.errors import InputError


def images_of(split: str) -> ImageList:
    """200 images of two labels, in turn."""
    names = [f"{'ab'[n % 2]}/{n}.png" for n in range(200)]
    return ImageList(Files(Path(split), names, [name[0] for name in names]))


def without(split: str, missing: list[int]) -> Embed:
    """Rows that tell the labels; of a split, some images can't be read."""

    def embed(images: ImageList, of: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
        readable = np.ones(len(images), bool)
        readable[missing if of == split else []] = False
        rows = np.eye(2)[[int(folder == "b") for folder in images.folders]]
        noise = np.random.default_rng(0).normal(0, 0.01, rows.shape)
        return (rows + noise)[readable], readable, ["no image"] * int((~readable).sum())

    return embed


def test_an_unreadable_val_image_is_a_mistake() -> None:
    found, readable = judge(without("val", [3, 7]), images_of("train"), images_of("val"), None, 0)
    assert readable == 200
    for name in ("linear", "plain_1nn", "plain_20nn", "whitened_1nn", "whitened_20nn"):
        assert np.flatnonzero(~found[name]).tolist() == [3, 7], name
        assert found[name].shape == (200,)
    assert found["plain_nmi"].shape == (5,)


def test_an_unreadable_train_image_is_left_out() -> None:
    found, readable = judge(without("train", [3, 7]), images_of("train"), images_of("val"), None, 0)
    assert readable == 198
    assert found["linear"].all()


@pytest.mark.parametrize(("split", "use"), [("train", "train on"), ("val", "validate on")])
def test_more_than_a_hundredth_is_an_error(split: str, use: str) -> None:
    embed = without(split, [1, 2, 3])
    with pytest.raises(InputError) as caught:
        judge(embed, images_of("train"), images_of("val"), None, 0)
    line = f"--data: more than 1% of the images to {use} are unreadable (3 of 200, named above); "
    assert str(caught.value).startswith(line)
