"""A small VOC 2007 tree, with photos that show several classes."""

from pathlib import Path

import numpy as np
from PIL import Image

from data.voc import CLASSES


def write_voc(folder: Path, trainval: int = 30, test: int = 24, seed: int = 0) -> Path:
    """Write `VOCdevkit/VOC2007` with photos whose colours depend on their classes.

    In each split, each class is in about a third of the images, at least four, and is marked
    difficult in some others.
    """
    root = folder / "VOCdevkit" / "VOC2007"
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "JPEGImages").mkdir()
    rng = np.random.default_rng(seed)
    colours = rng.integers(256, size=(len(CLASSES), 4, 4, 3))
    number = 0
    for split, count in (("trainval", trainval), ("test", test)):
        names = [f"{number + n:06d}" for n in range(count)]
        number += count
        targets = rng.choice([1, 0, -1], size=(count, len(CLASSES)), p=[0.3, 0.1, 0.6])
        for n in range(len(CLASSES)):
            targets[rng.permutation(count)[:8], n] = [1, -1] * 4
        for name, row in zip(names, targets, strict=True):
            write_photo(root / "JPEGImages" / f"{name}.jpg", colours[row == 1], rng)
        for label, column in zip(CLASSES, targets.T, strict=True):
            lines = [f"{name} {target:2d}\n" for name, target in zip(names, column, strict=True)]
            (root / "ImageSets" / "Main" / f"{label}_{split}.txt").write_text("".join(lines))
    return root.parent


def write_photo(path: Path, colours: np.ndarray, rng: np.random.Generator) -> None:
    """Write the mean of colours `(n, 4, 4, 3)` as squares with noise, at a random size."""
    mean = colours.mean(axis=0) if len(colours) else np.full((4, 4, 3), 128)
    noisy = np.clip(mean + rng.normal(scale=20, size=mean.shape), 0, 255).astype(np.uint8)
    width, height = rng.integers(36, 60, size=2)
    Image.fromarray(noisy).resize((int(width), int(height)), Image.Resampling.NEAREST).save(path)
