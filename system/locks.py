"""One process at a time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from system.errors import InputError


@contextlib.contextmanager
def sole_user(path: Path, busy: str) -> Iterator[None]:
    """Hold a lock file, which is made, and gone afterwards. The system lets go of it when the
    process ends, however it ends: one that is left behind holds nobody up. Where the disk knows no
    locks, there is none.

    Args:
        busy: what to say where another process holds it.

    Raises:
        InputError: another process holds it.
    """
    while True:
        # for writing: some network disks lock no other files
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            # of this kind the workers that a killed process leaves behind for seconds hold none
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            os.close(handle)
            raise InputError(busy) from error
        except OSError:
            pass  # no locks there
        if _is_still(path, handle):
            break
        os.close(handle)  # its holder has just removed it
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
