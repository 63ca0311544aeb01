"""torchrun, as the scripts here start it: the same arguments, signals that reach the processes, and
less to read when it fails.

`python -m parallel.launch --standalone --nproc_per_node 8 main.py DIR …` ends with the exit status
of the process that failed first. If its input was wrong, the process has said so, and torchrun's
report would only bury that line. Any other failure, as when the kernel killed a process, is shown,
and below it a line that names the process.

torchrun's own `--signals-to-handle` and `--shutdown-timeout` also pass signals on, but it then
fails even if all processes end well, and does not say which of them failed. Here the signal reaches
the processes, which may take the time they need (see `signals.py`); if all end well, so does this.
"""

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence

from torch.distributed import run
from torch.distributed.elastic.multiprocessing import PContext, ProcessFailure
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from parallel.heartbeat import OTHER_DIED, report_death
from parallel.signals import SIGNALS

BAD_INPUT = 2  # the exit status for it, see system/cli.py


def main(argv: Sequence[str] | None = None) -> int:
    """Start the processes and wait for them. Returns the exit status."""
    # what it says of each process that ends is in the report, too
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    launched = _Launched()
    launched.forward_signals()
    try:
        run.run(_parse_args(argv))
    except ChildFailedError as failed:
        rank, first = _first_of(failed.failures)
        status = first.exitcode if first.exitcode > 0 else 128 - first.exitcode  # as a shell has it
        if status - 128 in launched.signals:  # as it was asked to
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
    parser.set_defaults(signals_to_handle="SIGHUP,SIGQUIT")  # the others: `forward_signals`
    parser.usage = "python -m parallel.launch [torchrun's flags] SCRIPT [its flags]"
    parser.epilog = "Details: docs/distributed.md"
    return parser.parse_args(argv)


class _Launched:
    """The processes that torchrun has started, and the signals that they were sent."""

    def __init__(self) -> None:
        self.signals: list[int] = []
        self._context: PContext | None = None

    def forward_signals(self) -> None:
        """Pass on the signals that come from when the processes are started. torchrun itself deals
        with SIGHUP and SIGQUIT."""
        start = PContext.start

        def start_and_forward(context: PContext) -> None:
            for number in SIGNALS:
                signal.signal(number, self._forward)
            start(context)
            self._context = context
            for number in self.signals:  # that came meanwhile
                self._send(number)

        PContext.start = start_and_forward  # type: ignore[assignment, method-assign]

    def is_part(self) -> bool:
        """Whether there are processes on other machines."""
        return int(self.environment()["WORLD_SIZE"]) > int(self.environment()["LOCAL_WORLD_SIZE"])

    def environment(self) -> dict[str, str]:
        """The variables of the first process."""
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
    """The failure that the others come from, and its process. Their times are whole seconds: within
    one, a process that the kernel has ended is the cause of another's lost connection."""

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
