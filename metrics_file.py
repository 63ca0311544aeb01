"""A run's `metrics.jsonl`: a JSON object on a line for each epoch."""

import json
from pathlib import Path
from typing import Any

from errors import InputError, shorten
from files import append, write_text

METRICS = "metrics.jsonl"


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of an experiment folder, one for each epoch.

    Raises:
        InputError: one is damaged.
    """
    path = folder / METRICS
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # a cut line has no end
        return [json.loads(line) for line in lines]
    except (OSError, ValueError, RecursionError) as error:
        reason = shorten(error)
        raise InputError(f"{path}: not a JSON object on each line: {reason}") from error


def log_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Append an epoch."""
    append(folder / METRICS, _to_line(metrics).encode())


def cut_metrics(folder: Path, epoch: int) -> None:
    """Forget an epoch and those after it."""
    kept = [metrics for metrics in read_metrics(folder) if metrics["epoch"] < epoch]
    write_text(folder / METRICS, "".join(map(_to_line, kept)))


def _to_line(metrics: dict[str, Any]) -> str:
    return json.dumps(metrics) + "\n"
