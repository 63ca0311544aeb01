"""`images.txt`: a line for each image; for images in containers, one for each container."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from data.images import ImageList
from data.packed.find import find_packed
from data.packed.packed import Packed
from system.errors import InputError, shorten
from system.files import atomic_write
from system.names import from_lines, printable, to_line, to_lines

HEAD = "//containers, with the number of images in each; SHA-256 of the images' names: "
FIRST_LINE = re.compile(re.escape(HEAD) + r"([0-9a-f]{64})\n")


def to_listing(images: ImageList) -> str:
    """The text of `images.txt`."""
    source = images.source
    if not isinstance(source, Packed):
        return to_lines(images.names)
    containers = source.containers
    starts = np.flatnonzero(np.diff(containers, prepend=-1))
    counts = np.diff(starts, append=len(containers)).tolist()
    names = (source.index.containers[each] for each in containers[starts])
    lines = (f"{name}\t{count}" for name, count in zip(names, counts, strict=True))
    return f"{HEAD}{images.digest}\n{to_lines(lines)}"


def write_names(path: Path, names: Iterable[str]) -> None:
    """Write an `images.txt` with a line for each image, name by name: there may be 100 million."""
    with atomic_write(path) as file:
        for name in names:
            file.write(f"{to_line(name)}\n".encode("utf-8", "surrogateescape"))


def lines_of(text: str) -> list[str]:
    """The names, or the lines of the containers, in an `images.txt`."""
    return from_lines(FIRST_LINE.sub("", text, count=1))


def packed_again(text: str, places: list[Path]) -> ImageList | None:
    """The images of an `images.txt` with containers, in the first place that has them; None if it
    lists files.

    Raises:
        InputError: no place has them.
    """
    head = FIRST_LINE.match(text)
    if head is None:
        return None
    try:
        images = sum(int(line.rpartition("\t")[2]) for line in lines_of(text))
    except ValueError as error:
        raise InputError(f"{places[0]}: the listing of its containers is damaged") from error
    reasons: list[str] = []
    for place in places:
        try:
            source = find_packed(place, quiet=True)
        except (
            InputError,
            OSError,
            ValueError,
        ) as error:  # ValueError: a text that can't be a name
            reasons.append(shorten(error))
            continue
        if source is not None and len(source.names) > images:  # --size_dataset
            source = source.take(np.arange(images))
        if source is not None and source.digest == head[1]:
            return ImageList(source)
        if source is not None:
            reasons.append(_difference(text, source, images))
    why = f" ({reasons[0]})" if reasons else ""
    advice = "; give their place as --data" if len(places) > 1 else ""
    raise InputError(
        f"{places[0]}: the run's containers of images are gone, or hold other images now"
        f"{why}{advice}"
    )


def _difference(text: str, source: Packed, images: int) -> str:
    """How containers differ from those of an `images.txt` with a number of images."""
    if len(source.names) != images:
        return f"{len(source.names):,} images there, {images:,} in the run"
    before, now = lines_of(text), lines_of(to_listing(ImageList(source)))
    for old, new in zip(before, now, strict=False):
        if old != new:
            old, new = (line.replace("\t", ", images: ") for line in (old, new))
            return f"{shorten(new)} there, {shorten(old)} in the run"
    return f"images have other names there, such as {shorten(source.names[0])}"


def describe_change(before: Sequence[str], now: Sequence[str]) -> str:
    """Describe how a data set's images changed, given their names."""
    old, new = set(before), set(now)
    added = [name for name in now if name not in old]
    removed = [name for name in before if name not in new]
    changes = [
        f"{len(names):,} {how}, such as {printable(names[0])}"
        for names, how in ((added, "added"), (removed, "removed"))
        if names
    ]
    counts = f"{len(before):,} there, {len(now):,} now"
    return f"{counts}: {', '.join(changes) or 'the same names in another order'}"
