"""scikit-learn's 1,797 scanned handwritten digits as an image tree, `./main.sh`'s data set.

`python -m tools.make_digits DIR` writes `DIR/{train,val}/<label>/NNNN.png`; NNNN is the image's
number in `sklearn.datasets.load_digits`. The split is fixed: four fifths of each label to train.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import system.interrupt

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from system import cli
from system.errors import InputError
from system.files import atomic_folder

SIDE = 64  # pixels; the scans of 8 × 8 are too small to look at, or to crop at random


def write_digits(folder: Path) -> None:
    """Write the tree, whole or not at all; a folder that exists is left alone.

    Raises:
        InputError: the folder can't be written.
    """
    if folder.exists():
        return
    digits = load_digits()
    _, val = train_test_split(
        np.arange(len(digits.target)), test_size=0.2, stratify=digits.target, random_state=0
    )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(folder) as tree:
            for number in range(len(digits.target)):
                split = "val" if number in val else "train"
                target = tree / split / str(digits.target[number])
                target.mkdir(parents=True, exist_ok=True)
                grey = np.rint(digits.images[number] * (255 / 16)).astype(np.uint8)
                scan = Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
                scan.save(target / f"{number:04d}.png")
    except OSError as error:
        raise InputError(f"{folder}: cannot write the digits there: {error.strerror}") from error


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
