"""Signs of life: when a process dies, the others end within a minute, on every machine.

Without this they might wait for hours: NCCL doesn't notice that a process on another machine is
gone, and a launcher watches only its own machine. A thread of each process writes beats to
torchrun's store, and watches two others: the next rank, and the next one on its machine. A process
that finds one dead, or the launcher of the dead process, records the death in the store; every
process reads it and ends.
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

OTHER_DIED = 3  # exit status of a process that ends because another one has died
BEAT = 2.0  # seconds
PATIENCE = 12  # beats; a computation can block Python's threads for a while
MOST_FAILURES = 3  # to reach the store, in a row; a launcher can be busy for a moment
LONGEST_START = timedelta(minutes=5)  # from the first process to the last
VERDICT = "verdict"


class Heartbeat(threading.Thread):
    """Beats until `finish`, and ends this process if another one is dead."""

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
                verdict = self._read(VERDICT) or self._find_dead()
                failures = 0
            except RuntimeError:  # the base of torch.distributed's errors
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
        """Stop beating, because the process ends without an error."""
        self._over.set()
        self.join()
        with contextlib.suppress(RuntimeError):  # the launcher may have ended, too
            self._store.set(str(self._rank), "done")

    def await_verdict(self) -> None:
        """Wait until the heartbeat reports the dead process and ends this one."""
        self.join((PATIENCE + 2) * BEAT)

    def _beat(self) -> None:
        self._beats += 1
        self._store.set(str(self._rank), f"{self._beats} {_place()} {os.getpid()}")

    def _find_dead(self) -> str | None:
        for other in self._watched:
            beat = self._read(str(other))
            self._silent[other] = self._silent[other] + 1 if beat == self._last[other] else 0
            self._last[other] = beat
            if beat in ("", "done"):  # not started, or finished
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
    """Wait a few minutes until all processes have started: a collective would wait for hours.

    Raises:
        InputError: some haven't started.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return  # process 0 has the store, so there may be none yet
    store = _open_store(os.environ)
    here = [f"came {rank}" for rank in range(int(os.environ["WORLD_SIZE"]))]
    store.set(f"came {os.environ['RANK']}", "")
    try:
        store.wait(here, LONGEST_START)
    except RuntimeError as error:
        missing = [key.split()[1] for key in here if not store.check([key])]
        raise InputError(
            f"process {', '.join(missing)} has not started within {LONGEST_START}: see its output "
            "and its machine"
        ) from error


def is_lost_connection(error: Exception) -> bool:
    """Whether an error may come from a collective that lost another process."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def report_death(environment: Mapping[str, str], verdict: str) -> None:
    """Tell the processes on other machines that one has died.

    Args:
        environment: the environment variables of the dead process.
    """
    with contextlib.suppress(RuntimeError):  # the store may be gone
        _open_store(environment).set(VERDICT, verdict)
    time.sleep(2 * BEAT)  # this launcher may have the store, which ends with it


def _open_store(environment: Mapping[str, str]) -> dist.Store:
    """A new connection: a shared one is blocked while a process waits in it."""
    host, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
    limit = timedelta(seconds=5 * BEAT)
    store = dist.TCPStore(host, port, None, False, limit, wait_for_workers=False)
    attempt = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(f"heartbeat/{environment.get('TORCHELASTIC_RUN_ID')}/{attempt}", store)


def _has_ended(pid: str) -> bool:
    """Whether a process of this machine is gone or a zombie."""
    try:
        stat = Path("/proc", pid, "stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


def _place() -> str:
    """The machine and the container, within which a process number is unique."""
    try:
        container = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 (not a path)
    except OSError:
        container = str(os.getpid())  # without /proc, no two processes share a place
    return f"{socket.gethostname()}/{container}".replace(" ", "")


def _end(verdict: str) -> None:
    if os.environ["LOCAL_RANK"] == "0":
        sys.stderr.write(f"{program()}: error: {verdict}; so this run ends\n")
        sys.stderr.flush()
    else:
        time.sleep(BEAT)  # let the first process print its line
    os._exit(OTHER_DIED)
