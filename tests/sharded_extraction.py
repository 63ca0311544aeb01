"""What test_extract_features.py starts under torchrun: extract_features.py with the small network.

Usage: sharded_extraction.py ARGUMENTS OF extract_features.py; afterwards it does the same with
`--whiten 6`, into a folder `white` below.
"""

import argparse
import sys

from conftest import tiny

from extract_features import parse_args, run
from models import MODELS
from parallel.collectives import process_group
from system import cli


def main(args: argparse.Namespace) -> None:
    with process_group("cpu"):
        run(args)
        run(argparse.Namespace(**{**vars(args), "out": args.out / "white", "whiten": 6}))


if __name__ == "__main__":
    MODELS["tiny"] = tiny
    sys.exit(cli.run(main, parse_args))
