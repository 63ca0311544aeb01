"""File names in text come back unchanged, unless they have a line break."""

from pathlib import Path

from hostile import ODD, ODD_LINES
from hypothesis import given
from hypothesis import strategies as st

from system.files import write_text
from system.names import (
    by_line,
    from_lines,
    from_reasons,
    has_line_break,
    printable,
    read_text,
    to_line,
    to_lines,
    to_reasons,
)

# any bytes that a file's name may have, or texts with many of the critical characters
NAMES = st.binary(min_size=1, max_size=20).map(
    lambda b: b.replace(b"\0", b"0").decode("utf-8", "surrogateescape")
) | st.text("\\nrx0ua8\n\r\v\x85\u2028\t", min_size=1, max_size=8)
ONE_LINE = NAMES.filter(lambda name: not has_line_break(name))


@given(st.lists(ONE_LINE))
def test_names_come_back_as_they_were(names: list[str]) -> None:
    assert from_lines(to_lines(names)) == names
    reasons = {index: f"reason {index}" for index in range(0, len(names), 2)}
    found = from_reasons(to_reasons(by_line(names, reasons)))
    assert found == {
        names[index]: f"reason {max(i for i in reasons if names[i] == names[index])}"
        for index in reasons
    }


@given(NAMES)
def test_a_name_is_one_line_of_a_file(name: str) -> None:
    assert not has_line_break(to_line(name))
    assert has_line_break(name) == (to_line(name) != name)


def test_odd_names_come_back_from_a_file(tmp_path: Path) -> None:
    write_text(tmp_path / "images.txt", to_lines(ODD))
    assert from_lines(read_text(tmp_path / "images.txt")) == ODD_LINES
    with (tmp_path / "images.txt").open(errors="surrogateescape") as file:
        assert file.read().split("\n")[:-1] == ODD_LINES


@given(NAMES)
def test_a_name_is_one_line_on_a_terminal(name: str) -> None:
    assert printable(name).isprintable()
    assert not name.isprintable() or printable(name) == name
