"""The curves that TensorBoard shows.

Written without its own writer, which works in a thread: where a disk is full, that thread prints a
traceback and ends, and leaves half an event in the file.
"""

import io
import itertools
import os
import socket
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from system.files import append

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
