"""What a run writes as it goes: `metrics.jsonl` with a JSON object on a line for each epoch,
`log.txt` and the console, and the curves that TensorBoard shows.

The curves are written without TensorBoard's own writer, which works in a thread: on a full disk
that thread prints a traceback and ends, and leaves half an event in the file. The console is not
`tqdm.contrib.logging`'s: that drops the handler's level, so it would print every line.
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
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from tqdm import tqdm

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


def log_handlers(path: Path, append: bool, verbose: bool) -> list[logging.Handler]:
    """A handler that writes lines with the time to a file, and one for the console, which shows no
    more than warnings unless it is to be verbose."""
    return [_File(path, append), _Console(level=logging.INFO if verbose else logging.WARNING)]


class _File(logging.FileHandler):
    """A file that, where it cannot be written, says so once on the console instead of printing a
    traceback for each line."""

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
            reason = f"{self.baseFilename}: {error.strerror}: the run goes on without its log"
            _print(reason)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what could not be written before
            super().close()


class _Console(logging.Handler):
    """Lines on standard output that do not break a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        _print(self.format(record))


def _print(line: str) -> None:
    with contextlib.suppress(OSError):  # a full disk, a closed pipe: the run goes on without
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()


VERSION = "brain.Event:2"  # of the format


class Curves:
    """A file of events, one run's or that of its continuation.

    Args:
        folder: made with the first curve.
        first_step: TensorBoard forgets what earlier files of the folder have from there on.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        self.folder, self.first_step = folder, first_step
        self.path: Path | None = None

    def add(self, values: dict[str, float], step: int) -> None:
        """Write a point of each curve.

        Args:
            values: by the curve's name.

        Raises:
            OSError: the disk is full, for example; the file is as it was before.
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
