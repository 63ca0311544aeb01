"""Pictures that the filters of a conv layer respond to, by gradient ascent from noise.

The method is in `ascent.py`.
"""

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # `python visu/gradient_ascent.py` puts only visu/ on the import path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import system.interrupt

import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional as F

from checkpoints.checkpoint import load_model
from models import ConvNet, add_arch_flag
from models.layers import add_conv_flag, layers_of
from system import cli, device, flags
from system.device import Compute, select_compute
from system.errors import InputError
from system.files import make_experiment_folder
from system.progress import progress
from visu.ascent import Ascended, Ascent, ascend
from visu.contact_sheet import Strip, contact_sheet
from visu.page import save_jpeg
from visu.receptive_field import map_side, receptive_field
from visu.top_images import count_filters

# the paper's authors' settings for its figures
PRESETS = {"conv1": {"lr": 3.0, "niter": 30_000}, "conv5": {"lr": 30.0, "niter": 3_000}}
BATCH = {"cpu": 8, "cuda": 32, "mps": 32}
COLUMNS = 10  # of a contact sheet
SIDE = 96  # of a picture on it, in pixels
ADVICE = (
    "if pictures still look like noise: more iterations (--preset conv1), in deep layers longer "
    "steps (--preset conv5), or more blur (--sig 0.5 --step 1)"
)


def main(args: argparse.Namespace) -> None:
    compute = select_compute(args.device, args.precision)
    model = load_model(args.model, args.network_key)
    if args.arch not in (None, model.arch):
        raise InputError(
            f"--arch {args.arch}: {args.model} has --arch {model.arch}; leave --arch out"
        )
    ascent = Ascent(args.lr, args.wd, args.sig, args.step, args.niter, args.idim)
    wanted = {
        layer: wanted_filters(model, layer, args.filters) for layer in layers_of(model, args.conv)
    }
    check_side(model, max(wanted), ascent.idim)
    for layer in wanted:
        make_experiment_folder(args.exp / f"conv{layer}")
    batch = args.batch or BATCH[compute.device.type]
    for layer, filters in wanted.items():
        folder = args.exp / f"conv{layer}"
        draw_layer(model, layer, filters, ascent, compute, batch, args.seed, folder)
        sys.stdout.write(f"written to {folder}/, all of them in {folder}/filters.jpeg\n")
    if args.preset is None and ascent.sig == Ascent.sig:
        sys.stdout.write(f"{ADVICE}\n")


def draw_layer(
    model: ConvNet,
    layer: int,
    filters: Sequence[int],
    ascent: Ascent,
    compute: Compute,
    batch: int,
    seed: int,
    folder: Path,
) -> None:
    """Write the pictures of some filters and a contact sheet of them, and print a line on each."""
    shown: list[Image.Image] = []
    total = len(filters) * ascent.niter
    with progress(f"conv{layer}", total, "iterations of a picture") as advance:
        for start in range(0, len(filters), batch):
            some = filters[start : start + batch]
            done = ascend(model, layer, some, ascent, compute, seed, advance)
            if not torch.isfinite(done.end).all():
                raise InputError(
                    f"--precision {compute.precision}: activations of conv{layer} are NaN or "
                    "infinite; give --precision fp32, or a lower --lr"
                )
            for number, picture in zip(some, done.pictures, strict=True):
                shown.append(Image.fromarray(picture.permute(1, 2, 0).numpy()))
                save_jpeg(shown[-1], folder / f"layer{layer}-channel{number}.jpeg")
            sys.stdout.write(describe(layer, some, done))
            sys.stdout.flush()
    field = receptive_field(model.modules_before_relu(layer))
    save_jpeg(sheet_of(layer, filters, shown, field.size), folder / "filters.jpeg")


def describe(layer: int, filters: Sequence[int], done: Ascended) -> str:
    """A line for each filter: its mean activation before and after, and whether it rose."""
    lines = []
    for number, start, end in zip(filters, done.start.tolist(), done.end.tolist(), strict=True):
        if end > start:
            said = "rose"
        else:
            said = "silent all the way" if start == end == 0 else "did not rise"
        lines.append(f"conv{layer} filter {number}: activation {start:.4g} → {end:.4g}, {said}\n")
    return "".join(lines)


def sheet_of(
    layer: int, filters: Sequence[int], pictures: Sequence[Image.Image], field: int
) -> Image.Image:
    """The centres of the pictures in rows, with the numbers of their filters.

    Args:
        field: side of the layer's receptive field in pixels. A centre has this side, and at least
            `SIDE`, because scaling must not average fine textures to grey.
    """
    shown = min(max(field, SIDE), pictures[0].width)
    centres = [
        ImageOps.fit(F.center_crop(picture, [shown, shown]), (SIDE, SIDE)) for picture in pictures
    ]
    strips = []
    for start in range(0, len(filters), COLUMNS):
        numbers = ", ".join(map(str, filters[start : start + COLUMNS]))
        strips.append(Strip(f"conv{layer}: {numbers}", centres[start : start + COLUMNS]))
    return contact_sheet(strips, columns=min(COLUMNS, len(filters)), side=SIDE)


def wanted_filters(model: ConvNet, layer: int, words: Sequence[str] | None) -> list[int]:
    """The filters of a layer that `--filters` names, ascending: numbers from 0 on and ranges as in
    0-31; all filters if it is None.

    Raises:
        InputError: the layer has no such filters.
    """
    channels = count_filters(model, layer)
    if words is None:
        return list(range(channels))
    wanted: set[int] = set()
    for word in words:
        first, dash, last = word.partition("-")
        ends = [first, last] if dash else [first]
        if not all(end.isdecimal() and end.isascii() and int(end) < channels for end in ends):
            raise InputError(
                f"--filters {word}: conv{layer} of {model.arch} has filters 0 to {channels - 1}; "
                "give some of them, or ranges as in 0-31"
            )
        numbers = range(int(first), int(ends[-1]) + 1)
        if not numbers:
            raise InputError(f"--filters {word}: ends before it starts; give {last}-{first}")
        wanted.update(numbers)
    return sorted(wanted)


def check_side(model: ConvNet, layer: int, side: int) -> None:
    """Check that pictures are large enough for a layer.

    Raises:
        InputError: they are too small; the message has the smallest side.
    """
    modules = model.modules_before_relu(layer)
    if map_side(modules, side) < 1:
        least = next(s for s in itertools.count(side) if map_side(modules, s) >= 1)
        raise InputError(
            f"--idim {side}: too small for conv{layer} of {model.arch}; give {least} or more"
        )


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Pictures that filters respond to: EXP/conv<l>/layer<l>-channel<c>.jpeg, and a "
        "contact sheet EXP/conv<l>/filters.jpeg.",
        example="python visu/gradient_ascent.py --model exp/001/checkpoint.pth.tar --conv 1 "
        "--exp exp/001/visu --preset conv1",
        details="docs/pictures.md",
    )
    add, at_least, positive = parser.add_argument, cli.whole_number, cli.positive_number
    flags.add_model(parser)
    flags.add_key(parser)
    add_arch_flag(parser, default=None, help="optional; checked against the checkpoint")
    add_conv_flag(parser, "1")
    filters_help = "numbers from 0 on and ranges as in 0-31; left out: all filters of the layer"
    add("--filters", nargs="+", metavar="N", help=filters_help)
    flags.add_exp(parser, "folder for the pictures", required=True)
    presets = "; ".join(
        f"{name} is --lr {p['lr']:g} --niter {p['niter']}" for name, p in PRESETS.items()
    )
    preset_help = f"the paper's authors' settings; flags that you give win: {presets}"
    add("--preset", choices=list(PRESETS), help=preset_help)
    add("--lr", type=positive, default=Ascent.lr, help="length of a step; deep layers need more")
    add("--wd", type=cli.number_from_zero, default=Ascent.wd, help="weight of the squared norm")
    sig_help = "standard deviation of the Gaussian blur in pixels; 0 for none"
    add("--sig", type=cli.number_from_zero, default=Ascent.sig, help=sig_help)
    add("--step", type=at_least(1), default=Ascent.step, help="iterations between blurs")
    add("--niter", type=at_least(1), default=Ascent.niter, help="iterations")
    add("--idim", type=at_least(1), default=Ascent.idim, help="side of the pictures in pixels")
    batch_help = (
        "filters at once; only the speed depends on it (a batch of one in float32 on a CPU rounds "
        f"differently); left out: {BATCH['cpu']} on a CPU, {BATCH['cuda']} on a GPU"
    )
    flags.add_batch(parser, None, batch_help)
    flags.add_seed(parser, "random seed of the noise that pictures start from", default=0)
    device.add_flags(parser)
    chosen, _ = parser.parse_known_args(argv)
    parser.set_defaults(**PRESETS.get(chosen.preset, {}))
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
