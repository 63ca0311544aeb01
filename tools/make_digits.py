"""scikit-learn's 1,797 scanned handwritten digits as an image tree.

`python -m tools.make_digits DIR` writes `DIR/{train,val}/<label>/NNNN.png`, 64 × 64 pixels; NNNN is
the image's number in `sklearn.datasets.load_digits`. The split is fixed: four fifths of each label
to train.

With `--scattered`, each digit is there four times, as `NNNN_0.png` to `NNNN_3.png`, 32 × 32 pixels:
`./main.sh`'s data set. Each copy has a size, a turn and a place of its own, on black, so that raw
pixels say little of the label. The same images every time.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
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
SCATTERED_SIDE = 32
COPIES = 4  # of a scattered digit
SIDES = (14, 24)  # of a scattered digit, in pixels: the least and the most
TURN = 15  # degrees, the most to either side


def write_digits(folder: Path, scatter: bool = False) -> None:
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
            for number, label in enumerate(digits.target):
                target = tree / ("val" if number in val else "train") / str(label)
                target.mkdir(parents=True, exist_ok=True)
                grey = np.rint(digits.images[number] * (255 / 16)).astype(np.uint8)
                scan = Image.fromarray(grey)
                for name, image in copies(number, scan) if scatter else whole(number, scan):
                    image.save(target / f"{name}.png")
    except OSError as error:
        raise InputError(f"{folder}: cannot write the digits there: {error.strerror}") from error


def whole(number: int, scan: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    """The name and the image of a digit that fills it."""
    yield f"{number:04d}", scan.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def copies(number: int, scan: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    """The names and the images of a digit's scattered copies, a function of its number."""
    for copy in range(COPIES):
        rng = np.random.default_rng([number, copy])
        side = int(rng.integers(SIDES[0], SIDES[1] + 1))
        large = scan.resize((side, side), Image.Resampling.BICUBIC)
        turned = large.rotate(rng.uniform(-TURN, TURN), Image.Resampling.BICUBIC)
        image = Image.new("L", (SCATTERED_SIDE, SCATTERED_SIDE))
        left, top = (int(each) for each in rng.integers(0, SCATTERED_SIDE - side + 1, 2))
        image.paste(turned, (left, top))
        yield f"{number:04d}_{copy}", image


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Write scikit-learn's handwritten digits as an image tree.",
        example="python -m tools.make_digits datasets/digits",
        details="docs/data.md",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="where to write train/ and val/")
    scattered_help = "each digit four times, at a size, a turn and a place of its own"
    parser.add_argument("--scattered", action="store_true", help=scattered_help)
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    write_digits(args.folder, args.scattered)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
