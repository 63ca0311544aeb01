"""A data set with labels, split into train and val."""

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data.folder import Files, find_below
from data.images import MOST_UNREADABLE, ImageList, find_images
from data.levels import warn_of_lost_levels
from data.reading import AS_STORED, Reading
from system.errors import InputError, shorten
from system.names import read_text

ANNOTATIONS = "val_annotations.txt"  # Tiny-ImageNet's: image, class, and its box


@dataclass(frozen=True)
class Labelled:
    """Images and their classes.

    Attributes:
        labels: `(N,) int64`, indices into `classes`.
        classes: names, in alphabetical order.
    """

    images: ImageList
    labels: np.ndarray
    classes: list[str]

    @property
    def digest(self) -> str:
        """SHA-256 of the names and the labels, which identifies the data set in results."""
        content = [
            self.images.digest.encode(),
            self.labels.tobytes(),
            *map(os.fsencode, self.classes),
        ]
        return hashlib.sha256(b"\0".join(content)).hexdigest()


def find_train_and_val(data: str | Path, reading: Reading = AS_STORED) -> tuple[Labelled, Labelled]:
    """The images of `data`/train and `data`/val, with a folder for each class.

    val may also have Tiny-ImageNet's `val_annotations.txt` for the classes. A split may be a list
    like Places205's, `data`/train.txt, with a path below `data` and its class on each line.

    Raises:
        InputError: one is missing, has no classes, or val has a class that train lacks.
    """
    found = (_find_split(Path(data), split) for split in ("train", "val"))
    train, val = (replace(images, reading=reading) for images in found)
    if train.labels is None:
        raise InputError(f"{train.root}: needs a folder of images for each of at least 2 classes")
    classes = sorted(set(train.folders))
    if set(val.folders) == {"."}:
        raise InputError(
            f"{val.root}: has neither a folder for each class nor Tiny-ImageNet's {ANNOTATIONS}"
        )
    if unknown := sorted(set(val.folders) - set(classes)):
        raise InputError(
            f"{val.root}: has a class {shorten(unknown[0])!r}, which {train.root} lacks "
            f"({len(classes)} classes: {', '.join(map(shorten, classes[:3]))} …)"
        )
    warn_of_lost_levels(train)
    return _label(train, classes), _label(val, classes)


def check_readable(unreadable: int, images: int, use: str) -> None:
    """Check that nearly all images of a split can be read.

    Args:
        unreadable: how many of the `images` cannot be read.
        use: their use, for the message, such as "train on".

    Raises:
        InputError: too many cannot be read.
    """
    if unreadable > MOST_UNREADABLE * images:
        raise InputError(
            f"--data: more than {MOST_UNREADABLE:.0%} of the images to {use} are unreadable "
            f"({unreadable} of {images}, named above); repair or remove them"
        )


def _label(images: ImageList, classes: list[str]) -> Labelled:
    number = {name: i for i, name in enumerate(classes)}
    labels = np.array([number[folder] for folder in images.folders], np.int64)
    return Labelled(images, labels, classes)


def _find_split(data: Path, split: str) -> ImageList:
    if (data / split).is_dir():
        found = data / split / ANNOTATIONS
        return _from_annotations(found) if found.is_file() else find_images(data / split)
    if (data / f"{split}.txt").is_file():
        return _from_list(data / f"{split}.txt")
    raise InputError(
        f"{data}: needs {split}/ with a folder per class, or {split}.txt with an image and its "
        "class on each line"
    )


def _from_list(path: Path) -> ImageList:
    try:
        rows = [line.rsplit(maxsplit=1) for line in read_text(path).split("\n") if line.strip()]
        files = Files(path.parent, [row[0] for row in rows], [row[1] for row in rows])
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f"{path}: not lines of an image and its class") from error
    if not files.names or not os.path.isfile(files.path(0)):  # noqa: PTH113 (of any text)
        named = shorten(files.path(0)) if files.names else "no image"
        raise InputError(
            f"{path}: names {named}, which is not there; paths are below {path.parent}"
        )
    return ImageList(files)


def _from_annotations(annotations: Path) -> ImageList:
    files = find_below(annotations.parent)
    try:
        lines = read_text(annotations).split("\n")
        of = dict(line.split()[:2] for line in lines if line.strip())
        folders = [of[Path(path).name] for path in files.names]
    except (OSError, ValueError) as error:
        raise InputError(f"{annotations}: not lines of an image and its class") from error
    except KeyError as error:
        raise InputError(f"{annotations}: has no class for the image {shorten(error)}") from error
    return ImageList(replace(files, folders=folders))
