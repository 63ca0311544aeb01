"""File names as lines of a text file, and on a terminal.

A name may hold any byte but "/" and NUL. In `images.txt`, `bad_images.txt` and lists of images it
is a line, unchanged even if it isn't UTF-8. An image with a line break in its name is left out
(`data/folder.py`), and named with an escape for the break.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

LONGEST_NAME = 255  # bytes of a file name on most systems


def has_line_break(name: str) -> bool:
    """Whether a name has a line break."""
    return "\n" in name or "\r" in name


def to_line(name: str) -> str:
    """A name as a line, without the newline at its end."""
    return name.replace("\n", "\\n").replace("\r", "\\r")


def to_lines(names: Iterable[str]) -> str:
    """The text of a file with a name on each line."""
    return "".join(f"{to_line(name)}\n" for name in names)


def digest_of_names(names: Iterable[str]) -> str:
    """SHA-256 of names in their order."""
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()


def from_lines(text: str) -> list[str]:
    """The names in a text of `to_lines`."""
    return text.split("\n")[:-1]


def by_line(names: Sequence[str], reasons: Mapping[int, str]) -> dict[str, str]:
    """Reasons by index of the name as reasons by the name as a line, in the order of the index."""
    return {to_line(names[index]): reasons[index] for index in sorted(reasons)}


def to_reasons(reasons: Mapping[str, str]) -> str:
    """The text of `bad_images.txt`: a name, a tab and a reason on each line.

    Args:
        reasons: by the name as a line.
    """
    return "".join(f"{line}\t{reason}\n" for line, reason in reasons.items())


def from_reasons(text: str) -> dict[str, str]:
    """The reasons in a text of `to_reasons`, by the name as a line."""
    # from the right: a name may hold a tab, a reason has none
    lines = (line.rpartition("\t") for line in text.split("\n"))
    return {line: reason for line, tab, reason in lines if tab}


def read_text(path: Path) -> str:
    """A text file, in which names keep bytes that aren't UTF-8."""
    return path.read_bytes().decode("utf-8", "surrogateescape")


@contextlib.contextmanager
def utf8_name(path: str | Path) -> Iterator[str]:
    """Another name of an existing file, for libraries that can't open names that aren't UTF-8.
    Valid within the block."""
    with Path(path).open("rb") as file:
        yield f"/dev/fd/{file.fileno()}"


def printable(text: str) -> str:
    """A text as one line for a terminal, with line breaks and control characters as escapes."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def numbered_name(number: int, path: str) -> str:
    """Such as `000012_name.jpg`: a number and a file's name, cut at its beginning where that would
    be too long."""
    name = f"{number:06d}_"
    end = os.path.basename(path)  # noqa: PTH119 (hot)
    while len(os.fsencode(name + end)) > LONGEST_NAME:
        end = end[1:]
    return name + end
