"""Copy a data set once at the size it is trained at, for disks that are slower than the network.

Images whose short side is longer than `--size` are resized to it, as training would do first; the
others are copied byte for byte. Folders and file names stay the same, and with them the labels and
the order. A JPEG stays a JPEG; every other format becomes PNG, without loss, under its old name (a
file's format is detected from its bytes).

Each file appears whole or not at all. After an interruption the same command continues with the
files that are missing.

With `--shards N`, or a target that ends in .tar, the copy is in tars, from any source. The order
and the labels stay the same.
"""

import argparse
import contextlib
import io
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import system.interrupt

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as F

from data.decode import UnreadableImageError, limit_pixels, read_pixels
from data.folder import Files
from data.images import IMAGES_HELP, ImageList, find_images
from data.levels import warn_of_lost_levels
from data.loading import Draw, EpochBatches, add_max_pixels_flag, make_loader
from data.packed.kinds import kind_of
from data.reading import add_reading_flags, reading_of
from data.unreadable import MOST_UNREADABLE, NameUnreadable, remedy
from system import cli, flags, kept
from system.cores import allowed_cores
from system.errors import InputError
from system.files import atomic_write, remove_leftovers
from system.locks import sole_user
from system.progress import progress
from tools.tar_shards import JPEG_START, TarShards, can_keep_names, part_of

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
    content: bytes | None = None  # for a tar


class Copies(Dataset[Copied]):
    """Taking an item, in any process, makes an image's copy, for a tar."""

    def __init__(self, images: ImageList, size: int, quality: int) -> None:
        self.images, self.size, self.quality = images, size, quality

    def __getitem__(self, draw: Draw) -> Copied:
        index = draw.image
        try:
            before, content, how = self.smaller(index)
        except (UnreadableImageError, OSError) as error:
            return Copied(index, 0, 0, "unreadable", str(error))
        return Copied(index, before, len(content), how, content=content)

    def smaller(self, index: int) -> tuple[int, bytes, str]:
        """The size of an image in bytes, its smaller copy, and "resized" or "copied"."""
        with self.images.open(index) as file:
            pixels = read_pixels(file, self.images.reading)
            file.seek(0)
            content = file.read()
        if min(pixels.shape[1:]) <= self.size:
            return len(content), content, "copied"
        resized, copy = F.resize(pixels, [self.size]).permute(1, 2, 0), io.BytesIO()
        kind = "JPEG" if content.startswith(JPEG_START) else "PNG"
        Image.fromarray(resized.numpy()).save(copy, kind, quality=self.quality)
        return len(content), copy.getvalue(), "resized"


class FileCopies(Copies):
    """Taking an item also writes the copy, under the file's name in another folder."""

    def __init__(self, images: ImageList, size: int, quality: int, target: Path) -> None:
        super().__init__(images, size, quality)
        self.target = target

    def __getitem__(self, draw: Draw) -> Copied:
        index = draw.image
        source, target = Path(self.images.where(index)), self.target / self.images.names[index]
        try:
            if _is_done(source, target):
                sizes = source.stat().st_size, target.stat().st_size
                return Copied(index, *sizes, "there already")
        except OSError as error:
            return Copied(index, 0, 0, "unreadable", str(error))
        copied = super().__getitem__(draw)
        if copied.content is None:
            return copied
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(target, durable=False) as file:
                file.write(copied.content)
        except OSError as error:
            return Copied(index, 0, 0, "failed", f"{target}: {error.strerror or error}")
        return replace(copied, content=None)


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
    is_tar = args.target.suffix == ".tar"
    if not is_tar and kind_of(args.target) is not None and not args.target.is_dir():
        raise InputError(
            f"{args.target}: can't be written; give a folder, or a name that ends in .tar, or a "
            "folder and --shards N"
        )
    if is_tar and args.shards is not None:
        raise InputError(f"--shards {args.shards}: {args.target} is one tar; give a folder")
    to_tars = is_tar or args.shards is not None
    limit_pixels(args.max_pixels)
    images = find_images(args.source, reading_of(args))
    if not to_tars and (args.source.is_file() or not isinstance(images.source, Files)):
        raise InputError(
            f"{args.source}: only a folder of image files can be copied to a folder; give "
            "--shards N, or a TARGET that ends in .tar"
        )
    warn_of_lost_levels(images)
    if args.source.is_dir() and args.target.resolve().is_relative_to(args.source.resolve()):
        raise InputError(f"{args.target}: is in the source; give a place outside {args.source}")
    source = str(args.source.resolve())
    settings = {"source": source, "size": args.size, "quality": args.quality, **images.reading.key}
    if to_tars:
        if (args.shards or 1) > len(images):
            raise InputError(f"--shards {args.shards}: more than the {len(images)} images")
        settings |= {"shards": args.shards or 1, "images": images.digest[:12]}
    folder, name = (args.target.parent, args.target.name) if is_tar else (args.target, "")
    with begin(folder, settings, name):
        copy_all(args, images, paths_of(args) if to_tars else None)


def copy_all(args: argparse.Namespace, images: ImageList, paths: list[Path] | None) -> None:
    """Copy the images that are not copied yet to tars, or without `paths` to files.

    Raises:
        InputError: too many are unreadable, or the target can't be written.
    """
    copies: Copies = FileCopies(images, args.size, args.quality, args.target)
    shards, left = None, np.arange(len(images))
    with contextlib.ExitStack() as stack:
        if paths is not None:
            keep_names = args.source.is_dir() and can_keep_names(images)
            shards = TarShards(paths, images, keep_names)
            copies, left = Copies(images, args.size, args.quality), shards.missing()
            stack.enter_context(shards.writing())
        workers = min(args.workers, len(left) // BATCH)
        batches = EpochBatches(BATCH)
        batches.start_epoch(0, left)
        cpu = torch.device("cpu")
        loader = make_loader(copies, batches, workers, cpu, collate_fn=list, in_order=True)
        sums = Counter({"there already": len(images) - len(left)})
        name_unreadable = NameUnreadable(images)
        with progress("copying", len(left), "images") as advance:
            for batch in loader:
                for copied in batch:
                    check_written(copied)
                    if copied.how == "unreadable":
                        name_unreadable({copied.index: copied.reason})
                    if shards is not None:
                        shards.add(copied.index, copied.content)
                    sums.update({copied.how: 1, "before": copied.before, "after": copied.after})
                advance(len(batch))
    sys.stdout.write(f"{in_words(sums)}\n")
    if sums["unreadable"] > MOST_UNREADABLE * len(images):
        again = "start again"
        if sums["unreadable"] == len(images):
            for path in paths or ():
                path.unlink(missing_ok=True)
        elif paths is not None:
            again = "copy to another TARGET; the tars lack them"
        raise InputError(
            f"{args.source}: more than {MOST_UNREADABLE:.0%} of the images are unreadable, see "
            f"above; {remedy(name_unreadable.named.values())}, and {again}"
        )


def paths_of(args: argparse.Namespace) -> list[Path]:
    """The tars to write."""
    if args.shards is None:
        return [args.target]
    digits = max(len(str(args.shards - 1)), 5)
    return [args.target / f"{number:0{digits}d}.tar" for number in range(args.shards)]


@contextlib.contextmanager
def begin(target: Path, settings: kept.Key, tar: str = "") -> Iterator[None]:
    """Make the target, or continue one that was begun with the same settings, and lock it until the
    block ends. If nothing was copied when bad input ends it, nothing stays.

    Args:
        target: a folder.
        tar: the name of a single tar there, in which case other files may be there, too.

    Raises:
        InputError: it holds other files, can't be written, or another process is copying there.
    """
    record, lock = target / RECORD, target / LOCK
    if tar:
        record, lock = target / f".{tar}.{RECORD}", target / f".{tar}{LOCK}"
    try:
        target.mkdir(parents=True, exist_ok=True)
        there = (target / tar).exists() if tar else any(target.iterdir())
        if not record.exists() and there:
            raise InputError(f"{target / tar}: is neither empty nor a copy; give another TARGET")
        kept.begin(record, settings, "give another TARGET")
    except OSError as error:
        raise InputError(f"{target}: cannot write a copy there: {error.strerror}") from error
    with sole_user(lock, f"{target / tar}: another process is copying there; wait for it"):
        if not tar:
            remove_leftovers(target)
        try:
            yield
        except InputError:
            begun = [target / tar, part_of(target / tar)] if tar else target.iterdir()
            if not any(path.exists() for path in begun if path not in (record, lock)):
                record.unlink()
            raise


def check_written(copied: Copied) -> None:
    """Check that a copy could be written.

    Raises:
        InputError: it couldn't.
    """
    if copied.how == "failed":
        raise InputError(
            f"{copied.reason}; free some space or give another TARGET, and start again"
        )


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
    add("source", metavar="SOURCE", type=Path, help=f"images: {IMAGES_HELP}")
    target_help = "new folder for the copy, or one begun before; or a .tar"
    add("target", metavar="TARGET", type=Path, help=target_help)
    shards_help = "write N tars into TARGET, in place of files"
    add("--shards", metavar="N", type=cli.whole_number(1), help=shards_help)
    flags.add_size(parser, 256, "short side in pixels; 256/224 of the training's --size")
    quality_help = "JPEG quality, 1 to 100; files are 25%% smaller at 85, 50%% larger at 95"
    add("--quality", type=cli.whole_number(1), default=90, help=quality_help)
    flags.add_workers(parser, allowed_cores(), "processes; left out: one for each core")
    add_max_pixels_flag(parser)
    add_reading_flags(parser, trained=False)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
