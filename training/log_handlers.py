"""Where what a run says goes: its `log.txt`, and the console. Neither stops it."""

import contextlib
import logging
import sys
from pathlib import Path

from tqdm import tqdm


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
