"""Files that --move-duplicates moved away, back to their old places."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import system.interrupt

from data.moving import move_back
from system import cli
from system.names import printable


def main(args: argparse.Namespace) -> None:
    done, left = move_back(args.folder)
    for path in left:
        sys.stderr.write(f"left: {printable(path)}: both its places are taken, or neither\n")
    sys.stdout.write(f"{len(done):,} files moved back, {len(left):,} left\n")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Move files back that --move-duplicates has moved.",
        example="python -m tools.move_back duplicates",
        details="docs/own-images.md",
    )
    folder_help = "folder that the files were moved to, with its moved.csv"
    parser.add_argument("folder", metavar="DIR", type=Path, help=folder_help)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
