"""Started by test_extract_features.py under torchrun: extract_features.py with the tiny network.

Usage: sharded_extraction.py ARGUMENTS OF extract_features.py; then the same with `--whiten` into
the subfolder `white`.
"""

import argparse
import sys

from conftest import tiny

import extract_features
from cluster.components import AUTO
from features import rows
from models import MODELS
from parallel import script


def main(args: argparse.Namespace) -> None:
    extract_features.main(args)
    white = {"out": args.out / "white", "whiten": AUTO}
    extract_features.main(argparse.Namespace(**{**vars(args), **white}))


if __name__ == "__main__":
    MODELS["tiny"] = tiny
    rows.LENGTH = 8  # images of a shard, as in the test
    sys.exit(script.run(main, extract_features.parse_args))
