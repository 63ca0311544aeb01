"""How images become pixels: the choices that a checkpoint keeps, and their flags."""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from system import cli
from system.errors import InputError, shorten

EXIF = ("ignore", "apply")  # an image's orientation; the first is the default


@dataclass(frozen=True)
class Reading:
    """How images become pixels.

    Attributes:
        exif: "ignore" for the stored pixels, as in torchvision's loader; "apply" to turn and mirror
            images by their EXIF orientation.
        range: the grey levels of black and white, for images of more than 8 bits; None follows the
            type of unsigned ones, and others can't be read.
        channels: the bands, from 0, of a `.npy` or TIFF that are red, green and blue; None takes
            arrays of one or three bands, and leaves TIFF to Pillow.
    """

    exif: str = EXIF[0]
    range: tuple[float, float] | None = None
    channels: tuple[int, int, int] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The choices by the names of their flags, for result files."""
        return {
            "exif": self.exif,
            "range": self.range and list(self.range),
            "channels": self.channels and list(self.channels),
        }

    @property
    def key(self) -> dict[str, Any]:
        """The choices as part of the key of kept work. Defaults add nothing, so that older work can
        be continued."""
        defaults = Reading().settings
        return {name: kept for name, kept in self.settings.items() if kept != defaults[name]}


AS_STORED = Reading()


def add_reading_flags(parser: argparse.ArgumentParser, trained: bool = True) -> None:
    """`--exif`, `--range` and `--channels`, which `chosen_reading` takes.

    Args:
        trained: flags that are left out follow a training.
    """
    exif_help = "apply: turn images as their EXIF orientation says"
    exif_help += f"; left out: as in training, or {EXIF[0]}" if trained else ""
    default = None if trained else EXIF[0]
    parser.add_argument("--exif", choices=EXIF, default=default, help=exif_help)
    add_range_flag(parser, "; left out: as in training" if trained else "")
    channels_help = "bands, from 0, that are red, green and blue in TIFF and .npy; left out: "
    channels_help += "as in training, or those of RGB" if trained else "those of RGB"
    parser.add_argument(
        "--channels", nargs=3, metavar=("R", "G", "B"), type=cli.whole_number(0), help=channels_help
    )


def add_range_flag(parser: argparse.ArgumentParser, left_out: str = "") -> None:
    """`--range`."""
    range_help = f"grey levels of black and white in images of more than 8 bits{left_out}"
    metavar = ("LOW", "HIGH")
    parser.add_argument("--range", nargs=2, metavar=metavar, type=cli.number, help=range_help)


def reading_of(args: argparse.Namespace) -> Reading:
    """The choices of the flags alone.

    Raises:
        InputError: a flag is wrong.
    """
    return Reading(args.exif, range_of(args.range), _three(args.channels))


def range_of(flag: list[float] | None) -> tuple[float, float] | None:
    """The range that `--range` gives.

    Raises:
        InputError: LOW isn't below HIGH.
    """
    if flag is None:
        return None
    low, high = flag
    if low >= high:
        raise InputError(f"--range {low:g} {high:g}: give LOW below HIGH")
    return low, high


def chosen_reading(args: argparse.Namespace, settings: Mapping[str, Any], file: Path) -> Reading:
    """The choices of the flags, or else those of a training.

    Args:
        args: with `exif`, `range` and `channels`, None if they aren't given.
        settings: of the training.
        file: contains these settings.

    Raises:
        InputError: a flag is wrong, or the settings have an unknown choice.
    """
    exif = args.exif or settings.get("exif", EXIF[0])
    if exif not in EXIF:
        choices = " or --exif ".join(EXIF)
        raise InputError(f"{file}: its exif is {shorten(exif)}; give --exif {choices}")
    kept = settings.get("range")
    if args.range is None and not (kept is None or _is_range(kept)):
        raise InputError(f"{file}: its range is {shorten(kept)}; give --range LOW HIGH")
    channels = settings.get("channels") if args.channels is None else args.channels
    if channels is not None and not _is_channels(channels):
        raise InputError(f"{file}: its channels are {shorten(channels)}; give --channels R G B")
    return Reading(exif, range_of(kept if args.range is None else args.range), _three(channels))


def _three(channels: Sequence[int] | None) -> tuple[int, int, int] | None:
    return None if channels is None else (channels[0], channels[1], channels[2])


def _is_channels(kept: Any) -> bool:
    three = isinstance(kept, list | tuple) and len(kept) == 3
    return three and all(type(band) is int and band >= 0 for band in kept)


def _is_range(kept: Any) -> bool:
    if not isinstance(kept, list | tuple) or len(kept) != 2:
        return False
    numbers = all(type(end) in (int, float) and math.isfinite(end) for end in kept)
    return numbers and kept[0] < kept[1]
