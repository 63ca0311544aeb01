"""`--labels FILE.csv`: the labels of images whose folders are none."""

import argparse
import csv
import os
from collections.abc import Sequence
from pathlib import Path

from data.lists import LABELS, PATHS, read_lines
from system.errors import InputError, shorten

HELP = (
    "table of a path and a label for each image, which replace the folders as labels; paths are "
    "absolute, or relative to the images' folder, the current one or the table's"
)
NO_TEXT = "not a table of paths and labels"


def add_labels_flag(parser: argparse.ArgumentParser) -> None:
    """`--labels`."""
    parser.add_argument("--labels", metavar="FILE.csv", type=Path, help=HELP)


def read_labels(
    file: Path, images: Sequence[str], folders: Sequence[Path], exact: bool = True
) -> list[str]:
    """The label of each image, "" for none.

    Args:
        file: CSV: a path and a label on each line, or a header that names these columns.
        images: the path of each image.
        folders: that paths may be relative to, besides the current folder and the file's: all to
            the same one, that by which most of them are images.
        exact: the file must have these images and no others.

    Raises:
        InputError: the file can't be read; a path is no image, or occurs twice; an image is
            missing; or no image has a label.
    """
    rows = _rows(file)
    place = {os.path.abspath(path): number for number, path in enumerate(images)}  # noqa: PTH100
    bases = [os.path.abspath(base) for base in (*folders, Path(), file.parent)]  # noqa: PTH100
    tried = [[_place(place, base, path) for _, path, _ in rows] for base in bases]
    found = max(tried, key=lambda each: sum(number is not None for number in each))
    labels: list[str | None] = [None] * len(images)
    for (line, path, label), number in zip(rows, found, strict=True):
        if number is None and not exact:
            continue
        if number is None:
            raise InputError(
                f"--labels {file}:{line}: {shorten(path)!r} is none of the {len(images):,} images; "
                "give absolute paths, or relative ones to the images' folder, the current one or "
                "the table's"
            )
        if labels[number] is not None:
            raise InputError(f"--labels {file}:{line}: has {shorten(path)!r} again; give it once")
        labels[number] = label
    if exact and None in labels:
        raise InputError(
            f"--labels {file}: lacks {labels.count(None):,} of the {len(images):,} images, such as "
            f"{images[labels.index(None)]}; give each a line, with an empty label if it has none"
        )
    if exact and not any(labels):
        raise InputError(f"--labels {file}: has no label, only empty ones; give some")
    return [label or "" for label in labels]


def _place(place: dict[str, int], base: str, path: str) -> int | None:
    return place.get(os.path.normpath(os.path.join(base, path)))  # noqa: PTH118 (absolute wins)


def _rows(file: Path) -> list[tuple[int, str, str]]:
    """The number, the path and the label of each line."""
    try:
        lines = read_lines(file, NO_TEXT)
    except InputError as error:
        raise InputError(f"--labels {error}") from error
    rows = [(number, next(csv.reader([line], skipinitialspace=True))) for number, line in lines]
    if not rows:
        raise InputError(f"--labels {file}: is empty")
    path, label = 0, 1
    head = [field.strip().lower() for field in rows[0][1]]
    paths, labels = (
        [at for at, name in enumerate(head) if name in known] for known in (PATHS, LABELS)
    )
    headed = bool(paths and labels)
    if headed:
        path, label, rows = paths[0], labels[0], rows[1:]
    for number, fields in rows:
        if len(fields) <= max(path, label) or (not headed and len(fields) > 2):
            shown = shorten(",".join(fields))
            raise InputError(
                f"--labels {file}:{number}: {shown!r} is not a path and a label; give both on each "
                "line, or a header with path,label"
            )
    return [(number, fields[path].strip(), fields[label].strip()) for number, fields in rows]
