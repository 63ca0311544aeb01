"""Finished parts of a long benchmark: a list in JSON on each line of a file."""

import json
from pathlib import Path
from typing import Any

from system.errors import InputError


def append_line(path: Path, part: list[Any]) -> None:
    """Add a finished part."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(part) + "\n")


def read_lines(path: Path, length: int) -> list[list[Any]]:
    """The finished parts, each a list of so many values; none without a file.

    Raises:
        InputError: a line is damaged, such as the last one after a kill.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    parts = []
    for number, line in enumerate(lines, 1):
        try:
            part = json.loads(line)
        except ValueError:
            part = None
        if not isinstance(part, list) or len(part) != length:
            raise InputError(f"{path}: line {number} is damaged; remove it")
        parts.append(part)
    return parts
