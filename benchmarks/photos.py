"""A tree of real photographs for timing: crops of the two that scikit-learn ships."""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from system import cli

WIDTH, HEIGHT = 500, 375  # ImageNet's typical size
QUALITY = 95  # gives files of 60 to 100 KB
FOLDERS = 10


def add_images_flag(
    parser: argparse.ArgumentParser,
    default: int | list[int] = 512,
    help: str = "number of photographs",
    nargs: str | None = None,
) -> None:
    """Add `--images`, the number of photographs."""
    number = cli.whole_number(20)
    parser.add_argument("--images", type=number, nargs=nargs, default=default, help=help)


def write_photos(folder: Path, count: int) -> None:
    """Write `count` JPEGs in class folders, each a different crop."""
    photos = load_sample_images().images
    random = np.random.default_rng(0)
    for number in range(count):
        photo = photos[number % len(photos)]
        top = random.integers(photo.shape[0] - HEIGHT + 1)
        left = random.integers(photo.shape[1] - WIDTH + 1)
        crop = photo[top : top + HEIGHT, left : left + WIDTH]
        path = folder / f"{number % FOLDERS}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(crop[:, :: 1 - 2 * (number // 2 % 2)]).save(path, quality=QUALITY)
