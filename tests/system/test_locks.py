"""Lock files: one process at a time."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lock_holder import HOLD, ROOT, held_elsewhere

from system.errors import InputError
from system.locks import sole_user


def test_a_second_process_fails_until_the_first_is_done(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, str(ROOT), str(lock)]
    with sole_user(lock, "busy"):
        second = subprocess.run(command, capture_output=True, text=True)
        assert "system.errors.InputError: busy" in second.stderr
        assert lock.exists()
    assert not lock.exists()
    assert subprocess.run(command, input="", capture_output=True, text=True).stdout == "held\n"


def test_children_of_a_killed_process_do_not_hold_its_lock(tmp_path: Path) -> None:
    """Workers that read images outlive their parent for seconds, for example."""
    lock = tmp_path / "lock"
    forking = HOLD.replace("print(", "import os, time; os.fork() or time.sleep(5); print(")
    with held_elsewhere(lock, forking) as other:
        other.kill()
        other.wait()
        with sole_user(lock, "busy"):
            pass


def test_a_killed_process_does_not_hold_its_lock(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with held_elsewhere(lock) as other:
        with pytest.raises(InputError, match=r"^busy$"), sole_user(lock, "busy"):
            pass
        other.kill()
        other.wait()
        assert lock.exists()
        with sole_user(lock, "busy"):
            pass


def test_a_lock_file_that_is_removed_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file opened is not the one there now, so locking it would exclude nobody."""
    lock, lockf = tmp_path / "lock", fcntl.lockf
    taken: list[int] = []

    def remove_first(handle: int, how: int) -> None:
        if not taken:
            lock.unlink()
        taken.append(handle)
        lockf(handle, how)

    monkeypatch.setattr(fcntl, "lockf", remove_first)
    with sole_user(lock, "busy"):
        assert len(taken) == 2
        command = [sys.executable, "-c", HOLD, str(ROOT), str(lock)]
        second = subprocess.run(command, capture_output=True, text=True)
        assert "system.errors.InputError: busy" in second.stderr


def test_on_a_disk_without_locks_there_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", fail)
    with sole_user(tmp_path / "lock", "busy"), sole_user(tmp_path / "lock", "busy"):
        pass
