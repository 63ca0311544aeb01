"""The protocols of VOC 2007 classification: their settings, flags, and descriptions."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from system import cli, flags
from system.errors import InputError

TESTED_ON = {"train": "val", "trainval": "test"}  # by the training split
CROPS = 10  # of each image that is scored
MOMENTUM = 0.9
LARGEST_GRADIENT = 10.0  # gradients are clipped to this norm


@dataclass(frozen=True)
class Settings:
    """A protocol's settings, under the names of their flags.

    Attributes:
        nit: iterations.
        fc6_8: train only the classifier and the top layer; else the convolutions, too.
        train_batchnorm: train batch norm's scales and shifts, too. Its statistics never change.
        stepsize: iterations between two halvings of the learning rate.
        min_scale, max_scale: range of a crop's area, as fractions of the image's.
        aspect: range of a crop's width / height.
        batch: images in a mini-batch.
        size: side of the input in pixels.
        eval_random_crops: score ten random crops of an image, else ten fixed ones.
        sobel2rgb: the Sobel filters were merged into the first convolution.
    """

    nit: int = 80_000
    fc6_8: bool = True
    train_batchnorm: bool = False
    stepsize: int = 5_000
    lr: float = 0.003
    wd: float = 1e-6
    min_scale: float = 0.1
    max_scale: float = 0.5
    aspect: tuple[float, float] = (1.0, 1.0)
    batch: int = 16
    size: int = 224
    eval_random_crops: bool = True
    sobel2rgb: bool = False

    @property
    def key(self) -> dict[str, Any]:
        """The settings as part of the key of kept work. The defaults of newer ones add nothing, so
        that older work can be continued."""
        kept = {**asdict(self), "aspect": list(self.aspect)}
        newer = {"aspect": list(Settings.aspect), "sobel2rgb": Settings.sobel2rgb}
        return {n: v for n, v in kept.items() if n not in newer or v != newer[n]}


PROTOCOLS = ("paper", "deepercluster")


def protocol_settings(protocol: str, fc6_8: bool) -> Settings:
    """The settings of a protocol, for the classifier alone or for all layers."""
    if protocol == "paper":
        return Settings()
    stepsize, wd = (20_000, 1e-5) if fc6_8 else (10_000, 1e-4)
    return Settings(
        nit=150_000, stepsize=stepsize, wd=wd, min_scale=0.08, max_scale=1.0, aspect=(3 / 4, 4 / 3)
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add `--protocol` and the flags that `settings_of` reads."""
    default = Settings()
    protocol_help = (
        "the paper's protocol or that of DeeperCluster's release; the defaults shown are the "
        "paper's"
    )
    parser.add_argument("--protocol", choices=PROTOCOLS, default="paper", help=protocol_help)
    flags.add_sobel2rgb(parser)

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


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the flags. Those that are not given have the values of `--protocol`."""
    chosen = parser.parse_args(argv)
    settings = asdict(protocol_settings(chosen.protocol, bool(chosen.fc6_8)))
    parser.set_defaults(**{n: int(v) if isinstance(v, bool) else v for n, v in settings.items()})
    return parser.parse_args(argv)


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
    part = "square" if settings.aspect == (1, 1) else "part"
    if part == "part":
        narrow, wide = settings.aspect
        scales += f", {narrow:.3g} to {wide:.3g} times as wide as high"
    if settings.sobel2rgb:
        sobel = "the Sobel filters are merged into the first convolution"
    else:
        sobel = "the Sobel filters stay as they are"
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
    of 20 alike. {trained}; batch norm's scales and shifts {norm}; its statistics stay as they are;
    {sobel}. {settings.nit} iterations of {settings.batch} images, which come in one random order of
    the split after the other; of each a random {part} {scales}, resized to a square of
    {settings.size} pixels, flipped at random. Loss: binary cross-entropy, summed over the classes
    that are not marked difficult in the image, divided by the number of images. SGD with momentum
    0.9, weight decay {settings.wd:g}, learning rate {settings.lr:g}, halved every
    {settings.stepsize} iterations, the gradient's norm clipped to 10; dropout as in the network.
    An image's score for a class is the sum of its logits over {crops}. AP: mean over the images
    that show the class of the precision down to each one's rank, among all images where it is not
    marked difficult; ties count against the network. mAP: mean over the classes. Several seeds:
    mean and sample standard deviation over the runs. All as fractions of 1."""
