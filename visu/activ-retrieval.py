# ruff: noqa: N999 (the name that users know)

"""`activ_retrieval.py` as a script, under the name that the paper's code has for it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
from visu.activ_retrieval import main, parse_args

if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
