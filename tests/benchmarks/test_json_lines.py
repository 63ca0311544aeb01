"""Finished parts of a long benchmark."""

from pathlib import Path

import pytest

from benchmarks.json_lines import append_line, read_lines
from system.errors import InputError


def test_parts_come_back_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "parts.jsonl"
    assert read_lines(path, 2) == []
    for part in (["a", 1], ["b", {"c": 0.5}]):
        append_line(path, part)
    assert read_lines(path, 2) == [["a", 1], ["b", {"c": 0.5}]]


@pytest.mark.parametrize("line", ["[1, 2", "[1]", "{}", "5", ""])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "parts.jsonl"
    path.write_text(f"[1, 2]\n{line}\n")
    with pytest.raises(InputError, match=r"parts.jsonl: line 2 is damaged; remove it"):
        read_lines(path, 2)
