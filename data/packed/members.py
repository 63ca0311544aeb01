"""Which members of a tar or a zip are images, and their labels."""

import os
from collections import Counter
from collections.abc import Callable, Iterable

from data.decode import image_extensions
from data.packed.entries import Found, first_folder, in_order
from data.sieve import is_left_by_system, most_of
from system.names import printable

BESIDE = frozenset({".cls", ".json", ".txt"})  # what WebDataset and img2dataset write for an image
BEST = (".jpg", ".jpeg", ".png", ".webp")  # of several images in a sample


def images_among(
    members: Iterable[Found], text_of: Callable[[Found], str]
) -> tuple[list[Found], list[str]]:
    """The images in a folder's order, and lines about members that are left out.

    Args:
        members: the regular files.
        text_of: reads a `.cls`.
    """
    last: dict[str, Found] = {}
    twice: dict[str, None] = {}
    for each in members:
        if not _is_hidden(each.name):
            twice |= {each.name: None} if each.name in last else {}
            last[each.name] = each
    images, beside, others = _sorted_out(last.values())
    images, extra = _one_of_each_sample(images, beside)
    labels = {key: text_of(member) for key, member in beside.items() if _ending(member) == ".cls"}
    found = [
        each._replace(label=labels.get(_key(each), first_folder(each.name))) for each in images
    ]
    notes = []
    if twice:
        what = "name occurs" if len(twice) == 1 else "names occur"
        name = printable(next(iter(twice)))
        notes.append(f"{len(twice):,} {what} twice, such as {name}; the last one counts")
    if others:
        what = "member is no image" if others.total() == 1 else "members are no images"
        notes.append(f"{others.total():,} {what} by name, left out ({most_of(others)})")
    if extra:
        what = "image" if len(extra) == 1 else "images"
        name = printable(extra[0].name)
        notes.append(f"{len(extra):,} more {what} of the same samples, such as {name}, left out")
    return in_order(found), notes


def _sorted_out(
    members: Iterable[Found],
) -> tuple[list[Found], dict[tuple[str, str], Found], Counter[str]]:
    """The images, the descriptions by key (first a `.cls`), and a count of other endings."""
    extensions = image_extensions()
    images, others = [], Counter[str]()
    beside: dict[tuple[str, str], Found] = {}
    for each in members:
        ending = _ending(each)
        if ending in extensions:
            images.append(each)
        elif ending not in BESIDE:
            others[ending or "without an extension"] += 1
        elif ending == ".cls" or _key(each) not in beside:
            beside[_key(each)] = each
    return images, beside, others


def _one_of_each_sample(
    images: list[Found], beside: dict[tuple[str, str], Found]
) -> tuple[list[Found], list[Found]]:
    """The images to take, and the others of their samples. A sample is an image with a description,
    or one whose name has no dot but that of its ending."""
    best: dict[tuple[str, str], Found] = {}
    for each in images:
        key = _key(each)
        plain = "." not in each.name[: -len(_ending(each))].rpartition("/")[2]
        if key in beside or plain:
            best[key] = min(best.get(key, each), each, key=_rank)
    taken: list[Found] = []
    extra: list[Found] = []
    for each in images:
        key = _key(each)
        of_sample = key in best and (key in beside or _rank(best[key])[0] < _rank(each)[0])
        (extra if of_sample and best[key] is not each else taken).append(each)
    return taken, extra


def _rank(member: Found) -> tuple[int, int, str]:
    """The shortest ending counts as a sample's image, then the usual formats."""
    name, ending = member.name.rpartition("/")[2], _ending(member)
    return name.count("."), BEST.index(ending) if ending in BEST else len(BEST), name


def _key(member: Found) -> tuple[str, str]:
    """WebDataset's key: the name up to the first dot of its last part."""
    folder, _, name = member.name.rpartition("/")
    return folder, name.partition(".")[0]


def _ending(member: Found) -> str:
    return os.path.splitext(member.name)[1].lower()  # noqa: PTH122 (hot)


def _is_hidden(name: str) -> bool:
    return any(map(is_left_by_system, name.split("/")))
