"""Progress of long work: a bar with the time left on a terminal, plain lines otherwise."""

import contextlib
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 15.0


@contextlib.contextmanager
def progress(
    label: str, total: int, unit: str, enabled: bool = True
) -> Iterator[Callable[[int], None]]:
    """Show the progress of a stage.

    Yields a function to call with the number of units done in each step. A terminal shows a bar
    that vanishes at the end. Otherwise a line is printed every 15 s, none for a quick stage.
    """
    if not enabled:
        yield lambda done: None
    elif sys.stderr.isatty():
        with tqdm(total=total, desc=label, unit=f" {unit}", leave=False, dynamic_ncols=True) as bar:
            yield lambda done: bar.update(done) and None
    else:
        yield _Lines(label, total, unit)


@contextlib.contextmanager
def stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Take the time of a stage, into `seconds`."""
    start = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - start, 2)


def drop_lost_terminal() -> None:
    """Discard further output if the terminal has closed, as writing to it would fail."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # it may not be a file
            file = stream.fileno()
            if stat.S_ISCHR(os.fstat(file).st_mode) and not os.isatty(file):
                os.dup2(os.open(os.devnull, os.O_WRONLY), file)


class _Lines:
    def __init__(self, label: str, total: int, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = 0
        self.start = self.last_line = time.monotonic()

    def __call__(self, done: int) -> None:
        self.done += done
        now = time.monotonic()
        if now - self.last_line < SECONDS_BETWEEN_LINES or self.done >= self.total:
            return
        self.last_line = now
        rate = self.done / (now - self.start)
        left = (self.total - self.done) / rate
        sys.stderr.write(
            f"  {self.label}: {self.done:,} of {self.total:,} {self.unit}, "
            f"{rate:,.1f} {self.unit}/s, {tqdm.format_interval(left)} left\n"
        )
        sys.stderr.flush()
