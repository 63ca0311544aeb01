"""Exact and near duplicates among images, from their features and their files."""

import codecs
import csv
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cluster.duplicates import near_duplicates
from data.decode import UnreadableImageError, count_pixels
from data.images import ImageList
from system.errors import InputError, shorten
from system.files import atomic_write
from system.progress import progress

BEST, COPY, NEAR = "best", "exact copy", "near duplicate"  # kinds
COLUMNS = ("group", "kind", "path", "pixels", "bytes")


@dataclass(frozen=True)
class Duplicate:
    """An image of a group of duplicates.

    Attributes:
        index: of the image.
        group: number of the group, from 0.
        kind: `BEST` for the image to keep, which has the most pixels and of equal ones the most
            bytes; `COPY`, the same bytes as one before it in the group; or else `NEAR`.
        pixels, size: of the image, and bytes of its file.
    """

    index: int
    group: int
    kind: str
    pixels: int
    size: int


def find_duplicates(images: ImageList, rows: np.ndarray, distance: float) -> list[Duplicate]:
    """The groups of images that are nearly the same, the largest first, of equal ones by their
    first images; each with the best image first. Reads only the files of images in groups. Shows
    its progress.

    Args:
        images: N images that can be read.
        rows: `(N, d) float32`, their L2-normalised features.
        distance: cosine distance of near duplicates, as of `near_duplicates`.

    Raises:
        ValueError: the distance is out of range.
        InputError: a file can't be read any more.
    """
    with progress("pairs of images", len(rows), "images") as advance:
        groups = near_duplicates(rows, distance, advance)
    members: dict[int, list[_File]] = {}
    found = np.flatnonzero(groups >= 0).tolist()
    with progress("files of duplicates", len(found), "files") as advance:
        for index in found:
            members.setdefault(int(groups[index]), []).append(_look_at(images, index))
            advance(1)
    largest_first = sorted(members.values(), key=lambda files: -len(files))
    return [each for group, files in enumerate(largest_first) for each in _ranked(group, files)]


def largest_group(found: Sequence[Duplicate]) -> int:
    """The images in the largest of the groups that have more than exact copies."""
    uncertain = {each.group for each in found if each.kind == NEAR}
    sizes = Counter(each.group for each in found if each.group in uncertain)
    return max(sizes.values(), default=0)


@dataclass(frozen=True)
class _File:
    index: int
    pixels: int
    size: int
    digest: str


def _look_at(images: ImageList, index: int) -> _File:
    try:
        with images.open(index) as file:
            content = file.read()
            pixels = count_pixels(file, images.reading)
    except (UnreadableImageError, OSError) as error:
        reason = f"cannot read this image any more: {shorten(error)}"
        raise InputError(f"{images.where(index)}: {reason}") from error
    return _File(index, pixels, len(content), hashlib.sha256(content).hexdigest())


def _ranked(group: int, files: list[_File]) -> Iterator[Duplicate]:
    """The files of a group, the best first."""
    seen = set[str]()
    for file in sorted(files, key=lambda file: (-file.pixels, -file.size, file.index)):
        kind = COPY if file.digest in seen else NEAR if seen else BEST
        yield Duplicate(file.index, group, kind, file.pixels, file.size)
        seen.add(file.digest)


def write_duplicates(path: Path, images: ImageList, found: list[Duplicate]) -> None:
    """Write a CSV with a line for each image of a group."""
    with atomic_write(path) as file:
        writer = csv.writer(codecs.getwriter("utf-8")(file, "surrogateescape"), lineterminator="\n")
        writer.writerow(COLUMNS)
        for each in found:
            name = images.names[each.index]
            writer.writerow([each.group, each.kind, name, each.pixels, each.size])
