"""A data set with labels, split into train and val."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.images import ImageList, find_images
from errors import InputError

ANNOTATIONS = "val_annotations.txt"  # Tiny-ImageNet's: image, class, and its box


@dataclass(frozen=True)
class Labelled:
    """Images and the classes that they show.

    Attributes:
        labels: `(N,) int64`, each a number of a class.
        classes: names, in alphabetical order.
    """

    images: ImageList
    labels: np.ndarray
    classes: list[str]


def find_train_and_val(data: str | Path) -> tuple[Labelled, Labelled]:
    """The images of `data`/train and `data`/val, with a folder for each class; val may also be as
    Tiny-ImageNet has it, with the classes in `val_annotations.txt`.

    Raises:
        InputError: one is missing, has no classes, or val has a class that train lacks.
    """
    train, val = find_images(Path(data) / "train"), _find_val(Path(data) / "val")
    if train.labels is None:
        raise InputError(f"{train.root}: needs a folder of images for each of at least 2 classes")
    classes = sorted(set(train.folders))
    if unknown := sorted(set(val.folders) - set(classes)):
        raise InputError(
            f"{val.root}: has a class {unknown[0]!r}, which {train.root} has not "
            f"({len(classes)} classes: {', '.join(classes[:3])} …)"
        )
    return _label(train, classes), _label(val, classes)


def _label(images: ImageList, classes: list[str]) -> Labelled:
    number = {name: i for i, name in enumerate(classes)}
    labels = np.array([number[folder] for folder in images.folders], np.int64)
    return Labelled(images, labels, classes)


def _find_val(root: Path) -> ImageList:
    annotations = root / ANNOTATIONS
    if not annotations.is_file():
        return find_images(root)
    images = find_images(root)
    try:
        lines = annotations.read_text(encoding="utf-8").splitlines()
        of = dict(line.split()[:2] for line in lines if line.strip())
        folders = [of[Path(path).name] for path in images.paths]
    except (OSError, ValueError) as error:
        raise InputError(f"{annotations}: not lines of an image and its class") from error
    except KeyError as error:
        raise InputError(f"{annotations}: has no class for the image {error}") from error
    return ImageList(images.root, images.paths, folders)
