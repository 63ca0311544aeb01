"""The logs of a run: `metrics.jsonl` with a JSON object for each epoch, `log.txt`, the console, and
TensorBoard's curves.

TensorBoard's own writer is not used: on a full disk its thread dies with a traceback and leaves
half an event in the file. `tqdm.contrib.logging` is not used: it ignores the console's level.
"""

import contextlib
import io
import itertools
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from tqdm import tqdm

from cluster.quality import AGREEMENT
from parallel.collectives import rank
from system.errors import InputError, shorten
from system.files import append, write_text

log = logging.getLogger("deepcluster")

METRICS = "metrics.jsonl"
LOG = "log.txt"
NOTE = logging.INFO + 5  # level of lines that the console always shows, but are no warnings
logging.addLevelName(NOTE, "NOTE")
UNHEALTHY = "unhealthy: "  # begins a warning of `health.py`
# Metrics that are a number or null
NUMBERS = (
    "kmeans_loss", "convnet_loss", "ln_k", "nmi_previous", *AGREEMENT, "clusters",
    "nonempty_clusters", "rotation_accuracy",
)  # fmt: skip


def warn(warnings: Sequence[str]) -> None:
    """Log warnings about the run's health, in the first process only."""
    if rank() == 0:
        for warning in warnings:
            log.warning("%s%s", UNHEALTHY, warning)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The metrics of each epoch in an experiment folder.

    Raises:
        InputError: a line is damaged.
    """
    path = folder / METRICS
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # a line without its end was cut
        history = [json.loads(line) for line in lines]
        for number, metrics in enumerate(history, 1):
            if not _is_epoch(metrics):
                raise ValueError(f"line {number} has no metrics of an epoch")
    except (OSError, ValueError, RecursionError) as error:
        reason = shorten(error)
        raise InputError(f"{path}: not a JSON object on each line: {reason}") from error
    return history


def read_warnings(folder: Path) -> list[str]:
    """The warnings about the run's health in an experiment folder's log, each with its time."""
    try:
        lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # a run goes on without its log
        return []
    found = [line.split(f" WARNING {UNHEALTHY}", 1) for line in lines]
    return [f"{when.split(',')[0]}: {rest[0]}" for when, *rest in found if rest]


def learned_rotations_only(line: dict[str, Any]) -> bool:
    """Whether an epoch had no clusters, only rotations of images to learn."""
    return line.get("clusters") == 1 and line.get("rotation_accuracy") is not None


def log_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Append the metrics of an epoch."""
    append(folder / METRICS, _to_line(metrics).encode())


def cut_metrics(folder: Path, epoch: int) -> None:
    """Remove an epoch and those after it."""
    kept = [metrics for metrics in read_metrics(folder) if metrics["epoch"] < epoch]
    write_text(folder / METRICS, "".join(map(_to_line, kept)))


def _is_epoch(metrics: Any) -> bool:
    """Whether a line's metrics have the right types. Older runs may lack some."""
    if not isinstance(metrics, dict) or type(metrics.get("epoch")) is not int:
        return False
    seconds = metrics.get("seconds", {})
    numbers = [metrics.get(name) for name in NUMBERS]
    return (
        isinstance(seconds, dict)
        and all(isinstance(value, int | float) for value in seconds.values())
        and all(isinstance(value, int | float | None) for value in numbers)
        and _has_levels(metrics.get("clusters"), metrics.get("super_clusters"))
    )


def _has_levels(clusters: Any, supers: Any) -> bool:
    """Whether the clusters are so many in each of the super-clusters, if there are any."""
    if supers is None:
        return True
    count = supers.get("clusters") if isinstance(supers, dict) else None
    return type(clusters) is type(count) is int and count > 0 and clusters % count == 0 < clusters


def _to_line(metrics: dict[str, Any]) -> str:
    return json.dumps(metrics) + "\n"


def log_handlers(path: Path, append: bool, verbose: bool) -> list[logging.Handler]:
    """A handler for a file, and one for the console, which shows only notes and warnings unless
    `verbose`."""
    return [_File(path, append), _Console(level=logging.INFO if verbose else NOTE)]


class _File(logging.FileHandler):
    """A log file. If it can't be written, the console says so once, without a traceback."""

    def __init__(self, path: Path, append: bool) -> None:
        mode = "a" if append else "w"
        super().__init__(path, mode, encoding="utf-8", errors="backslashreplace")
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self.failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.failed:
            self.failed = True
            _print(f"{self.baseFilename}: {error.strerror}: the run continues without its log")

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it flushes the lines that couldn't be written
            super().close()


class _Console(logging.Handler):
    """Prints lines above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        _print(self.format(record))


def _print(line: str) -> None:
    with contextlib.suppress(OSError):  # a full disk or a closed pipe doesn't stop the run
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()


VERSION = "brain.Event:2"  # of the format


class Curves:
    """TensorBoard's file of events, a new one for each start of a run.

    Args:
        folder: made with the first point.
        first_step: TensorBoard ignores points of earlier files from this step on.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        self.folder, self.first_step = folder, first_step
        self.path: Path | None = None

    def add(self, values: dict[str, float], step: int) -> None:
        """Write a point of each curve, by the curve's name.

        Raises:
            OSError: the disk is full, for example; the file is unchanged.
        """
        summary = Summary(value=[Summary.Value(tag=n, simple_value=v) for n, v in values.items()])
        events = [Event(wall_time=time.time(), step=step, summary=summary)]
        path = self.path
        if path is None:
            path = self._new_path()
            start = SessionLog(status=SessionLog.START)
            events.insert(0, Event(wall_time=time.time(), file_version=VERSION))
            events.insert(1, Event(wall_time=time.time(), step=self.first_step, session_log=start))
        content = io.BytesIO()
        writer = RecordWriter(content)
        for event in events:
            writer.write(event.SerializeToString())
        append(path, content.getvalue())
        self.path = path

    def _new_path(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        start = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        return next(
            path
            for number in itertools.count()
            if not (path := self.folder / f"{start}.{number}").exists()
        )
