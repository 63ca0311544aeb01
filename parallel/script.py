"""`cli.run` for scripts that torchrun may start: it joins the processes, of which one prints."""

import argparse
import sys
from collections.abc import Callable, Sequence

from parallel.collectives import process_group, rank
from system import cli

ParseArgs = Callable[[Sequence[str] | None], argparse.Namespace]


def run(
    main: Callable[[argparse.Namespace], None],
    parse_args: ParseArgs,
    argv: Sequence[str] | None = None,
) -> int:
    """`cli.run`, with `main` called within `process_group`. The flags must include `--device`.
    Returns the exit status."""

    def joined(args: argparse.Namespace) -> None:
        with process_group(args.device):
            main(args)

    return cli.run(joined, parse_args, argv)


def say(lines: str) -> None:
    """Print from the first process."""
    if rank() == 0:
        sys.stdout.write(lines)
        sys.stdout.flush()
