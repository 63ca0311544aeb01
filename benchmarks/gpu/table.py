"""The results of all parts in Markdown."""

from typing import Any


def markdown(parts: dict[str, dict[str, Any]]) -> str:
    """A table for each part, with a row for each thing that was measured.

    Args:
        parts: by name; of each the `title`, the `seconds` that it took, its `results`, and if it
            failed `failed`, the reason.
    """
    return "\n".join(_section(part) for part in parts.values())


def _section(part: dict[str, Any]) -> str:
    lines = [f"## {part['title']}", "", f"{part['seconds']:.0f} s"]
    if "failed" in part:
        lines[-1] += f"; **failed**: {part['failed']}"
    without = {"skipped", "failed"}
    rows = {name: row for name, row in part["results"].items() if not without & row.keys()}
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    if rows:
        lines += ["", f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        lines += [
            f"| {name} | {' | '.join(cell(row.get(column, '')) for column in columns)} |"
            for name, row in rows.items()
        ]
    for name, row in part["results"].items():
        if name not in rows:
            lines += ["", f"- {name}: {', '.join(f'{what}: {why}' for what, why in row.items())}"]
    return "\n".join([*lines, ""])


def cell(value: Any) -> str:
    """A number with three digits, or a text, without the signs of a table."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "/")
