"""The beginning of every script that torchrun may start: `cli.run`, with the processes joined.

It is not in system/cli.py, as system/ imports no other room.
"""

import argparse
from collections.abc import Callable, Sequence

from parallel.collectives import process_group
from parallel.signals import Stopping, stop_on_signals
from system import cli

ParseArgs = Callable[[Sequence[str] | None], argparse.Namespace]


def run(
    main: Callable[[argparse.Namespace], None],
    parse_args: ParseArgs,
    argv: Sequence[str] | None = None,
) -> int:
    """`cli.run`, with `main` called once all processes have joined. Returns the exit status.

    The flags have to have `--device`.
    """

    def joined(args: argparse.Namespace) -> None:
        with process_group(args.device):
            main(args)

    return cli.run(joined, parse_args, argv)


def run_until_stopped(
    main: Callable[[argparse.Namespace, Stopping], None],
    parse_args: ParseArgs,
    argv: Sequence[str] | None = None,
) -> int:
    """`run` for a script that saves its work when a signal asks it to stop: `main` is also called
    with the `Stopping` that notes the signal, as of before the processes join."""

    def stoppable(args: argparse.Namespace) -> None:
        with stop_on_signals() as stopping, process_group(args.device):
            main(args, stopping)

    return cli.run(stoppable, parse_args, argv)
