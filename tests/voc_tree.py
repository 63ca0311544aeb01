"""A small VOC 2007 tree, with photos that each show one class."""

from pathlib import Path

import numpy as np
from PIL import Image

from data.voc import CLASSES


def write_voc(folder: Path, difficult: bool = True, **splits: int) -> Path:
    """Write `VOCdevkit/VOC2007` with the given numbers of images in the splits.

    Image number i shows class i modulo 20, as a square of the class's colour. Another class is
    marked difficult in it if the sum of the two numbers is a multiple of 7.

    Returns the folder `VOC2007`.
    """
    root = folder / "VOCdevkit" / "VOC2007"
    for place in ("ImageSets/Main", "JPEGImages"):
        (root / place).mkdir(parents=True)
    rng = np.random.default_rng(0)
    colours = rng.integers(256, size=(len(CLASSES), 3))
    first = 0
    for split, count in splits.items():
        numbers = range(first, first + count)
        for number in numbers:
            pixels = rng.integers(100, 140, size=(44, 52, 3)).astype(np.uint8)
            pixels[4:40, 6:46] = colours[number % len(CLASSES)]
            Image.fromarray(pixels).save(root / "JPEGImages" / f"{number:06d}.jpg", quality=95)
        for of_class, name in enumerate(CLASSES):
            labels = [_label(number, of_class, difficult) for number in numbers]
            lines = [f"{n:06d} {label:2d}\n" for n, label in zip(numbers, labels, strict=True)]
            (root / "ImageSets" / "Main" / f"{name}_{split}.txt").write_text("".join(lines))
        first += count
    return root


def _label(number: int, of_class: int, difficult: bool) -> int:
    if number % len(CLASSES) == of_class:
        return 1
    return 0 if difficult and (number + of_class) % 7 == 0 else -1
