"""torchrun with the same arguments, but it passes signals on and says less when it fails.

`python -m parallel.launch --standalone --nproc_per_node 8 main.py DIR …` ends with the exit status
of the process that failed first. After bad input there is only that process's own line. After any
other failure there is torchrun's report, and a last line that names the process.

Signals reach the processes, which take the time they need (see `signals.py`). What the launcher
ignores from its start, as with `nohup`, the processes ignore, too. If all exit with 0, so does the
launcher. (With torchrun's own `--signals-to-handle` it would fail even then.)
"""

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence

import system.interrupt

from torch.distributed import run
from torch.distributed.elastic.multiprocessing import PContext, ProcessFailure
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from parallel.heartbeat import OTHER_DIED, report_death
from parallel.signals import SIGNALS, not_ignored
from system import cli

BAD_INPUT = 2  # exit status, see system/cli.py


def main(argv: Sequence[str] | None = None) -> int:
    """Start the processes and wait for them. Returns the exit status."""
    # torchrun logs each process that ends; the report has the same
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    launched = _Launched()
    launched.forward_signals()
    try:
        tempfile.gettempdir()  # torchrun needs it
    except FileNotFoundError as error:
        sys.stderr.write(f"launch.py: error: {cli.reason_of(error)}\n")
        return BAD_INPUT
    try:
        run.run(_parse_args(argv))
    except ChildFailedError as failed:
        rank, first = _first_of(failed.failures)
        status = first.exitcode if first.exitcode > 0 else 128 - first.exitcode  # like a shell
        if status - 128 in launched.signals:  # a signal was passed on: no report
            return status
        if first.exitcode not in (BAD_INPUT, OTHER_DIED):
            death = _describe(rank, first)
            sys.stderr.write(f"{failed}\nlaunch.py: error: {death}; the others were ended\n")
            sys.stderr.flush()
            if launched.is_part():
                report_death(launched.environment(), death)
        return status
    return 0


def _parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """torchrun's flags, and the script with its own."""
    parser = run.get_args_parser()
    # the others are ours: `forward_signals`
    parser.set_defaults(signals_to_handle="SIGQUIT" if not_ignored([signal.SIGQUIT]) else "")
    parser.usage = "python -m parallel.launch [torchrun's flags] SCRIPT [its flags]"
    parser.epilog = "Details: docs/distributed.md"
    return parser.parse_args(argv)


class _Launched:
    """The processes that torchrun has started, and the signals sent to them."""

    def __init__(self) -> None:
        self.signals: list[int] = []
        self._context: PContext | None = None

    def forward_signals(self) -> None:
        """Pass signals on from the start of the processes. torchrun handles SIGQUIT."""
        start = PContext.start

        def start_and_forward(context: PContext) -> None:
            for number in not_ignored(SIGNALS):
                signal.signal(number, self._forward)
            start(context)
            self._context = context
            for number in self.signals:  # those that came during the start
                self._send(number)

        PContext.start = start_and_forward  # type: ignore[assignment, method-assign]

    def is_part(self) -> bool:
        """Whether there are processes on other machines."""
        return int(self.environment()["WORLD_SIZE"]) > int(self.environment()["LOCAL_WORLD_SIZE"])

    def environment(self) -> dict[str, str]:
        """The environment of the first process."""
        assert self._context is not None
        return self._context.envs[0]

    def _forward(self, number: int, frame: object) -> None:
        self.signals.append(number)
        if self._context is not None:
            self._send(number)

    def _send(self, number: int) -> None:
        assert self._context is not None
        for pid in self._context.pids().values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _first_of(failures: dict[int, ProcessFailure]) -> tuple[int, ProcessFailure]:
    """The failure that caused the others, and its process. Times are whole seconds; within one, a
    process killed by a signal comes first, as it causes lost connections in the others."""

    def order(rank: int) -> tuple[int, bool]:
        code = failures[rank].exitcode
        return failures[rank].timestamp, code >= 0 or code == -signal.SIGTERM

    first = min(failures, key=order)
    return first, failures[first]


def _describe(rank: int, failure: ProcessFailure) -> str:
    how = f"ended with status {failure.exitcode}"
    if failure.exitcode < 0:
        how = f"was killed by {signal.Signals(-failure.exitcode).name}"
    return f"process {rank} (on {socket.gethostname()}, pid {failure.pid}) {how}"


if __name__ == "__main__":
    sys.exit(main())
