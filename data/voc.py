"""PASCAL VOC 2007, classification: images and their classes."""

import argparse
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.folder import Files
from data.images import ImageList
from data.labelled import Labelled
from data.reading import AS_STORED, Reading
from system.errors import InputError, shorten

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip


@dataclass(frozen=True)
class VocSplit:
    """The images of a split.

    Attributes:
        images: in the order of the annotation files.
        targets: `(N, 20) int8`, with the columns of `CLASSES`: 1 for a class that the image shows,
            −1 for one that it does not, 0 for one marked difficult.
    """

    images: ImageList
    targets: np.ndarray

    @property
    def digest(self) -> str:
        """SHA-256 of the names and the targets, which identifies the split in results."""
        return hashlib.sha256(self.images.digest.encode() + self.targets.tobytes()).hexdigest()

    def labelled(self) -> Labelled:
        """The same images, with `targets` as their labels."""
        return Labelled(self.images, self.targets, [*CLASSES])


def add_vocdir_flag(parser: argparse.ArgumentParser) -> None:
    """`--vocdir`, which `find_voc` takes."""
    voc_help = "VOCdevkit/VOC2007, or a folder that contains it"
    parser.add_argument("--vocdir", type=Path, required=True, help=voc_help)


def find_voc(vocdir: str | Path, split: str, reading: Reading = AS_STORED) -> VocSplit:
    """Read a split's annotations.

    Args:
        vocdir: `VOCdevkit/VOC2007`, or a folder that contains one of the two.

    Raises:
        InputError: a file is missing or malformed.
    """
    root = _root(Path(vocdir), split)
    columns, names = [], None
    for name in CLASSES:
        path = root / "ImageSets" / "Main" / f"{name}_{split}.txt"
        found, column = _read_annotation(path)
        if names is not None and found != names:
            raise InputError(f"{path}: lists other images than {CLASSES[0]}_{split}.txt")
        names = found
        columns.append(column)
    assert names is not None
    paths = [f"{name}.jpg" for name in names]
    files = Files(root / "JPEGImages", paths, ["."] * len(paths))
    for index in range(len(paths)):
        if not os.path.isfile(files.path(index)):  # noqa: PTH113 (a Path raises if too long)
            raise InputError(f"{shorten(files.path(index))}: this image of {split} is missing")
    return VocSplit(ImageList(files, reading), np.stack(columns, axis=1))


def _root(vocdir: Path, split: str) -> Path:
    """The first folder of VOC 2007 that has the split, or else the first."""
    places = (vocdir, vocdir / "VOC2007", vocdir / "VOCdevkit" / "VOC2007")
    found = [
        root
        for root in places
        if (root / "ImageSets" / "Main").is_dir() and (root / "JPEGImages").is_dir()
    ]
    for root in found:
        listed = root / "ImageSets" / "Main" / f"{CLASSES[0]}_{split}.txt"
        if listed.is_file() and any((root / "JPEGImages").iterdir()):
            return root
    if found:
        return found[0]
    raise InputError(
        f"{vocdir}: not PASCAL VOC 2007: no ImageSets/Main and JPEGImages in it, "
        "nor in VOC2007 or VOCdevkit/VOC2007 below it"
    )


def _read_annotation(path: Path) -> tuple[list[str], np.ndarray]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise InputError(f"{path}: cannot read this annotation: {reason}") from error
    rows = {number: line.split() for number, line in enumerate(lines, 1) if line.strip()}
    if not rows:
        raise InputError(f"{path}: lists no image")
    for number, row in rows.items():
        if len(row) != 2 or row[1] not in ("1", "0", "-1"):
            raise InputError(
                f"{path}:{number}: {shorten(' '.join(row))!r} is not an image and 1, 0 or -1"
            )
    names, labels = zip(*rows.values(), strict=True)
    return list(names), np.array([int(label) for label in labels], np.int8)
