"""The protocol of VOC 2007 classification: its settings, their flags, and its description."""

import argparse
from dataclasses import dataclass, fields
from typing import Any

from system import cli
from system.errors import InputError

TESTED_ON = {"train": "val", "trainval": "test"}  # by the training split
CROPS = 10  # of each image that is scored
MOMENTUM = 0.9
LARGEST_GRADIENT = 10.0  # gradients are clipped to this norm


@dataclass(frozen=True)
class Settings:
    """The protocol's settings, under the names of their flags.

    Attributes:
        nit: iterations.
        fc6_8: train only the classifier and the top layer; else the convolutions, too.
        train_batchnorm: train batch norm's scales and shifts, too. Its statistics never change.
        stepsize: iterations between two halvings of the learning rate.
        min_scale, max_scale: range of a crop's area, as fractions of the image's.
        batch: images in a mini-batch.
        size: side of the input in pixels.
        eval_random_crops: score ten random crops of an image, else ten fixed ones.
    """

    nit: int = 80_000
    fc6_8: bool = True
    train_batchnorm: bool = False
    stepsize: int = 5_000
    lr: float = 0.003
    wd: float = 1e-6
    min_scale: float = 0.1
    max_scale: float = 0.5
    batch: int = 16
    size: int = 224
    eval_random_crops: bool = True


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `settings_of` reads."""
    default = Settings()

    def add(name: str, **options: Any) -> None:
        parser.add_argument(f"--{name}", default=getattr(default, name), **options)

    def add_switch(name: str, help: str) -> None:
        parser.add_argument(
            f"--{name}", type=int, choices=(0, 1), default=int(getattr(default, name)), help=help
        )

    add("nit", type=cli.whole_number(1), help="iterations")
    add_switch("fc6_8", "1: train the classifier only; 0: the convolutions, too")
    add_switch("train_batchnorm", "1: train batch norm's scales and shifts, too")
    add_switch("eval_random_crops", "1: score ten random crops of an image; 0: ten fixed ones")
    add("stepsize", type=cli.whole_number(1), help="iterations until the learning rate is halved")
    add("lr", type=cli.positive_number, help="learning rate")
    add("wd", type=cli.fraction, help="weight decay")
    add("min_scale", type=cli.positive_number, help="smallest crop, as a part of the image's area")
    add("max_scale", type=cli.positive_number, help="largest crop, as a part of the image's area")
    add("batch", type=cli.whole_number(1), help="mini-batch size")
    add("size", type=cli.whole_number(1), help="side of the input in pixels")


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings that the flags give.

    Raises:
        InputError: the scales are out of order, or above 1.
    """
    if not args.min_scale <= args.max_scale <= 1:
        raise InputError(
            f"--min_scale {args.min_scale:g} --max_scale {args.max_scale:g}: give parts of the "
            "image's area, the smaller first, 1 at most"
        )
    given = {field.name: getattr(args, field.name) for field in fields(Settings)}
    switches = {n: bool(v) for n, v in given.items() if isinstance(getattr(Settings, n), bool)}
    return Settings(**(given | switches))


def in_words(settings: Settings, split: str) -> str:
    """The description of the protocol, for the result file."""
    if settings.fc6_8:
        trained = "The classifier and the top layer train, the convolutions do not"
    else:
        trained = "All layers train"
    norm = "train, too" if settings.train_batchnorm else "stay as they are"
    scales = f"of {settings.min_scale:g} to {settings.max_scale:g} of its area"
    if settings.eval_random_crops:
        crops = "ten random crops as in training"
    else:
        side = round(settings.size * 256 / 224)
        crops = (
            f"the corners and the centre of the image with its short side resized to {side} "
            "pixels, and their mirror images"
        )
    return f"""PASCAL VOC 2007 classification, trained on {split}, tested on {TESTED_ON[split]}.
    The linear layers of the classifier get new weights N(0, 0.01) and biases 0.1, and a top layer
    of 20 alike. {trained}; batch norm's scales and shifts {norm}; its statistics, and the Sobel
    filters, stay as they are. {settings.nit} iterations of {settings.batch} images, which come in
    one random order of the split after the other; of each a random square {scales}, resized to
    {settings.size} pixels, flipped at random. Loss: binary cross-entropy, summed over the classes
    that are not marked difficult in the image, divided by the number of images. SGD with momentum
    0.9, weight decay {settings.wd:g}, learning rate {settings.lr:g}, halved every
    {settings.stepsize} iterations, the gradient's norm clipped to 10; dropout as in the network.
    An image's score for a class is the sum of its logits over {crops}. AP: mean over the images
    that show the class of the precision down to each one's rank, among all images where it is not
    marked difficult; ties count against the network. mAP: mean over the classes. Several seeds:
    mean and sample standard deviation over the runs. All as fractions of 1."""
