"""Waiting for batches, so that no fault of a worker, a disk or memory hangs a process.

A thread asks torch's loader for batches. While the main thread waits, it looks twice a second
whether the workers live and whether a signal has come, and says when the wait is long.
"""

import contextlib
import errno
import itertools
import multiprocessing
import queue
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader

from data.order import WholePages, joined
from data.parcel import FEWER, WAYS_OUT, Parcel, describe_room, reason_of
from parallel.collectives import rank, world_size
from system import cli
from system.errors import Fault
from system.names import printable

LOOK = 0.5  # seconds between two looks
PATIENCE = 30.0  # seconds without a batch, before a line says so

T = TypeVar("T")  # a batch
Answer = tuple[Any, BaseException | None]


class Loader(DataLoader[T]):
    """Batches of draws from a dataset of `images`. The workers stay until the process ends.

    Iterating raises Fault if workers can't be started, or if one was killed.

    Args:
        while_waiting: called at each look with the seconds of this wait; may raise.
        pin: put batches into pinned memory, for the current GPU.
        options: of `DataLoader`.
    """

    def __init__(
        self, *args: Any, while_waiting: Callable[[float], None], pin: bool, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._while_waiting, self._pin = while_waiting, pin
        self._workers: list[Any] = []
        self._reader: _Reader | None = None
        self._warned = False

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self._reader = reader = self._start_reader()
        count = len(self)
        # Without workers, reading uses torch's generator: only while the caller waits
        ahead = min(count, 1) if self.num_workers > 0 else 0
        try:
            for _ in range(ahead):
                reader.ask()
            for number in range(count):
                if number + ahead < count:
                    reader.ask()
                yield self._receive(reader, number)
        finally:
            reader.end()

    def _start_reader(self) -> "_Reader":
        if self._reader is not None:
            self._reader.join()  # an iteration that was left early reads its last batch
        gpu = torch.cuda.current_device() if self._pin else None
        batches = self._start_workers()
        if isinstance(self.batch_sampler, WholePages):
            batches = joined(batches)
        reader = _Reader(batches, gpu, self._warn)
        reader.start()
        return reader

    def _start_workers(self) -> Iterator[Any]:
        if self.num_workers == 0:
            return super().__iter__()
        self._check_workers()
        before = multiprocessing.active_children()
        try:
            _check_resources(self.num_workers)
            with _without_handler():
                return super().__iter__()
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise  # no temporary folder
            reason = f"{error.strerror}; {FEWER}" if error.errno else reason_of(error)
            if error.errno == errno.ENOSPC:
                reason = f"{describe_room()}; {WAYS_OUT}"
            raise Fault(f"--workers {self.num_workers}: cannot start them: {reason}") from error
        except RuntimeError:
            self._check_workers()
            raise
        finally:
            children = multiprocessing.active_children()
            self._workers += [child for child in children if child not in before]

    def _receive(self, reader: "_Reader", number: int) -> Any:
        """The next batch of this iteration: its `number`-th, from 0 on."""
        start, said = time.monotonic(), False
        while (answer := reader.answer(LOOK)) is None:
            self._check_workers()
            waited = time.monotonic() - start
            self._while_waiting(waited)
            if waited >= PATIENCE and not said:
                said = True
                _say(f"no images for {waited:.0f} s; waiting for {self._place(number)}")
        batch, error = answer
        if error is not None:
            if self._workers and isinstance(error, (OSError, EOFError, RuntimeError)):
                time.sleep(LOOK)  # a worker that dies can be noticed before its end
                self._check_workers()
            if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
                raise Fault(f"memory ran out while images were read; {FEWER}") from error
            try:
                raise error
            finally:
                del error, answer  # a circle through this frame would keep the workers
        if said:
            _say(f"images come again after {time.monotonic() - start:.0f} s")
        return batch

    def _warn(self, obstacle: str) -> None:
        if not self._warned:
            self._warned = True
            cli.warn(f"batches travel through pipes, which is slower: {obstacle}")

    def _check_workers(self) -> None:
        dead = [worker for worker in self._workers if worker.exitcode]
        if dead:
            for worker in self._workers:  # they may wait for a lock of the dead one
                worker.kill()
            raise Fault(_describe_death(dead[0].pid, dead[0].exitcode))

    def _place(self, number: int) -> str:
        """Where the images of a batch are: its first one, if it has any."""
        order: Any = self.batch_sampler
        batches = order.batches if isinstance(order, WholePages) else order
        draws: list[Any] = next(itertools.islice(batches, number, None), [])
        images = self.dataset.images  # type: ignore[attr-defined]
        return f"{images.where(draws[0].image)} and others" if draws else str(images.root)


class _Reader(threading.Thread):
    """Takes a batch from torch's iterator whenever one is asked for.

    Args:
        gpu: the GPU that batches are pinned for, if any.
        on_obstacle: called with the reason why a batch was not in shared memory.
    """

    def __init__(
        self, batches: Iterator[Any], gpu: int | None, on_obstacle: Callable[[str], None]
    ) -> None:
        super().__init__(daemon=True)  # a read from a dead disk may never return
        self._batches, self._gpu, self._on_obstacle = batches, gpu, on_obstacle
        self._asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()

    def ask(self) -> None:
        self._asked.put(True)

    def end(self) -> None:
        """End the thread after the batches that were asked for."""
        self._asked.put(False)

    def answer(self, seconds: float) -> Answer | None:
        """A batch, or the error that came instead; None if neither comes in time."""
        try:
            return self._answers.get(timeout=seconds)
        except queue.Empty:
            return None

    def run(self) -> None:
        if self._gpu is not None:
            torch.cuda.set_device(self._gpu)
            torch.set_num_threads(1)  # copying to pinned memory leaves the cores to others
        while self._asked.get():
            try:
                answer: Answer = self._open(next(self._batches)), None
            except BaseException as error:
                answer = None, error
            self._answers.put(answer)
            del answer  # the memory of a batch
        del self._batches, self._on_obstacle  # a circle through the loader

    def _open(self, batch: Any) -> Any:
        if isinstance(batch, Parcel):
            if batch.obstacle:
                self._on_obstacle(batch.obstacle)
            batch = batch.open()
        return batch if self._gpu is None else batch.pin_memory()


def _check_resources(workers: int) -> None:
    """Fail early, and not in the middle of torch's work: workers need a temporary folder, and
    queues, which are in shared memory.

    Raises:
        OSError: there is no room, for example.
    """
    tempfile.gettempdir()
    queues: list[Any] = [multiprocessing.Queue() for _ in range(workers + 2)]
    del queues


@contextlib.contextmanager
def _without_handler() -> Iterator[None]:
    """Undo torch's handler of SIGCHLD, which would raise in the middle of any other work."""
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before)


def _describe_death(pid: int, code: int) -> str:
    if code > 0:
        return f"a process that reads images (pid {pid}) ended with status {code}"
    name = signal.Signals(-code).name
    why = {
        "SIGKILL": f", as the kernel does when memory runs out; {FEWER}",
        "SIGBUS": f", as when shared memory runs out: {describe_room()}; {WAYS_OUT}",
    }
    return f"a process that reads images (pid {pid}) was killed by {name}{why.get(name, '')}"


def _say(line: str) -> None:
    """On stderr: the others may have their batches."""
    process = f"process {rank()}: " if world_size() > 1 else ""
    sys.stderr.write(f"{process}{printable(line)}\n")
    sys.stderr.flush()
