"""Signals that ask a run to stop: the first ends it in order, the second at once.

Slurm sends SIGTERM or SIGUSR1 before it takes a machine away, a terminal SIGINT. With many
processes each looks at its own signals, and all stop at the same step.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import forkserver, resource_tracker

import numpy as np

from parallel.collectives import all_reduce, uses_gpus, world_size
from system.errors import Stopped

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name)
)
ONE_SIGNAL = 1.0  # seconds; a launcher and Slurm may both send what was meant as one
_OVER = b"\0"  # there is no such signal
STEPS_BETWEEN_QUESTIONS = 20  # on GPUs, where each would make the host wait for the device


class Stopping:
    """Whether a signal has come.

    Attributes:
        asked: the name of the first one, or None.
    """

    def __init__(self) -> None:
        self.asked: str | None = None
        self._since = 0.0
        self._questions = 0

    def check(self) -> None:
        """Go on, unless a signal has come.

        Raises:
            Stopped: one has.
        """
        if self.asked is not None:
            raise Stopped(self.asked)

    def checked(self, advance: Callable[[int], None]) -> Callable[[int], None]:
        """A function that is told of each step of some work, and ends it where a signal has come.
        To be used within `together`, unless the process is alone."""

        def advance_or_stop(done: int) -> None:
            advance(done)
            self.check()

        return advance_or_stop

    def agreed(self) -> bool:
        """Whether all processes stop here, as one of them has been asked to. All call this together
        after each step; with GPUs they take note of a signal every 20 steps."""
        if world_size() == 1:
            return self.asked is not None
        self._questions += 1
        if uses_gpus() and self._questions % STEPS_BETWEEN_QUESTIONS:
            return False
        asked = all_reduce(np.array([self.asked is not None], np.int64))[0] > 0
        if asked and self.asked is None:
            self.asked = "a signal to another process"
        return bool(asked)

    def receive(self, number: int) -> None:
        """Take note of a signal; the second one ends the process, wherever it is."""
        now = time.monotonic()
        if self.asked is None:
            self._since, self.asked = now, signal.Signals(number).name
        elif now - self._since >= ONE_SIGNAL:
            os._exit(128 + number)  # as a shell has it


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stopping]:
    """Within it, signals are noted rather than followed. Those that are ignored stay so (a shell
    lets its background jobs ignore SIGINT), and outside the main thread all stay as they are.

    They are read in a thread: the main one may be in a long computation, or wait for a process
    that is no more, and the second signal has to end it even then.
    """
    stopping = Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    _shield_fork_server()
    heard, told = os.pipe()
    os.set_blocking(told, False)
    listener = threading.Thread(target=_listen, args=(heard, stopping), daemon=True)
    listener.start()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    noted = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    written_before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    for number in noted:
        signal.signal(number, _note)
    try:
        yield stopping
    finally:
        for number in noted:
            signal.signal(number, before[number])
        signal.set_wakeup_fd(written_before)
        os.write(told, _OVER)  # its end alone says nothing: workers may hold the pipe, too
        listener.join()
        os.close(told)
        os.close(heard)


def ignore_signals(worker: int = 0) -> None:
    """Leave it to the process that started this one to stop: terminals, launchers and Slurm send
    signals to both. For the workers of a `DataLoader`, which end with that process."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _shield_fork_server() -> None:
    """Start what Python 3.14 forks workers from, so that signals do not reach it: the workers would
    end with it. (`ignore_signals` is for the workers themselves, where they are forked from here.)
    """
    if multiprocessing.get_start_method() == "forkserver":
        try:
            for helper in (resource_tracker, forkserver):  # the first lets some through again
                signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
                helper.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _note(number: int, frame: object) -> None:
    """Python has written the number where `_listen` reads it."""


def _listen(heard: int, stopping: Stopping) -> None:
    while (number := os.read(heard, 1)) != _OVER:
        if number[0] in SIGNALS:  # and not that of a child that has ended
            stopping.receive(number[0])
