"""Flags of all scripts that read images."""

import argparse

from data.decode import MAX_PIXELS
from data.loading import DECODE
from system import cli


def add_decode_flag(parser: argparse.ArgumentParser) -> None:
    """`--decode`, which `ImageDataset` takes."""
    decode_help = "auto: quick, as Pillow but for rounding; pil: Pillow; gpu: JPEGs on the GPU"
    parser.add_argument("--decode", choices=DECODE, default="auto", help=decode_help)


def add_max_pixels_flag(parser: argparse.ArgumentParser) -> None:
    """`--max-pixels`, which `ImageList` takes."""
    max_help = "an image of more pixels counts as unreadable: a few bytes may claim any number"
    add = parser.add_argument
    add("--max-pixels", metavar="N", type=cli.whole_number(1), default=MAX_PIXELS, help=max_help)
