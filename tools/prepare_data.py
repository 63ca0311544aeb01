"""Copy a data set at the size it is trained at, once, for disks that are slower than the network.

Images whose short side is longer than `--size` are resized to it, as training would do first, and
the others are copied byte for byte. The copy has the same folders and file names, so that labels
and order stay the same (and the images' numbers, where none is unreadable). A JPEG stays one; every
other format becomes PNG, which loses nothing, under the name that it has: a file's bytes say what
it is, not its name's ending.

Each file appears whole or not at all, and one that is there is not made again: after an
interruption the same command goes on.
"""

import argparse
import contextlib
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as F

from data.decode import UnreadableImageError, exif_key, read_pixels
from data.images import MOST_UNREADABLE, ImageList, find_images
from data.loading import add_exif_flag, add_max_pixels_flag, set_decoding
from system import cli, flags, kept
from system.errors import InputError
from system.files import atomic_write, remove_leftovers
from system.locks import sole_user
from system.names import printable
from system.progress import progress

JPEG_START = b"\xff\xd8\xff"
RECORD = "prepare_data.json"  # in the target: what it was made with
LOCK = ".prepare_data.lock"
BATCH = 16  # images that a process reports together


@dataclass(frozen=True)
class Copied:
    """What became of an image: bytes before and after, `how`, and why it is not there."""

    index: int
    before: int
    after: int
    how: str  # "resized", "copied", "there already", "unreadable" or "failed"
    reason: str = ""


class Copies(Dataset[Copied]):
    """Image `i` is copied when item `i` is taken, by whichever process takes it."""

    def __init__(self, images: ImageList, target: Path, size: int, quality: int) -> None:
        self.images, self.target, self.size, self.quality = images, target, size, quality

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Copied:
        source, target = Path(self.images.where(index)), self.target / self.images.names[index]
        try:
            if _is_done(source, target):
                sizes = source.stat().st_size, target.stat().st_size
                return Copied(index, *sizes, "there already")
            with self.images.open(index) as file:
                pixels = read_pixels(file)
                file.seek(0)
                content = file.read()
        except (UnreadableImageError, OSError) as error:
            return Copied(index, 0, 0, "unreadable", str(error))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(target, durable=False) as file:
                if min(pixels.shape[1:]) <= self.size:
                    file.write(content)
                else:
                    resized = F.resize(pixels, [self.size]).permute(1, 2, 0)
                    kind = "JPEG" if content.startswith(JPEG_START) else "PNG"
                    Image.fromarray(resized.numpy()).save(file, kind, quality=self.quality)
        except OSError as error:
            return Copied(index, 0, 0, "failed", f"{target}: {error.strerror or error}")
        how = "copied" if min(pixels.shape[1:]) <= self.size else "resized"
        return Copied(index, len(content), target.stat().st_size, how)


def _is_done(source: Path, target: Path) -> bool:
    """Whether a copy is there, younger than the source, and not empty as after a crash of the
    machine."""
    if not target.exists():
        return False
    copy = target.stat()
    return copy.st_size > 0 and copy.st_mtime >= source.stat().st_mtime


def main(args: argparse.Namespace) -> None:
    if args.quality > 100:
        raise InputError(f"--quality {args.quality}: give a number from 1 to 100")
    if args.source.is_file():
        raise InputError(f"{args.source}: is a file; give the folder that the images lie in")
    decode_as_asked = functools.partial(set_decoding, args, {})
    decode_as_asked()
    images = find_images(args.source)
    check_apart(images, args.target)
    source = str(args.source.resolve())
    settings = {"source": source, "size": args.size, "quality": args.quality, **exif_key()}
    with begin(args.target, settings):
        copies = Copies(images, args.target, args.size, args.quality)
        workers = min(args.workers, len(images) // BATCH)
        loader = DataLoader(
            copies, BATCH, num_workers=workers, collate_fn=list, worker_init_fn=decode_as_asked
        )
        sums = Sums()
        with progress("copying", len(images), "images") as advance:
            for batch in loader:
                for copied in batch:
                    report(images, copied)
                    sums.add(copied)
                advance(len(batch))
    sys.stdout.write(f"{sums}\n")
    if sums.counts["unreadable"] > MOST_UNREADABLE * len(images):
        raise InputError(
            f"{args.source}: more than {MOST_UNREADABLE:.0%} of the images are unreadable, see "
            "above; mend or remove them, and start again"
        )


def check_apart(images: ImageList, target: Path) -> None:
    """Check that nothing of the source is in the target, nor the target in the source.

    Raises:
        InputError: it is, perhaps by way of a symbolic link.
    """
    inside = target.resolve()
    root = images.root.resolve()
    if inside.is_relative_to(root):
        raise InputError(f"{target}: lies in the source {images.root}; give a folder outside it")
    folders = {os.path.dirname(images.where(i)) for i in range(len(images))}  # noqa: PTH120 (hot)
    for folder in sorted({str(root), *folders}):
        if Path(folder).resolve().is_relative_to(inside):
            raise InputError(f"{target}: holds images of the source, in {folder}; give another")


@contextlib.contextmanager
def begin(target: Path, settings: kept.Key) -> Iterator[None]:
    """Make the target, or go on with one that was begun with the same settings, source included;
    it is this process's alone until the block ends.

    Raises:
        InputError: it holds something else, cannot be written, or another process is at it.
    """
    record = target / RECORD
    try:
        target.mkdir(parents=True, exist_ok=True)
        if not record.exists() and any(target.iterdir()):
            raise InputError(
                f"{target}: is neither empty nor a copy begun here; give another TARGET"
            )
        kept.begin(record, settings, "give another TARGET")
    except OSError as error:
        raise InputError(f"{target}: cannot write a copy there: {error.strerror}") from error
    with sole_user(target / LOCK, f"{target}: another process is copying there; wait for it"):
        remove_leftovers(target)
        yield


def report(images: ImageList, copied: Copied) -> None:
    """Name an image that is left out.

    Raises:
        InputError: the target cannot be written.
    """
    if copied.how == "failed":
        raise InputError(f"{copied.reason}; make room or give another TARGET, and start again")
    if copied.how == "unreadable":
        path = printable(images.where(copied.index))
        sys.stderr.write(f"left out, unreadable: {path}: {copied.reason}\n")


class Sums:
    """What came of it all; as text, in one line."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(("resized", "copied", "there already", "unreadable"), 0)
        self.before = self.after = 0

    def add(self, copied: Copied) -> None:
        self.counts[copied.how] += 1
        self.before += copied.before
        self.after += copied.after

    def __str__(self) -> str:
        counts = self.counts
        images = sum(counts.values()) - counts["unreadable"]
        share = f" ({self.after / self.before:.0%})" if self.before else ""
        return (
            f"{images:,} images, {self.before / 1e6:,.1f} MB → {self.after / 1e6:,.1f} MB{share}: "
            f"{counts['resized']:,} resized, {counts['copied']:,} copied as they are, "
            f"{counts['there already']:,} there already; "
            f"{counts['unreadable']:,} unreadable, left out"
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
    flags.add_size(parser, 256, "short side in pixels; 256/224 of the --size that is trained at")
    # Photos at 256: 17, 23, 30, 44 kB and on average 4.3, 3.5, 3.0, 2.1 grey levels off
    quality_help = "of resized JPEGs, 1 to 100; 85 takes a quarter less room, 95 half as much again"
    add("--quality", type=cli.whole_number(1), default=90, help=quality_help)
    flags.add_workers(parser, os.cpu_count(), "processes; left out: one for each core")
    add_max_pixels_flag(parser)
    add_exif_flag(parser, "ignore")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
