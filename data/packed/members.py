"""Which members of a tar or a zip are images, and their labels."""

import os
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable

from data.decode import image_extensions
from data.folder import UNLABELLED
from data.packed.entries import Found, first_folder, in_order
from data.sieve import NO_EXTENSION, describe_systems, is_left_by_system, kind_of_system, most_of
from system.names import printable

BESIDE = frozenset({".cls", ".json", ".txt"})  # what WebDataset and img2dataset write for an image
BEST = (".jpg", ".jpeg", ".png", ".webp")  # of several images in a sample


def images_among(
    members: Iterable[Found], text_of: Callable[[Found], str | None]
) -> tuple[list[Found], list[str]]:
    """The images in a folder's order, and lines about members that are left out.

    Args:
        members: the regular files, with `plain_name`s.
        text_of: reads a `.cls`; None if it has no label.
    """
    named, notes = _one_of_each_name(members)
    images, beside, others = _sorted_out(named)
    images, extra = _one_of_each_sample(images, beside)
    labels = {key: text_of(member) for key, member in beside.items() if _ending(member) == ".cls"}
    unclear = [beside[key].name for key, text in labels.items() if text is None]
    found = [
        each._replace(label=labels.get(_key(each), first_folder(each.name)) or UNLABELLED)
        for each in images
    ]
    if others:
        what = "member is no image" if others.total() == 1 else "members are no images"
        notes.append(f"{others.total():,} {what} by name, left out ({most_of(others)})")
    more = [each.name for each in extra]
    notes += such_as(more, "more image|s of the same sample|s", "left out")
    notes += such_as(unclear, "label|s in .cls can't be read as UTF-8", "taken as none")
    return in_order(found), notes


def plain_name(name: str) -> str:
    """A member's name as it would be below a folder: `./a//b` is `a/b`."""
    return posixpath.normpath(name)


def _one_of_each_name(members: Iterable[Found]) -> tuple[Iterable[Found], list[str]]:
    """The last member of each name, without those that a system left, or that would be outside of
    the folder that the container is unpacked into; and lines about the others."""
    last: dict[str, Found] = {}
    twice: dict[str, None] = {}
    outside, systems = list[str](), Counter[str]()
    for each in members:
        if each.name.startswith(("/", "../")):
            outside.append(each.name)
        elif found := next(filter(is_left_by_system, each.name.split("/")), None):
            systems[kind_of_system(found)] += 1
        else:
            twice |= {each.name: None} if each.name in last else {}
            last[each.name] = each
    notes = [describe_systems(systems)] if systems else []
    notes += such_as(outside, "name|s with .. or / at the start", "left out")
    notes += such_as(list(twice), "name|s of several members", "the last one counts")
    return last.values(), notes


def such_as(names: list[str], what: str, then: str) -> list[str]:
    """A line about names, or none. In `what`, a | stands before an s of the plural."""
    if not names:
        return []
    what = what.replace("|s", "" if len(names) == 1 else "s")
    return [f"{len(names):,} {what}, such as {printable(names[0])}; {then}"]


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
            others[ending or NO_EXTENSION] += 1
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
