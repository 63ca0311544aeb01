"""File names in text: one to a line of a file, and on a terminal.

A name may hold any byte but "/" and NUL, line breaks among them. In `images.txt`, `bad_images.txt`
and lists of images nearly every name is a line as it is. One that would break its line (any
character that ends a line for `str.splitlines`), or that begins with a backslash, is written with a
backslash in front and escapes behind it, as `sha256sum` does: `\\two\\nlines.png`. Bytes that are
not UTF-8 stay as they are.
"""

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

# what `str.splitlines` takes for the end of a line
_BREAKS = re.compile("[\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]")
_ESCAPE = re.compile(r"\\(\\|n|r|x[0-9a-f]{2}|u[0-9a-f]{4})")
_LETTERS = {"\\": "\\", "n": "\n", "r": "\r"}


def to_line(name: str) -> str:
    """A name as a line, without its end."""
    if not _BREAKS.search(name) and not name.startswith("\\"):
        return name
    doubled = name.replace("\\", "\\\\")
    return "\\" + _BREAKS.sub(lambda found: _escaped(found[0]), doubled)


def from_line(line: str) -> str:
    """The name of a line. One that `to_line` cannot have written is a name as it stands, such as
    of files from before there were escapes."""
    if not line.startswith("\\"):
        return line
    name = _ESCAPE.sub(lambda found: _unescaped(found[1]), line[1:])
    return name if to_line(name) == line else line


def to_lines(names: Iterable[str]) -> str:
    """The text of a file with a name on each line."""
    return "".join(f"{to_line(name)}\n" for name in names)


def from_lines(text: str) -> list[str]:
    """The names that `to_lines` made a text of; what follows the last line's end is none."""
    return [from_line(line) for line in text.split("\n")[:-1]]


def to_reasons(names: Sequence[str], reasons: Mapping[int, str]) -> str:
    """The text of `bad_images.txt`: a name and a reason on each line, by the names' numbers."""
    return "".join(f"{to_line(names[i])}\t{reasons[i]}\n" for i in sorted(reasons))


def from_reasons(text: str) -> dict[str, str]:
    """By name, the reasons that `to_reasons` made a text of."""
    # from the right: a name may hold a tab, a reason has none
    lines = (line.rpartition("\t") for line in text.split("\n"))
    return {from_line(line): reason for line, tab, reason in lines if tab}


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
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _unescaped(code: str) -> str:
    return _LETTERS.get(code) or chr(int(code[1:], 16))
