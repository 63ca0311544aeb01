"""A run's `metrics.jsonl`: a JSON object on a line for each epoch."""

import json
from pathlib import Path
from typing import Any

from system.errors import InputError, shorten
from system.files import append, write_text

METRICS = "metrics.jsonl"
# What is a number, or null where there is none
NUMBERS = (
    "kmeans_loss", "convnet_loss", "ln_k", "nmi_previous", "nmi_labels", "clusters",
    "nonempty_clusters",
)  # fmt: skip


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of an experiment folder, one for each epoch.

    Raises:
        InputError: one is damaged, or none of an epoch.
    """
    path = folder / METRICS
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # a cut line has no end
        history = [json.loads(line) for line in lines]
        for number, metrics in enumerate(history, 1):
            if not _is_epoch(metrics):
                raise ValueError(f"line {number} is no epoch's")
    except (OSError, ValueError, RecursionError) as error:
        reason = shorten(error)
        raise InputError(f"{path}: not a JSON object on each line: {reason}") from error
    return history


def log_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Append an epoch."""
    append(folder / METRICS, _to_line(metrics).encode())


def cut_metrics(folder: Path, epoch: int) -> int:
    """Forget an epoch and those after it. Returns how many are left."""
    kept = [metrics for metrics in read_metrics(folder) if metrics["epoch"] < epoch]
    write_text(folder / METRICS, "".join(map(_to_line, kept)))
    return len(kept)


def _is_epoch(metrics: Any) -> bool:
    """Whether a line has what is needed of it, as it should be; what runs of before did not write
    may be missing."""
    if not isinstance(metrics, dict) or type(metrics.get("epoch")) is not int:
        return False
    seconds = metrics.get("seconds", {})
    numbers = [metrics.get(name) for name in NUMBERS]
    return (
        isinstance(seconds, dict)
        and all(isinstance(value, int | float) for value in seconds.values())
        and all(isinstance(value, int | float | None) for value in numbers)
    )


def _to_line(metrics: dict[str, Any]) -> str:
    return json.dumps(metrics) + "\n"
