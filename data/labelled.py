"""A data set with labels, split into train and val."""

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data.coded import coded
from data.folder import FLAT, find_below
from data.images import ImageList, find_images, give_labels
from data.levels import warn_of_lost_levels
from data.lists import read_list
from data.packed.find import find_packed
from data.reading import AS_STORED, Reading
from data.sieve import look_alike
from data.unreadable import MOST_UNREADABLE, remedy
from parallel.collectives import gather_objects
from system.errors import InputError, shorten
from system.names import read_text

ANNOTATIONS = "val_annotations.txt"  # Tiny-ImageNet's: image, class, and its box
LISTS = (".txt", ".csv")  # endings


@dataclass(frozen=True)
class Labelled:
    """Images and their classes.

    Attributes:
        labels: `(N,) int64`, indices into `classes`; if images have several labels, `(N, C) int8`,
            see `data.voc.VocSplit`.
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

    def take(self, indices: np.ndarray) -> "Labelled":
        """Some of the images, in that order, with the same classes."""
        return replace(self, images=self.images.take(indices), labels=self.labels[indices])


def find_train_and_val(
    data: str | Path, reading: Reading = AS_STORED, labels: Path | None = None
) -> tuple[Labelled, Labelled]:
    """The images of `data`/train and `data`/val, with a folder for each class.

    val may also have Tiny-ImageNet's `val_annotations.txt` for the classes. A split may be a list
    like Places205's, `data`/train.txt, with a path below `data` and its class on each line; or
    tars, zips or Parquet files whose names say train or val. Images without a class are left out.

    Args:
        labels: file of `--labels`, with the classes of both splits.

    Raises:
        InputError: one is missing, has no classes, or val has a class that train lacks; or the
            labels don't fit.
    """
    found = give_labels(
        labels, *(_find_split(Path(data), split) for split in ("train", "val")), above=[Path(data)]
    )
    train, val = (replace(images, reading=reading) for images in found)
    if train.labels is None and labels is not None:
        raise InputError(f"--labels {labels}: needs images of at least 2 classes in {train.place}")
    if train.labels is None:
        raise InputError(
            f"{train.place}: needs labels of at least 2 classes: a folder of images for each; in "
            "tars .cls files, in Parquet a column"
        )
    train, val = train.labelled(), val.labelled()
    classes = train.classes
    if val.classes == [FLAT]:
        raise InputError(
            f"{val.root}: has neither a folder for each class nor Tiny-ImageNet's {ANNOTATIONS}"
        )
    if unknown := sorted(set(val.classes) - set(classes)):
        for alike in look_alike([unknown[0], *classes]):
            if unknown[0] in alike:
                raise InputError(
                    f"{val.root}: its class {unknown[0]!a} differs from {train.root}'s only in "
                    f"Unicode normal form ({' and '.join(map(ascii, alike))}); rename the folder"
                )
        raise InputError(
            f"{val.root}: has a class {shorten(unknown[0])!r}, which {train.root} lacks "
            f"({len(classes)} classes: {', '.join(map(shorten, classes[:3]))} …)"
        )
    warn_of_lost_levels(train)
    return _label(train, classes), _label(val, classes)


def check_readable(unreadable: int, images: int, use: str, reasons: Iterable[str]) -> None:
    """Check that nearly all images of a split can be read. All processes call this together.

    Args:
        unreadable: how many of the `images` cannot be read.
        use: their use, for the message, such as "train on".
        reasons: why this process could not read some.

    Raises:
        InputError: too many cannot be read.
    """
    if unreadable > MOST_UNREADABLE * images:
        of_all = {reason for each in gather_objects(set(reasons)) for reason in each}
        raise InputError(
            f"--data: more than {MOST_UNREADABLE:.0%} of the images to {use} are unreadable "
            f"({unreadable} of {images}, named above); {remedy(of_all)}"
        )


def _label(images: ImageList, classes: list[str]) -> Labelled:
    number = {name: i for i, name in enumerate(classes)}
    folders = coded(images.folders)
    labels = np.array([number[text] for text in folders.texts], np.int64)[folders.numbers]
    return Labelled(images, labels, classes)


def _find_split(data: Path, split: str) -> ImageList:
    """The images of a split, in the first of its possible places that has labelled ones."""
    places: dict[Path, Callable[[Path], ImageList]] = {data / split: _from_folder}
    places |= {data / f"{split}{ending}": _from_list for ending in LISTS}
    found, errors = [], []
    for place, read in places.items():
        if not place.exists():
            continue
        try:
            images = read(place)
        except InputError as error:
            errors.append(error)
            continue
        if images.classes != [FLAT]:
            return images
        found.append(images)
    if found:
        return found[0]
    if errors:
        raise errors[0]
    if (packed := find_packed(Path(f"{data}:{split}"))) is not None:
        return ImageList(packed)
    raise InputError(
        f"{data}: needs {split}/ with a folder per class, or {split}.txt or .csv with an image "
        f"and its class on each line, or containers called {split}"
    )


def _from_folder(folder: Path) -> ImageList:
    annotations = folder / ANNOTATIONS
    if not annotations.is_file():
        return find_images(folder)
    try:
        return _from_annotations(annotations)
    except InputError:  # left behind when the images were moved into class folders?
        found = find_images(folder)
        if found.labels is None:
            raise
        return found


def _from_list(path: Path) -> ImageList:
    return ImageList(read_list(path, needs_labels=True))


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
