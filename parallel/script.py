"""The beginning of every script that torchrun may start: `cli.run`, with the processes joined.

It is not in system/cli.py, as system/ imports no other room.
"""

import argparse
from collections.abc import Callable, Sequence

from parallel.collectives import process_group
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
