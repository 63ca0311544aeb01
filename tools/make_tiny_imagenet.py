"""Tiny-ImageNet's archive as a tree of classes.

`python -m tools.make_tiny_imagenet tiny-imagenet-200.zip DIR` writes
`DIR/{train,val}/<class>/<image>`. The archive has all val images in one folder, with their classes
in a text file; its test images have no classes and are left out. (`eval_linear.py` also reads the
unpacked archive.)
"""

import argparse
import re
import sys
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import system.interrupt

from data.labelled import ANNOTATIONS
from system import cli
from system.errors import InputError, shorten
from system.files import atomic_folder
from system.names import printable
from system.progress import progress

LARGEST = 2**31  # bytes to unpack
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, UnicodeDecodeError)


def lay_out(archive: Path, folder: Path) -> None:
    """Write the tree, whole or not at all.

    Raises:
        InputError: the archive is not Tiny-ImageNet's, or the folder exists or can't be written.
    """
    if folder.exists():
        raise InputError(f"{folder}: is there already; give a new folder")
    try:
        with zipfile.ZipFile(archive) as source:
            size = sum(member.file_size for member in source.infolist())
            if size > LARGEST:
                raise InputError(
                    f"{archive}: not Tiny-ImageNet's archive: unpacks to {size / 1e9:.1f} GB, not "
                    "0.2"
                )
            targets = _targets(source, archive)
            folder.parent.mkdir(parents=True, exist_ok=True)
            with (
                atomic_folder(folder) as tree,
                progress("unpacking", len(targets), "images") as advance,
            ):
                for name, target in targets.items():
                    path = tree / target
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(source.read(name))
                    advance(1)
    except (*DAMAGED, OSError) as error:
        reason = shorten((isinstance(error, OSError) and error.strerror) or error)
        raise InputError(f"{archive}: cannot be unpacked to {folder}: {reason}") from error


def _targets(source: zipfile.ZipFile, archive: Path) -> dict[str, str]:
    """The path in the tree of each image in the archive."""
    names = [PurePosixPath(name) for name in source.namelist()]
    annotations = [name for name in names if name.name == ANNOTATIONS]
    images = [name for name in names if name.suffix == ".JPEG"]
    if len(annotations) != 1 or not images:
        raise InputError(f"{archive}: not Tiny-ImageNet's archive: no {ANNOTATIONS} or no .JPEG")
    text = source.read(str(annotations[0])).decode("utf-8", "replace")
    classes = {row[0]: row[1] for row in map(str.split, text.splitlines()) if len(row) > 1}
    targets = {}
    for name in images:
        match name.parts[1:-1]:
            case ("train", label, "images"):
                targets[str(name)] = f"train/{label}/{name.name}"
            case ("val", "images"):
                label = classes.get(name.name, "")
                if not re.fullmatch(r"\w+", label):  # could lead to another folder
                    named = printable(name.name)
                    raise InputError(f"{archive}: {ANNOTATIONS} has no class for {named}")
                targets[str(name)] = f"val/{label}/{name.name}"
    if not targets or any(".." in target for target in targets.values()):
        raise InputError(f"{archive}: not Tiny-ImageNet's archive: no train/<class>/images")
    return targets


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Lay out Tiny-ImageNet's archive as a tree of classes.",
        example="python -m tools.make_tiny_imagenet tiny-imagenet-200.zip datasets/tiny-imagenet",
        details="docs/data.md",
    )
    parser.add_argument("archive", metavar="ZIP", type=Path, help="tiny-imagenet-200.zip")
    parser.add_argument("folder", metavar="DIR", type=Path, help="where to write train/ and val/")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    lay_out(args.archive, args.folder)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
