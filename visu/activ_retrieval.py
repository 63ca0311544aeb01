"""The images that each filter of a conv layer responds to most, and where in them.

An image's response is the filter's activation after the ReLU, averaged over all places. The image
is seen as for clustering: short side resized to 256/224 of the input's side, central crop. An image
with response 0 does not count. The box in an image, and the picture beside it, are the receptive
field of the place with the highest activation; grey is beyond the border.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # `python visu/activ_retrieval.py` puts only visu/ on the import path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import system.interrupt

import numpy as np
from PIL import Image, ImageDraw
from torchvision.transforms.v2 import functional as F

from data.decode import UnreadableImageError
from data.images import ImageList
from data.transforms import central_crop
from data.unreadable import NameUnreadable
from features import network
from features.network import open_inputs
from models import ConvNet
from models.layers import add_conv_flag, layers_of
from system import cli, flags
from system.errors import InputError
from system.files import atomic_write, make_experiment_folder
from system.progress import progress
from visu.contact_sheet import GROUND, MISSING, Strip, check_sheet, contact_sheet
from visu.page import save_jpeg
from visu.receptive_field import ReceptiveField, map_side, receptive_field
from visu.top_images import TopImages, count_filters, top_images

FILTERS_PER_SHEET = 64
SIDE = 64  # of a picture on a sheet, in pixels
BOX = (255, 60, 0)


def main(args: argparse.Namespace) -> None:
    inputs = open_inputs(args)
    model, images = inputs.model, inputs.images
    if not isinstance(model, ConvNet):
        raise InputError(
            f"--model {args.model}: finds images for the filters of checkpoints only; give one"
        )
    before = {layer: model.modules_before_relu(layer) for layer in layers_of(model, args.conv)}
    for layer in before:
        check_sheets(model, layer, args.count)
    for layer in before:
        make_experiment_folder(args.exp / f"conv{layer}")
    unreadable = NameUnreadable(images)
    with progress("activations", len(images), "images") as advance:
        found = top_images(
            inputs.loader, model, list(before), args.count, inputs.compute, unreadable, advance
        )
    if len(unreadable.named) == len(images):
        raise InputError(f"--data: none of the {len(images)} images can be read")
    for layer, top in found.items():
        folder = args.exp / f"conv{layer}"
        copy_images(layer, top, images, folder)
        field, side = receptive_field(before[layer]), map_side(before[layer], inputs.size)
        places = Places(field, side, inputs.size)
        sheets = draw_sheets(layer, top, images, places, folder)
        sys.stdout.write(describe(layer, top, folder, sheets))


def check_sheets(model: ConvNet, layer: int, count: int) -> None:
    """Check the size of contact sheets with `count` images of each filter.

    Raises:
        InputError: they would be too large.
    """
    filters = min(count_filters(model, layer), FILTERS_PER_SHEET)
    try:
        check_sheet([2 * count] * filters, 2 * count, SIDE)
    except InputError as error:
        raise InputError(f"--count {count}: {error}") from error


def copy_images(layer: int, top: TopImages, images: ImageList, folder: Path) -> None:
    """Copy each filter's images to `layer<l>-channel<c>/<rank>_<name>`, with ranks from 1 on. They
    replace those of an earlier call.

    Raises:
        InputError: an image has vanished since it was found.
    """
    digits = len(str(top.images.shape[1]))
    for number, row in enumerate(top.images):
        own = folder / f"layer{layer}-channel{number}"
        own.mkdir(exist_ok=True)
        for path in own.iterdir():
            if re.match(r"\d+_", path.name):
                path.unlink()
        for rank, image in enumerate(row[row >= 0].tolist(), start=1):
            copy = own / f"{rank:0{digits}}_{Path(images.names[image]).name}"
            try:
                with images.open(image) as file, atomic_write(copy, durable=False) as target:
                    shutil.copyfileobj(file, target)
            except UnreadableImageError as error:
                raise InputError(f"{images.where(image)}: {error}") from error


@dataclass(frozen=True)
class Places:
    """The places of a layer's map in the view of an image.

    Attributes:
        field: the layer's receptive field.
        map_side: places along a side of its map.
        size: side of the view in pixels.
    """

    field: ReceptiveField
    map_side: int
    size: int

    def draw(self, images: ImageList, index: int, place: int) -> tuple[Image.Image, Image.Image]:
        """The view of an image with the box of a place, counted row by row, and the content of the
        box, both in the size of a sheet's pictures. The box may reach beyond the view."""
        try:
            pixels = central_crop(self.size)(images.read_image(index))
        except UnreadableImageError:  # since the pass over the data
            grey = Image.new("RGB", (SIDE, SIDE), MISSING)
            return grey, grey
        view = F.to_pil_image(pixels)
        left, top, right, bottom = self.field.box(*divmod(place, self.map_side))
        seen = Image.new("RGB", (right - left, bottom - top), MISSING)
        seen.paste(view, (-left, -top))
        scale = SIDE / self.size
        small = view.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        corners = [round(scale * edge) for edge in (left, top, right - 1, bottom - 1)]
        ImageDraw.Draw(small).rectangle([min(max(c, 0), SIDE - 1) for c in corners], outline=BOX)
        # a sharper filter would ring at the edge of the grey
        return small, seen.resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def draw_sheets(
    layer: int, top: TopImages, images: ImageList, places: Places, folder: Path
) -> list[Path]:
    """Write a layer's contact sheets and return their paths. Each filter has a row: its images with
    the boxes, then the contents of the boxes."""
    filters, count = top.images.shape
    sheets = []
    for start in range(0, filters, FILTERS_PER_SHEET):
        stop = min(start + FILTERS_PER_SHEET, filters)
        strips = [strip_of(layer, number, top, images, places) for number in range(start, stop)]
        sheets.append(folder / f"images-{start}-{stop - 1}.jpeg")
        save_jpeg(contact_sheet(strips, columns=2 * count, side=SIDE), sheets[-1])
    return sheets


def strip_of(layer: int, number: int, top: TopImages, images: ImageList, places: Places) -> Strip:
    """A filter's row on a sheet."""
    there = top.images[number] >= 0
    chosen, peaks = top.images[number][there].tolist(), top.peaks[number][there].tolist()
    drawn = [places.draw(images, i, place) for i, place in zip(chosen, peaks, strict=True)]
    ground = Image.new("RGB", (SIDE, SIDE), GROUND)
    gap = [ground] * (len(there) - len(drawn))  # so that the boxes start in the same column
    pictures = [*(view for view, _ in drawn), *gap, *(seen for _, seen in drawn)]
    means = top.means[number][there]
    said = f"mean activation {means[0]:.3g} to {means[-1]:.3g}" if len(means) else "never fires"
    return Strip(f"conv{layer} filter {number}: {said}", pictures)


def describe(layer: int, top: TopImages, folder: Path, sheets: Sequence[Path]) -> str:
    """The lines to print on a layer: its files, and the filters that respond to no image."""
    silent = np.flatnonzero(top.images[:, 0] < 0).tolist()
    lines = [f"conv{layer}: images of {len(top.images) - len(silent)} filters in {folder}/"]
    if silent:
        lines.append(f"  filters that respond to no image: {', '.join(map(str, silent))}")
    return "\n".join([*lines, *(f"  {sheet}" for sheet in sheets)]) + "\n"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="The images that filters respond to most: copies in EXP/conv<l>/layer<l>-"
        "channel<c>/, best first, and contact sheets EXP/conv<l>/images-*.jpeg.",
        example="python visu/activ-retrieval.py --data /imagenet/train "
        "--model exp/001/checkpoint.pth.tar --conv 1 5 --exp exp/001/visu",
        details="docs/pictures.md",
    )
    flags.add_data(parser, network.DATA_HELP, metavar="DIR", nargs="+")
    flags.add_model(parser)
    flags.add_key(parser)
    conv_help = "conv layers, from 1 on, or all; one pass over the data for all of them"
    add_conv_flag(parser, "1", conv_help)
    flags.add_exp(parser, "folder for the images and sheets", required=True)
    parser.add_argument(
        "--count", type=cli.whole_number(1), default=9, help="images of each filter"
    )
    network.add_size_flag(parser)
    network.add_pass_flags(parser)
    parser.set_defaults(batch=64)  # maps take far more memory than features
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
