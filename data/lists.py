"""Images that a text file lists, as people write such lists: a path on each line, or a path and a
label between blanks, commas, semicolons or tabs."""

import csv
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.folder import Files
from data.sieve import Sieve
from parallel.collectives import rank
from system.errors import InputError, shorten
from system.names import printable

SAMPLE = 20  # lines whose files are looked for, to find out how to read a list
MOST_FIELDS = 16
LABELS = frozenset({"label", "labels", "class", "class_name", "category", "target", "y"})
PATHS = frozenset(
    {"path", "paths", "file", "files", "filename", "file_name", "filepath", "file_path"}
    | {"image", "images", "image_path", "img", "img_path", "name", "image_name"}
)
COUNTERS = frozenset({"", "id", "index", "idx", "number", "no", "unnamed:_0"})  # no labels
NEITHER = (
    "neither a folder, nor a text file with one image path a line, nor a .tar, .zip or .parquet"
)
ONE_IMAGE = "is one image; give its folder, or a list with its path"
UTF16 = (b"\xff\xfe", b"\xfe\xff")  # the first bytes


@dataclass(frozen=True)
class Format:
    """A way in which the lines of a list are written.

    Attributes:
        fields: from a line to its fields.
        repair: from the field of the path to a path.
        path: the number of that field.
        how: these in words, for a note; empty for a path as it is on each line.
    """

    fields: Callable[[str], list[str]]
    repair: Callable[[str], str]
    path: int = 0
    how: str = ""

    def name(self, line: str) -> str:
        """The path on a line; empty if it has too few fields."""
        fields = self.fields(line)
        return self.repair(fields[self.path]) if self.path < len(fields) else ""


def read_list(source: Path, needs_labels: bool = False) -> Files:
    """The images that a text file lists, one per line. Says on stderr how it is read, if that is
    not a path as it is on each line.

    Args:
        needs_labels: each line must have a label.

    Raises:
        InputError: the list cannot be read, names no file, or has unclear fields.
    """
    files, how = parse_list(source, needs_labels)
    if how and rank() == 0:
        sys.stderr.write(f"note: {printable(str(source))}: read as {how}\n")
    return files


def parse_list(source: Path, needs_labels: bool = False) -> tuple[Files, str]:
    """As `read_list`, and how the list is read, in words."""
    lines = read_lines(source)
    form = _best_format(source.parent, [line for _, line in lines])
    if form is None:
        raise InputError(_why_none(source, [line for _, line in lines]))
    rows = [(number, form.fields(line)) for number, line in lines]
    header = _header(source.parent, form, rows[0][1])
    typical = rows[0] if header else max(rows, key=lambda row: len(row[1]))
    label = _label_field(source, form, typical, header)
    if needs_labels and label is None:
        raise InputError(f"{source}:{lines[0][0]}: {_quote(lines[0][1])} is no image and its class")
    names, labels = [], []
    for number, row in rows[1:] if header else rows:
        if max(form.path, label or 0) >= len(row):
            raise InputError(
                f"{source}:{number}: {_quote(' '.join(row))} lacks a field that other lines have"
            )
        names.append(form.repair(row[form.path]))
        labels.append("" if label is None else row[label].strip().strip("\"'"))
    how = [form.how or "a path on each line"] + (["with a header"] if header else [])
    if label is None:
        files = listed(source.parent, names)
    else:
        files = Files(source.parent, names, labels)
        how.append(f"the label in field {label + 1}, such as {_quote(labels[0])}")
    return files, ", ".join(how) if form.how or header else ""


def listed(root: Path, names: Sequence[str]) -> Files:
    """The images of a list without labels in the folder `root`, from their names alone."""
    # normalised, so that `a/b` and `a/./b` are the same label
    above = os.path.abspath(root)  # noqa: PTH100
    folders = [os.path.dirname(os.path.normpath(os.path.join(above, name))) for name in names]  # noqa: PTH118, PTH120
    return Files(root, names, folders)


def read_lines(source: Path, otherwise: str = "") -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, with their numbers from 1 on.

    Args:
        otherwise: what to say of a file that is not text; empty: what `find_images` takes.

    Raises:
        InputError: the file cannot be read, or is not text.
    """
    try:
        content = source.read_bytes()
        if content.startswith(UTF16):
            text = content.decode("utf-16")
        else:  # names keep bytes that aren't UTF-8
            text = content.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    except OSError as error:
        raise InputError(f"{source}: cannot read this list file: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: begins like UTF-16, but is not; save it as UTF-8") from error
    if "\0" in text:
        raise InputError(f"{source}: {otherwise or _no_list(source)}")
    lines = enumerate((line.strip("\r") for line in text.split("\n")), 1)
    return [(number, line) for number, line in lines if line.strip()]


def _best_format(root: Path, lines: Sequence[str]) -> Format | None:
    """The format by which most of a sample of lines name files, the simplest if several do."""
    sample = lines[:: max(len(lines) // SAMPLE, 1)]
    best, most = None, 0
    for form in _formats(sample):
        hits = sum(_is_file(root, form.name(line)) for line in sample)
        if hits > most:
            best, most = form, hits
        if most == len(sample):
            break
    plain = Format(_whole, _as_it_is)
    if best is None and any(_is_file(root, line) for line in lines):
        return plain
    return best


def _formats(sample: Sequence[str]) -> list[Format]:
    splits: list[tuple[str, Callable[[str], list[str]]]] = [("", _whole)]
    splits += [(f"fields between {name}", _between(mark)) for mark, name in SEPARATORS.items()]
    splits += [("a path and a label", _last_word), ("a label and a path", _first_word)]
    formats = []
    for how, fields in splits:
        count = min(max((len(fields(line)) for line in sample), default=0), MOST_FIELDS)
        if how and count < 2:
            continue
        for words, repair in REPAIRS.items():
            said = ", ".join(part for part in (how, words) if part)
            formats += [Format(fields, repair, place, said) for place in range(count)]
    return formats


def _header(root: Path, form: Format, row: list[str]) -> bool:
    """Whether the first row names the fields."""
    if form.path >= len(row) or _is_file(root, form.repair(row[form.path])):
        return False
    return _word(row[form.path]) in PATHS or any(_word(field) in LABELS for field in row)


def _label_field(
    source: Path, form: Format, typical: tuple[int, list[str]], header: bool
) -> int | None:
    """The field with the label: the one that the header calls so, or else the only one beside the
    path that is no counter."""
    number, row = typical
    others = [place for place in range(len(row)) if place != form.path]
    if header:
        named = [place for place in others if _word(row[place]) in LABELS]
        others = named or [place for place in others if _word(row[place]) not in COUNTERS]
    if len(others) > 1:
        raise InputError(
            f"{source}:{number}: {_quote(','.join(row))} has {len(row)} fields, and which is the "
            "label is unclear; give a path and a label on each line, or a header with path,label"
        )
    return others[0] if others else None


def _no_list(source: Path) -> str:
    """Why a file that is not text is no source of images."""
    return ONE_IMAGE if Sieve().is_image(str(source.parent), source.name) else NEITHER


def _why_none(source: Path, lines: Sequence[str]) -> str:
    message = f"{source}: none of its {len(lines)} lines names an image file"
    if not lines:
        return message
    if any(character < " " and character != "\t" for line in lines[:SAMPLE] for character in line):
        return f"{source}: {_no_list(source)}"
    first = lines[0]
    if re.match(r"\W?[A-Za-z]:[\\/]", first):
        why = "is a path on a Windows disk"
    elif "://" in first:
        why = "is a web address; download the images and list their files"
    else:
        tried = (form.name(first) for form in _formats(lines[:1]))
        other = next((name for name in tried if name not in ("", first)), None)
        why = "is no file" if other is None else f"is no file, and neither is {_quote(other)}"
    return (
        f"{message}: the first, {_quote(first)}, {why} "
        f"(paths are absolute or relative to {source.parent}/)"
    )


def _is_file(root: Path, name: str) -> bool:
    return bool(name) and os.path.isfile(os.path.join(root, name))  # noqa: PTH113, PTH118 (any text)


def _quote(text: str) -> str:
    return repr(shorten(text))


def _word(field: str) -> str:
    return field.strip().strip("\"'").lower().replace(" ", "_")


def _whole(line: str) -> list[str]:
    return [line]


def _last_word(line: str) -> list[str]:
    return line.rsplit(maxsplit=1)


def _first_word(line: str) -> list[str]:
    return line.split(maxsplit=1)


def _between(mark: str) -> Callable[[str], list[str]]:
    def fields(line: str) -> list[str]:
        try:
            return next(csv.reader([line], delimiter=mark, skipinitialspace=True))
        except csv.Error:  # a field of more than 128 kB
            return [line]

    return fields


def _as_it_is(path: str) -> str:
    return path


def _trimmed(path: str) -> str:
    path = path.strip()
    quoted = len(path) > 1 and path[0] == path[-1] and path[0] in "\"'"
    return path[1:-1] if quoted else path


def _slashes(path: str) -> str:
    return _trimmed(path).replace("\\", "/")


def _from_root(path: str) -> str:
    return _slashes(path).lstrip("/")


SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
REPAIRS: dict[str, Callable[[str], str]] = {  # the mildest first
    "": _as_it_is,
    "without blanks and quotes around paths": _trimmed,
    "with slashes for backslashes": _slashes,
    "with a leading slash for the list's folder": _from_root,
}
