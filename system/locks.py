"""A lock file: one process at a time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from system.errors import InputError


@contextlib.contextmanager
def sole_user(path: Path, busy: str | None) -> Iterator[None]:
    """Hold a lock on a file, which is made and removed. The lock ends with the process, so that a
    file left behind blocks nobody. On a disk without locks this does nothing.

    Args:
        busy: the message if another process holds the lock; None waits for it.

    Raises:
        InputError: another process holds it.
    """
    while True:
        # open for writing: some network disks lock no other files
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            # lockf: child processes do not inherit it, so surviving workers hold no lock
            fcntl.lockf(handle, fcntl.LOCK_EX if busy is None else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            os.close(handle)
            raise InputError(busy or f"{path}: cannot be locked") from error
        except OSError:
            pass  # a disk without locks
        if _is_still(path, handle):
            break
        os.close(handle)  # its holder has just removed the file
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _is_still(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
