"""Some of the labelled images to train on: a share of each class, or the images of a list."""

import argparse
import os
from pathlib import Path

import numpy as np

from data.images import ImageList
from data.labelled import Labelled
from data.lists import read_lines
from system import cli
from system.errors import InputError, shorten
from system.seeding import derive_seed

ALL = 100.0  # percent


def add_subset_flags(parser: argparse.ArgumentParser) -> None:
    """`--percent` and `--subset`, of which at most one can be given."""
    add = parser.add_mutually_exclusive_group().add_argument
    percent_help = (
        "train on this percentage of each class, drawn with --seed, but at least one image; left "
        "out: all images"
    )
    add("--percent", metavar="P", type=cli.percentage, help=percent_help)
    subset_help = "train on the images whose file names this text file lists, one a line"
    add("--subset", metavar="FILE", type=Path, help=subset_help)


def chosen_subset(args: argparse.Namespace, train: Labelled) -> tuple[Labelled, float]:
    """The images that `add_subset_flags` choose, and their percentage.

    Raises:
        InputError: as `listed`.
    """
    if args.subset is not None:
        found = listed(train, args.subset)
        return found, 100 * len(found.images) / len(train.images)
    percent = ALL if args.percent is None else args.percent
    return drawn(train, percent, args.seed), percent


def drawn(train: Labelled, percent: float, seed: int) -> Labelled:
    """A random share of each class, rounded to whole images, but at least one. A smaller share with
    the same seed is part of a larger one."""
    counts = np.bincount(train.labels, minlength=len(train.classes))
    quotas = np.maximum(np.rint(counts * percent / 100), 1)
    rng = np.random.default_rng(derive_seed(seed, "subset"))
    order = rng.permutation(len(train.labels))
    order = order[np.argsort(train.labels[order], kind="stable")]
    place_in_class = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return train.take(np.sort(order[place_in_class < np.repeat(quotas, counts)]))


def listed(train: Labelled, path: Path) -> Labelled:
    """The images that a text file lists: on each line a file name, as in SimCLR's lists, or a path
    below the folder of the images.

    Raises:
        InputError: the file is not such a list, names an image that `train` lacks or has several
            of, or leaves a class without an image.
    """
    try:
        lines = read_lines(path, "not a text file with a file name on each line")
    except InputError as error:
        raise InputError(f"--subset {error}") from error
    found = train.take(np.unique(_places(path, [line for _, line in lines], train.images)))
    shown = set(found.labels.tolist())
    empty = [name for number, name in enumerate(train.classes) if number not in shown]
    if empty:
        raise InputError(
            f"--subset {path}: has no image of {len(empty)} of the {len(train.classes)} classes in "
            f"{train.images.root}, the first of which is {shorten(empty[0])!r}"
        )
    return found


def _places(path: Path, lines: list[str], images: ImageList) -> list[int]:
    """The index of the image on each line of a list: its file name or its whole name, perhaps
    between blanks."""
    wanted = {*lines, *(line.strip() for line in lines)}
    by_file: dict[str, int] = {}
    by_name: dict[str, int] = {}
    several = set()
    for index, name in enumerate(images.names):
        file = os.path.basename(name)  # noqa: PTH119 (hot)
        if file in wanted:
            several |= {file} & by_file.keys()
            by_file[file] = index
        if name in wanted:
            by_name[name] = index
    place = by_file | by_name
    lines = [line if line in place else line.strip() for line in lines]
    missing = [line for line in lines if line not in place]
    if len(missing) == len(lines):
        first = f" (the first is {shorten(missing[0])!r})" if lines else ""
        raise InputError(
            f"--subset {path}: none of its {len(lines)} lines{first} is the name of an image in "
            f"{images.root}; give names such as {file}"
        )
    if missing:
        raise InputError(
            f"--subset {path}: {len(missing)} of its {len(lines)} images are not in {images.root}, "
            f"the first of which is {shorten(missing[0])!r}"
        )
    if unclear := next((line for line in lines if line in several), None):
        raise InputError(
            f"--subset {path}: {images.root} has several images called {shorten(unclear)!r}; give "
            f"paths such as {images.names[by_file[unclear]]}"
        )
    return [place[line] for line in lines]
