"""Copy a data set once at the size it is trained at, for disks that are slower than the network.

Images whose short side is longer than `--size` are resized to it, as training would do first; the
others are copied byte for byte. Folders and file names stay the same, and with them the labels and
the order. A JPEG stays a JPEG; every other format becomes PNG, without loss, under its old name (a
file's format is detected from its bytes).

Each file appears whole or not at all. After an interruption the same command continues with the
files that are missing.
"""

import argparse
import contextlib
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import system.interrupt

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as F

from data.decode import UnreadableImageError, limit_pixels, read_pixels
from data.images import MOST_UNREADABLE, ImageList, find_images, remedy
from data.levels import warn_of_lost_levels
from data.loading import Draw, EpochBatches, add_max_pixels_flag, make_loader
from data.reading import Reading, add_reading_flags, range_of
from system import cli, flags, kept
from system.cores import allowed_cores
from system.errors import InputError
from system.files import atomic_write, remove_leftovers
from system.locks import sole_user
from system.names import printable
from system.progress import progress

JPEG_START = b"\xff\xd8\xff"
RECORD = "prepare_data.json"  # in the target: the settings of the copy
LOCK = ".prepare_data.lock"
BATCH = 16  # images that a process reports together


@dataclass(frozen=True)
class Copied:
    """An image's bytes before and after, and the reason if it has no copy."""

    index: int
    before: int
    after: int
    how: str  # "resized", "copied", "there already", "unreadable" or "failed"
    reason: str = ""


class Copies(Dataset[Copied]):
    """Taking an item, in any process, copies its image."""

    def __init__(self, images: ImageList, target: Path, size: int, quality: int) -> None:
        self.images, self.target, self.size, self.quality = images, target, size, quality

    def __getitem__(self, draw: Draw) -> Copied:
        index = draw.image
        source, target = Path(self.images.where(index)), self.target / self.images.names[index]
        try:
            if _is_done(source, target):
                sizes = source.stat().st_size, target.stat().st_size
                return Copied(index, *sizes, "there already")
            with self.images.open(index) as file:
                pixels = read_pixels(file, self.images.reading)
                file.seek(0)
                content = file.read()
        except (UnreadableImageError, OSError) as error:
            return Copied(index, 0, 0, "unreadable", str(error))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(target, durable=False) as file:
                small = min(pixels.shape[1:]) <= self.size
                if small:
                    file.write(content)
                else:
                    resized = F.resize(pixels, [self.size]).permute(1, 2, 0)
                    kind = "JPEG" if content.startswith(JPEG_START) else "PNG"
                    Image.fromarray(resized.numpy()).save(file, kind, quality=self.quality)
        except OSError as error:
            return Copied(index, 0, 0, "failed", f"{target}: {error.strerror or error}")
        how = "copied" if small else "resized"
        return Copied(index, len(content), target.stat().st_size, how)


def _is_done(source: Path, target: Path) -> bool:
    """Whether a copy exists that is newer than the source, and not empty, as a crash of the machine
    leaves it."""
    if not target.exists():
        return False
    copy = target.stat()
    return copy.st_size > 0 and copy.st_mtime >= source.stat().st_mtime


def main(args: argparse.Namespace) -> None:
    if args.quality > 100:
        raise InputError(f"--quality {args.quality}: give a number from 1 to 100")
    if args.source.is_file():
        raise InputError(f"{args.source}: is a file; give the folder of the images")
    limit_pixels(args.max_pixels)
    images = find_images(args.source, Reading(args.exif, range_of(args.range)))
    warn_of_lost_levels(images)
    if args.target.resolve().is_relative_to(images.root.resolve()):
        raise InputError(f"{args.target}: is in the source; give a folder outside {args.source}")
    source = str(args.source.resolve())
    settings = {"source": source, "size": args.size, "quality": args.quality, **images.reading.key}
    with begin(args.target, settings):
        copies = Copies(images, args.target, args.size, args.quality)
        workers = min(args.workers, len(images) // BATCH)
        batches = EpochBatches(BATCH)
        batches.start_epoch(0, np.arange(len(images)))
        loader = make_loader(copies, batches, workers, torch.device("cpu"), collate_fn=list)
        sums, reasons = Counter[str](), set[str]()
        with progress("copying", len(images), "images") as advance:
            for batch in loader:
                for copied in batch:
                    report(images, copied)
                    sums.update({copied.how: 1, "before": copied.before, "after": copied.after})
                    reasons |= {copied.reason} - {""}
                advance(len(batch))
    sys.stdout.write(f"{in_words(sums)}\n")
    if sums["unreadable"] > MOST_UNREADABLE * len(images):
        raise InputError(
            f"{args.source}: more than {MOST_UNREADABLE:.0%} of the images are unreadable, see "
            f"above; {remedy(reasons)}, and start again"
        )


@contextlib.contextmanager
def begin(target: Path, settings: kept.Key) -> Iterator[None]:
    """Make the target, or continue one that was begun with the same settings, and lock it until the
    block ends.

    Raises:
        InputError: it holds other files, can't be written, or another process is copying there.
    """
    record = target / RECORD
    try:
        target.mkdir(parents=True, exist_ok=True)
        if not record.exists() and any(target.iterdir()):
            raise InputError(f"{target}: is neither empty nor a copy; give another TARGET")
        kept.begin(record, settings, "give another TARGET")
    except OSError as error:
        raise InputError(f"{target}: cannot write a copy there: {error.strerror}") from error
    with sole_user(target / LOCK, f"{target}: another process is copying there; wait for it"):
        remove_leftovers(target)
        yield


def report(images: ImageList, copied: Copied) -> None:
    """Name an image that is left out.

    Raises:
        InputError: the target can't be written.
    """
    if copied.how == "failed":
        raise InputError(
            f"{copied.reason}; free some space or give another TARGET, and start again"
        )
    if copied.how == "unreadable":
        path = printable(images.where(copied.index))
        sys.stderr.write(f"left out, unreadable: {path}: {copied.reason}\n")


def in_words(sums: Counter[str]) -> str:
    """The outcome in one line."""
    before, after = sums["before"], sums["after"]
    images = sums["resized"] + sums["copied"] + sums["there already"]
    share = f" ({after / before:.0%})" if before else ""
    return (
        f"{images:,} images, {before / 1e6:,.1f} MB → {after / 1e6:,.1f} MB{share}: "
        f"{sums['resized']:,} resized, {sums['copied']:,} copied as they are, "
        f"{sums['there already']:,} there already; {sums['unreadable']:,} unreadable, left out"
    )


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description=__doc__,
        example="python -m tools.prepare_data /imagenet/train /fast/train256",
        details="docs/data.md",
    )
    add = parser.add_argument
    add("source", metavar="SOURCE", type=Path, help="folder of images, nested or flat")
    add("target", metavar="TARGET", type=Path, help="new folder for the copy, or one begun before")
    flags.add_size(parser, 256, "short side in pixels; 256/224 of the training's --size")
    quality_help = "JPEG quality, 1 to 100; files are 25%% smaller at 85, 50%% larger at 95"
    add("--quality", type=cli.whole_number(1), default=90, help=quality_help)
    flags.add_workers(parser, allowed_cores(), "processes; left out: one for each core")
    add_max_pixels_flag(parser)
    add_reading_flags(parser, trained=False)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
