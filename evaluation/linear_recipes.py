"""The protocols of the linear probe side by side, and the flags of training, also those of
fine-tuning. `eval_linear.py` describes the protocols."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torchvision.transforms import v2

from data.transforms import modelzoo_probe_crop, probe_crop, random_crop, resized_crop
from models.layers import AVGPOOL
from system import cli, flags
from system.errors import InputError

BATCH = 256  # images
MOMENTUM = 0.9
SIZE = 224  # side of the input in pixels
SEED = 31


@dataclass(frozen=True)
class Recipe:
    """A protocol.

    Attributes:
        view: makes the transform of training images, given the input's side in pixels.
        normalised: each classifier has batch norm without parameters before it.
        nesterov: use Nesterov's momentum.
        conv, epochs, batch_size, lr, wd, steps: defaults of the flags of these names. `wd` is an
            exponent of ten, None for no decay. `steps` are the numbers of epochs after which the
            rate is divided by ten, None for the paper's rate, which falls with every iteration.
        rates: in place of `lr`, the rate at the start for each conv layer of VGG-16.
        cosine: in place of `steps`, the rate falls from epoch to epoch to 0, by half a cosine.
        scaled: `lr` is for `BATCH` images, and its default is proportional to the batch.
        voc: the data are VOC 2007, whose images have several labels each.
    """

    view: Callable[[int], v2.Transform] = modelzoo_probe_crop
    normalised: bool = True
    nesterov: bool = True
    conv: tuple[str, ...] = ("all",)
    epochs: int = 90
    batch_size: int = BATCH
    lr: float | None = 0.01
    rates: tuple[float, ...] = ()
    wd: float | None = -4.0
    steps: tuple[int, ...] | None = (30, 60, 90)
    cosine: bool = False
    scaled: bool = False
    voc: bool = False

    def flags(self, batch: int) -> dict[str, Any]:
        """The flags' defaults for a batch size."""
        names = ("conv", "epochs", "batch_size", "lr", "wd", "steps")
        found = {name: getattr(self, name) for name in names}
        if self.scaled and self.lr is not None:
            found["lr"] = self.lr * batch / BATCH
        return found


# by the names of `--protocol`
RECIPES = {
    "paper": Recipe(probe_crop, normalised=False, nesterov=False, steps=None),
    "modelzoo": Recipe(),
    "modelzoo-places205": Recipe(resized_crop, epochs=28, steps=(7, 14, 21)),
    "modelzoo-inat18": Recipe(epochs=84, steps=(24, 48, 72)),
    "modelzoo-avgpool": Recipe(
        random_crop, normalised=False, nesterov=False, conv=(AVGPOOL,),
        epochs=100, lr=30.0, wd=None, steps=(60, 80),
    ),
    "swav": Recipe(
        random_crop, normalised=False, nesterov=False, conv=(AVGPOOL,),
        epochs=100, lr=0.3, wd=-6.0, steps=None, cosine=True, scaled=True,
    ),
    "deepercluster": Recipe(
        random_crop, normalised=False, nesterov=False, epochs=100, lr=None, wd=-5.0, steps=None,
        rates=(0.005, 0.01, *[0.03] * 4, 0.02, *[0.03] * 3, *[0.02] * 3),
    ),
    "deepercluster-places205": Recipe(
        random_crop, normalised=False, nesterov=False, epochs=100, lr=None, wd=-5.0, steps=None,
        rates=(0.003, 0.005, *[0.01] * 7, 0.03, *[0.01] * 2, 0.02),
    ),
    "deepercluster-voc": Recipe(
        random_crop, normalised=False, nesterov=False, conv=("13",), epochs=60, batch_size=128,
        lr=0.02, wd=-5.0, steps=None, voc=True,
    ),
}  # fmt: skip


def add_flags(parser: argparse.ArgumentParser, recipe: Recipe, fall: str) -> None:
    """The flags of training, with a protocol's defaults.

    Args:
        fall: how the rate falls after `--steps`, for the help.
    """
    add = parser.add_argument
    add("--epochs", type=cli.whole_number(1), default=recipe.epochs, help="number of epochs")
    batch_help = "mini-batch size over all devices"
    add("--batch_size", type=cli.whole_number(1), default=recipe.batch_size, help=batch_help)
    lr_help = "learning rate at the start; left out: the protocol's"
    add("--lr", type=cli.positive_number, default=recipe.lr, help=lr_help)
    steps_help = f"epochs after which the rate is {fall}; left out: the protocol's rate"
    add(
        "--steps", nargs="*", type=cli.whole_number(1), metavar="EPOCHS", default=recipe.steps,
        help=steps_help,
    )  # fmt: skip
    add("--momentum", type=cli.fraction, default=MOMENTUM, help="momentum of SGD")
    wd_help = "weight decay, as an exponent of ten: -4 for 1e-4"
    add("--weight_decay", "--wd", type=cli.number, default=recipe.wd, dest="wd", help=wd_help)
    flags.add_seed(parser, default=SEED)
    flags.add_verbose(parser, "show progress and each epoch's accuracy")
    size_help = f"side of the input in pixels; 256 and {SIZE} in the protocol scale with it"
    flags.add_size(parser, SIZE, size_help)


def check_flags(args: argparse.Namespace) -> None:
    """Check the flags of `add_flags`.

    Raises:
        InputError: naming the flag, its value and what would be right.
    """
    if args.wd is not None and args.wd > 0:
        raise InputError(f"--wd {args.wd:g}: give an exponent of ten, such as -4 for 1e-4")
