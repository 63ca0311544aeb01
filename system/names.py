"""File names in text: one to a line of a file, and on a terminal.

A name may hold any byte but "/" and NUL. In `images.txt`, `bad_images.txt` and lists of images it
is a line as it is; bytes that are not UTF-8 stay. An image whose name has a line break is left out
(`data/folder.py`), and named with an escape in place of the break.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path


def has_line_break(name: str) -> bool:
    """Whether a name would take several lines."""
    return "\n" in name or "\r" in name


def to_line(name: str) -> str:
    """A name as a line, without its end."""
    return name.replace("\n", "\\n").replace("\r", "\\r")


def to_lines(names: Iterable[str]) -> str:
    """The text of a file with a name on each line."""
    return "".join(f"{to_line(name)}\n" for name in names)


def from_lines(text: str) -> list[str]:
    """The lines that `to_lines` made; what follows the end of the last is none."""
    return text.split("\n")[:-1]


def to_reasons(names: Sequence[str], reasons: Mapping[int, str]) -> str:
    """The text of `bad_images.txt`: a name and a reason on each line, by the names' numbers."""
    return "".join(f"{to_line(names[i])}\t{reasons[i]}\n" for i in sorted(reasons))


def from_reasons(text: str) -> dict[str, str]:
    """By the line of the name, the reasons that `to_reasons` made a text of."""
    # from the right: a name may hold a tab, a reason has none
    lines = (line.rpartition("\t") for line in text.split("\n"))
    return {line: reason for line, tab, reason in lines if tab}


def read_text(path: Path) -> str:
    """A text file whose file names keep bytes that are not UTF-8."""
    return path.read_bytes().decode("utf-8", "surrogateescape")


@contextlib.contextmanager
def utf8_name(path: str | Path) -> Iterator[str]:
    """Another name of a file that is there, for libraries that open none whose name is not UTF-8.
    It is good for as long as the block lasts."""
    with Path(path).open("rb") as file:
        yield f"/dev/fd/{file.fileno()}"


def printable(text: str) -> str:
    """One line to be shown: line breaks, and what else a terminal would obey instead of showing,
    as escapes."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )
