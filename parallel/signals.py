"""Signals that stop a run: the first after the step, the second at once.

Slurm sends SIGTERM or SIGUSR1 before it takes a machine away; Ctrl-C sends SIGINT; a terminal that
closes sends SIGHUP, which `nohup` ignores. If any process gets a signal, all stop at the same step.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import forkserver, resource_tracker

import numpy as np

from parallel.collectives import all_reduce, rank, uses_gpus, world_size
from system.errors import Fault, Stopped
from system.progress import drop_lost_terminal

NAMES = ("SIGTERM", "SIGUSR1", "SIGINT", "SIGHUP")
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
ONE_SIGNAL = 1.0  # seconds; a launcher and Slurm may both send the same one
LONGEST_WAIT = 5.0  # seconds, after a signal, for a batch that other processes wait for, too
_OVER = b"\0"  # not a signal's number
STEPS_BETWEEN_QUESTIONS = 20  # on GPUs, where each question waits for the device


class Stopping:
    """Whether a signal has come: `asked` is the name of the first one, or None."""

    def __init__(self) -> None:
        self.asked: str | None = None
        self._since = 0.0
        self._questions = 0

    def check(self) -> None:
        """Raise Stopped if a signal has come."""
        if self.asked is not None:
            raise Stopped(self.asked)

    def checked(self, advance: Callable[[int], None]) -> Callable[[int], None]:
        """A function that calls `advance`, then `check`. With several processes, use it within
        `together`."""

        def advance_or_stop(done: int) -> None:
            advance(done)
            self.check()

        return advance_or_stop

    def agreed(self) -> bool:
        """Whether any process has got a signal. All call this together after each step; on GPUs
        they ask each other every 20 steps."""
        if world_size() == 1:
            return self.asked is not None
        self._questions += 1
        if uses_gpus() and self._questions % STEPS_BETWEEN_QUESTIONS:
            return False
        asked = all_reduce(np.array([self.asked is not None], np.int64))[0] > 0
        if asked and self.asked is None:
            self.asked = "a signal to another process"
        return bool(asked)

    def while_waiting(self) -> Callable[[float], None]:
        """A function for loaders, which they call with the seconds of a wait for a batch: `check`.
        With several processes, use it within `together`."""
        return lambda seconds: self.check()

    def while_waiting_to_train(self, save: Callable[[], None]) -> Callable[[float], None]:
        """Such a function for batches that all processes train on together. In a single process it
        calls `save` before it raises Stopped. One of several can't save, because the others may
        already be in the step; it raises Fault."""

        def follow(seconds: float) -> None:
            if self.asked is None:
                return
            if world_size() == 1:
                save()
                self.check()
            elif seconds > LONGEST_WAIT:
                raise Fault(
                    f"{self.asked} came while process {rank()} waited for images; to resume from "
                    "the last checkpoint: the same command with --resume auto"
                )

        return follow

    def receive(self, number: int) -> None:
        """Note the first signal; end the process at the second."""
        now = time.monotonic()
        if self.asked is None:
            drop_lost_terminal()
            self._since, self.asked = now, signal.Signals(number).name
        elif now - self._since >= ONE_SIGNAL:
            os._exit(128 + number)  # like a shell


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stopping]:
    """Note signals instead of dying from them. Ignored ones stay ignored (as SIGINT in a shell's
    background jobs), and outside the main thread nothing changes.

    A thread reads them, so that the second signal ends the process even if the main thread is in a
    long computation or waits for another process.
    """
    stopping = Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    _shield_fork_server()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    listener = threading.Thread(target=_listen, args=(reading, stopping), daemon=True)
    listener.start()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    noted = not_ignored(SIGNALS)
    wakeup_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in noted:
        signal.signal(number, _note)
    try:
        yield stopping
    finally:
        for number in noted:
            signal.signal(number, before[number])
        signal.set_wakeup_fd(wakeup_before)
        os.write(writing, _OVER)  # closing isn't enough: workers may have the pipe open, too
        listener.join()
        os.close(writing)
        os.close(reading)


def not_ignored(numbers: Iterable[int]) -> list[int]:
    """The signals that this process doesn't ignore. `nohup` ignores SIGHUP, and a shell SIGINT and
    SIGQUIT of its background jobs."""
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


def ignore_signals(worker: int = 0) -> None:
    """Let a `DataLoader` worker ignore signals, which terminals, launchers and Slurm send to all
    processes. The worker ends with the process that started it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _shield_fork_server() -> None:
    """Start the server from which Python 3.14 forks workers, with signals blocked: if a signal
    ended it, the workers would end, too. (`ignore_signals` protects only the workers.)"""
    if multiprocessing.get_start_method() == "forkserver":
        try:
            for helper in (resource_tracker, forkserver):  # the first unblocks some signals
                signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
                helper.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _note(number: int, frame: object) -> None:
    """Nothing to do: Python writes the number to the pipe that `_listen` reads."""


def _listen(reading: int, stopping: Stopping) -> None:
    while (number := os.read(reading, 1)) != _OVER:
        if number[0] in SIGNALS:  # SIGCHLD comes, too
            stopping.receive(number[0])
