"""Which containers a path means: a file, a folder, a pattern, each with a split behind a colon."""

import glob
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.folder import containers_below
from data.packed.kinds import KINDS, kind_of
from system.errors import InputError, shorten

SPLITS = {  # words in names of files and folders, and the split that they mean
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")
MOST_NAMES = 10_000_000  # from the braces of a pattern


@dataclass(frozen=True)
class Containers:
    """Containers of one kind, in their order.

    Attributes:
        given: what they were found by, for messages.
        root: the folder that the names are relative to.
        names: of the files.
        kind: "tar", "parquet" or "zip".
        notes: lines about files that are left out.
    """

    given: str
    root: Path
    names: list[str]
    kind: str
    notes: list[str]


def find_containers(path: Path) -> Containers | None:
    """The containers that a path means, or None if it means none.

    Raises:
        InputError: a pattern matches nothing, splits or kinds are mixed, or a split is missing.
    """
    start, _, word = os.fspath(path).rpartition(":")
    split = None
    if start and word in SPLITS and not os.path.exists(path):  # noqa: PTH110 (any text)
        path, split = Path(start), SPLITS[word]
    if path.is_dir():
        return select_containers(path, containers_below(path), split)
    found = _matched(path)
    return None if found is None else _select(path, *found, split)


def why_nothing(path: Path) -> str:
    """Why there are no images at a path that doesn't exist, and for which `find_containers` finds
    nothing: at the end of a message."""
    start, _, word = os.fspath(path).rpartition(":")
    if not start or not os.path.exists(start):  # noqa: PTH110 (any text)
        return "no such folder or file"
    paths = containers_below(Path(start)) if os.path.isdir(start) else [start]  # noqa: PTH112
    names = [os.path.relpath(each, start) for each in paths if kind_of(each)]
    if not names:
        return f":{word} would choose a split of tars, zips or Parquet files, and there are none"
    if known := sorted(filter(None, set(map(split_of, names)))):
        return f"no split is called {shorten(word)!r}; there are {' and '.join(known)}"
    return f"no split is called {shorten(word)!r}, and the containers' names name none"


def select_containers(
    folder: Path, paths: Sequence[str], split: str | None = None
) -> Containers | None:
    """Those of the containers below a folder that it means, or None if there are none.

    Raises:
        InputError: as `find_containers`.
    """
    return _select(folder, folder, paths, split) if paths else None


def merged(several: Sequence[Containers]) -> Containers:
    """Containers of one kind, one after the other."""
    first = several[0]
    if len(several) == 1:
        return first
    root, paths = _root_of([os.path.join(one.root, name) for one in several for name in one.names])  # noqa: PTH118
    names = [os.path.relpath(path, root) for path in paths]
    notes = [f"{one.given}: {note}" for one in several for note in one.notes]
    return Containers(
        f"{first.given} and {len(several) - 1:,} more", root, names, first.kind, notes
    )


def natural(name: str) -> tuple[list[tuple[bool, int, str]], str]:
    """A key that sorts names by the numbers in them: `2.tar` before `10.tar`."""
    parts = re.findall(r"([0-9]+)|([^0-9]+)", name)
    return [(not digits, int(digits or 0), text) for digits, text in parts], name


def _matched(path: Path) -> tuple[Path, list[str]] | None:
    """The folder above the container files that a path or pattern names, and these, unsorted."""
    if path.is_file():
        return (path.parent, [os.fspath(path)]) if kind_of(path) else None
    text = os.fspath(path)
    if not glob.has_magic(text) and not BRACES.search(text):
        return None
    found = [each for each in _matching(text) if kind_of(each)]
    if not found:
        raise InputError(f"{text}: matches no file that ends in {', '.join(KINDS)}")
    return _root_of(found)


def _root_of(paths: list[str]) -> tuple[Path, list[str]]:
    """The folder above all files, and the files, absolute if one is."""
    if len({os.path.isabs(each) for each in paths}) > 1:  # noqa: PTH117 (any text)
        paths = [os.path.abspath(each) for each in paths]  # noqa: PTH100
    return Path(os.path.commonpath([os.path.dirname(each) or "." for each in paths])), paths  # noqa: PTH120


def _matching(pattern: str) -> list[str]:
    """The files that a pattern with braces and wildcards matches.

    Raises:
        InputError: a name that braces give is no file.
    """
    found: list[str] = []
    for name in _expanded(pattern):
        if glob.has_magic(name):
            found += filter(os.path.isfile, glob.glob(name))  # noqa: PTH207 (any text)
        elif os.path.isfile(name):  # noqa: PTH113 (any text)
            found.append(name)
        else:
            raise InputError(f"{pattern}: there is no file {shorten(name)}")
    return list(dict.fromkeys(found))


def _expanded(pattern: str) -> Iterator[str]:
    pieces: list[Sequence[str]] = []
    end, count = 0, 1
    for brace in BRACES.finditer(pattern):
        pieces += [[pattern[end : brace.start()]], choices := _choices(pattern, brace[1])]
        end, count = brace.end(), count * len(choices)
        if count > MOST_NAMES:
            raise InputError(f"{pattern}: its braces give more than {MOST_NAMES:,} names")
    return map("".join, itertools.product(*pieces, [pattern[end:]]))


def _choices(pattern: str, inner: str) -> list[str]:
    if (span := RANGE.fullmatch(inner)) is None:
        return inner.split(",")
    width, (first, last) = len(span[1]), sorted(map(int, span.groups()))
    if last - first >= MOST_NAMES:
        raise InputError(f"{pattern}: its braces give more than {MOST_NAMES:,} names")
    return [f"{number:0{width}d}" for number in range(first, last + 1)]


def _select(given: Path, root: Path, paths: Sequence[str], split: str | None) -> Containers:
    names = sorted((os.path.relpath(path, root) for path in paths), key=natural)
    kind, names, notes = _of_one_kind(given, names)
    by_split: dict[str | None, list[str]] = {}
    for name in names:
        by_split.setdefault(split_of(name), []).append(name)
    known = sorted(filter(None, by_split))
    if split is not None:
        if split not in by_split:
            there = f"has only {' and '.join(known)}" if known else "its names name no split"
            raise InputError(f"{given}: no container of the split {split}: {there}")
        return Containers(f"{given}:{split}", root, by_split[split], kind, notes)
    if len(by_split) == 1:
        return Containers(os.fspath(given), root, names, kind, notes)
    sizes = {each: len(by_split[each]) for each in known}
    counts = ", ".join(f"{each} ({n} file{'s' if n > 1 else ''})" for each, n in sizes.items())
    if None in by_split:
        raise InputError(
            f"{given}: some containers belong to a split by name ({counts}) and others, such as "
            f"{shorten(by_split[None][0])}, to none; choose with a pattern or {given}:{known[0]}"
        )
    if "train" not in by_split:
        choice = " or ".join(f"{given}:{each}" for each in known)
        raise InputError(f"{given}: holds several splits, {counts}; give {choice}")
    other = next(each for each in known if each != "train")
    notes.append(f"holds {counts}; train is taken, {given}:{other} takes another split")
    return Containers(os.fspath(given), root, by_split["train"], kind, notes)


def split_of(name: str) -> str | None:
    """The split that a file's name or else a folder above it names."""
    stem, _ = os.path.splitext(name)  # noqa: PTH122
    for part in reversed(Path(stem).parts):
        words = re.split(r"[^a-z]+", part.lower())
        if found := next((SPLITS[word] for word in words if word in SPLITS), None):
            return found
    return None


def _of_one_kind(given: Path, names: list[str]) -> tuple[str, list[str], list[str]]:
    """The kind, its names, and notes. Parquet called like the tars beside it is img2dataset's,
    without images."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(kind_of(name) or "", []).append(name)
    notes = []
    stems = {kind: {os.path.splitext(name)[0] for name in kinds[kind]} for kind in kinds}  # noqa: PTH122
    if kinds.keys() == {"tar", "parquet"} and stems["parquet"] <= stems["tar"]:
        count = len(kinds.pop("parquet"))
        what = "Parquet file beside the tars is" if count == 1 else "Parquet files beside tars are"
        notes.append(f"{count:,} {what} left out, as img2dataset's descriptions of the images")
    if len(kinds) > 1:
        raise InputError(
            f"{given}: holds containers of several kinds ({', '.join(sorted(kinds))}); choose one "
            f"with a pattern, such as {given}/*.{min(kinds)}"
        )
    ((kind, chosen),) = kinds.items()
    return kind, chosen, notes
