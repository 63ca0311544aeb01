"""The embedded data set: scikit-learn's 1,797 scanned handwritten digits as an image tree.

`python -m tools.make_digits DIR` writes `DIR/{train,val}/<label>/NNNN.png` once; NNNN is the
image's number in `sklearn.datasets.load_digits`. The split is fixed: four fifths to train, by
label.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from system import cli
from system.errors import InputError

SIDE = 64  # pixels; the scans are 8 × 8, too small to look at or to crop at random


def write_digits(folder: Path) -> None:
    """Write the tree, whole or not at all; a tree that is there already is left as it is.

    Raises:
        InputError: the folder cannot be written.
    """
    if folder.exists():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".digits.") as temporary:
            tree = Path(temporary, "tree")
            _write_tree(tree)
            shutil.move(tree, folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot write the digits there: {error.strerror}") from error


def _write_tree(tree: Path) -> None:
    digits = load_digits()
    numbers = np.arange(len(digits.target))
    train, val = train_test_split(
        numbers, test_size=0.2, stratify=digits.target, random_state=0, shuffle=True
    )
    for split, members in (("train", train), ("val", val)):
        for number in sorted(members):
            folder = tree / split / str(digits.target[number])
            folder.mkdir(parents=True, exist_ok=True)
            grey = np.rint(digits.images[number] * (255 / 16)).astype(np.uint8)
            scan = Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            scan.save(folder / f"{number:04d}.png")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Write scikit-learn's handwritten digits as an image tree.",
        example="python -m tools.make_digits datasets/digits",
        details="docs/data.md",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="where to write train/ and val/")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    write_digits(args.folder)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
