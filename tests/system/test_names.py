"""File names in text: whatever their characters, they come back as they were."""

from pathlib import Path

import pytest
from hostile import ODD
from hypothesis import given
from hypothesis import strategies as st

from system.files import write_text
from system.names import (
    from_line,
    from_lines,
    from_reasons,
    printable,
    read_text,
    to_line,
    to_lines,
    to_reasons,
)

# any bytes that a file's name may have, and then texts with many of the characters that matter
NAMES = st.binary(min_size=1, max_size=20).map(
    lambda b: b.replace(b"\0", b"0").decode("utf-8", "surrogateescape")
) | st.text("\\nrx0ua8\n\r\v\x85\u2028\t", min_size=1, max_size=8)


@pytest.mark.parametrize(
    "name", ["a.png", "a b.png", "é/ü.png", "C:\\images\\a.png", "caf\udce9.png"]
)
def test_an_ordinary_name_is_a_line_as_it_is(name: str) -> None:
    assert to_line(name) == from_line(name) == name


@given(st.lists(NAMES))
def test_names_come_back_as_they_were(names: list[str]) -> None:
    text = to_lines(names)
    assert from_lines(text) == names
    assert len(text.splitlines()) == len(names), "for those who read them so"
    reasons = {index: f"reason {index}" for index in range(0, len(names), 2)}
    found = from_reasons(to_reasons(names, reasons))
    assert found == {
        names[index]: f"reason {max(i for i in reasons if names[i] == names[index])}"
        for index in reasons
    }


def test_odd_names_come_back_from_a_file(tmp_path: Path) -> None:
    write_text(tmp_path / "images.txt", to_lines(ODD))
    assert from_lines(read_text(tmp_path / "images.txt")) == ODD
    with (tmp_path / "images.txt").open(errors="surrogateescape") as file:
        lines = file.read().split("\n")[:-1]  # as docs/data.md does
    assert [from_line(line) for line in lines] == ODD


@given(NAMES)
def test_a_name_is_one_line_on_a_terminal(name: str) -> None:
    assert printable(name).isprintable()
    assert not name.isprintable() or printable(name) == name


@pytest.mark.parametrize("line", ["\\\\server\\share.png", "\\plain.png", "\\odd\\q\\n.png"])
def test_a_line_that_was_never_escaped_is_a_name_as_it_stands(line: str) -> None:
    """Of a file from before there were escapes."""
    assert from_line(line) == line
