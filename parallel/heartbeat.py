"""Signs of life: a process that dies ends the others within a minute, wherever they are.

Without it they might wait for hours: NCCL does not notice that a process on another machine is
gone, and a launcher looks at its own machine only. Each process beats in a thread, in the store
that torchrun's processes meet at, and watches the next one, of all and of its own machine. Who
finds one dead, or the launcher where one has died, says so in the store, and there all read it.
"""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from system.cli import program
from system.errors import InputError

OTHER_DIED = 3  # the exit status of a process that ends because another one has died
BEAT = 2.0  # seconds
PATIENCE = 12  # beats; a computation may keep Python's threads from running for a while
MOST_FAILURES = 3  # of reaching the store, in a row: a launcher may be busy for a moment
LONGEST_START = timedelta(minutes=5)  # between the first process and the last one
VERDICT = "verdict"


class Heartbeat(threading.Thread):
    """Beats until `finish`, and ends the process when another one is dead."""

    def __init__(self, rank: int, world_size: int) -> None:
        super().__init__(daemon=True)
        self._rank, self._local = rank, int(os.environ["LOCAL_RANK"])
        first, here = rank - self._local, int(os.environ["LOCAL_WORLD_SIZE"])
        next_here = first + (self._local + 1) % here
        self._watched = {(rank + 1) % world_size, next_here} - {rank}
        self._last = dict.fromkeys(self._watched, "")
        self._silent = dict.fromkeys(self._watched, 0)
        self._store = _open_store(os.environ)
        self._over = threading.Event()
        self._beats = 0
        self._beat()

    def run(self) -> None:
        failures = 0  # in a row
        while not self._over.wait(BEAT):
            try:
                self._beat()
                verdict = self._read_verdict() or self._find_dead()
                failures = 0
            except RuntimeError:  # among them all of torch.distributed's
                failures += 1
                if self._over.is_set():
                    return
                if failures < MOST_FAILURES:
                    continue
                where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
                verdict = f"the launcher at {where}, that of process 0, is gone"
            if verdict:
                _end(verdict)

    def finish(self) -> None:
        """Stop beating, as the process has ended well."""
        self._over.set()
        self.join()
        with contextlib.suppress(RuntimeError):  # the launcher may have ended, too
            self._store.set(str(self._rank), "done")

    def await_verdict(self) -> None:
        """Give the reason why a connection was lost the time to be found; it ends the process."""
        self.join((PATIENCE + 2) * BEAT)

    def _beat(self) -> None:
        self._beats += 1
        self._store.set(str(self._rank), f"{self._beats} {_place()} {os.getpid()}")

    def _read_verdict(self) -> str | None:
        return self._read(VERDICT) or None

    def _find_dead(self) -> str | None:
        for other in self._watched:
            beat = self._read(str(other))
            self._silent[other] = self._silent[other] + 1 if beat == self._last[other] else 0
            self._last[other] = beat
            if beat in ("", "done"):  # not yet, not any more
                continue
            _, place, pid = beat.split()
            gone = place == _place() and _has_ended(pid)
            if gone or self._silent[other] >= PATIENCE:
                host = place.partition("/")[0]
                how = "has died" if gone else "gives no sign of life"
                verdict = f"process {other} (on {host}, pid {pid}) {how}"
                self._store.set(VERDICT, verdict)
                return verdict
        return None

    def _read(self, key: str) -> str:
        return self._store.get(key).decode() if self._store.check([key]) else ""


def meet() -> None:
    """Wait until all processes of a launcher's have come so far: one that has ended on another
    machine before it did is not to be waited for all the hours that a collective may take.

    Raises:
        InputError: some do not come.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return  # process 0 has the store, and nothing to say whether it comes
    store = _open_store(os.environ)
    here = [f"came {rank}" for rank in range(int(os.environ["WORLD_SIZE"]))]
    store.set(f"came {os.environ['RANK']}", "")
    try:
        store.wait(here, LONGEST_START)
    except RuntimeError as error:
        missing = [key.split()[1] for key in here if not store.check([key])]
        raise InputError(
            f"process {', '.join(missing)} has not come within {LONGEST_START}: see what it has "
            "said, or its machine"
        ) from error


def is_lost_connection(error: Exception) -> bool:
    """Whether an error may be that of a collective in which another process was missing."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def report_death(environment: Mapping[str, str], verdict: str) -> None:
    """Let the processes on other machines know of one that has died.

    Args:
        environment: that its launcher has given it.
    """
    with contextlib.suppress(RuntimeError):  # all may be over
        _open_store(environment).set(VERDICT, verdict)
    time.sleep(2 * BEAT)  # the store may be this launcher's, and end with it


def _open_store(environment: Mapping[str, str]) -> dist.Store:
    """A connection of its own: one that is shared is busy while a process waits in it."""
    host, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
    limit = timedelta(seconds=5 * BEAT)
    store = dist.TCPStore(host, port, None, False, limit, wait_for_workers=False)
    attempt = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(f"heartbeat/{environment.get('TORCHELASTIC_RUN_ID')}/{attempt}", store)


def _has_ended(pid: str) -> bool:
    """Whether a process of this machine is no more, or only its exit status is."""
    try:
        stat = Path("/proc", pid, "stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


def _place() -> str:
    """Where a process number means one process: the machine, and the container on it."""
    try:
        container = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 (it is no path)
    except OSError:
        container = str(os.getpid())  # where there is no /proc, nowhere
    return f"{socket.gethostname()}/{container}".replace(" ", "")


def _end(verdict: str) -> None:
    if os.environ["LOCAL_RANK"] == "0":
        sys.stderr.write(f"{program()}: error: {verdict}; so this run ends\n")
        sys.stderr.flush()
    else:
        time.sleep(BEAT)  # the first one's end is the end of the others
    os._exit(OTHER_DIED)
