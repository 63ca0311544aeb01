"""Flags of several scripts, each defined once; scripts differ in defaults and help.

Other rooms define the flags of their subject: `--device` and `--precision` in system/device.py,
`--decode` and `--max-pixels` in data/loading.py, `--exif` and `--range` in data/reading.py,
`--vocdir` in data/voc.py, `--arch` and `--conv` in models/, the flags of a frozen network in
features/network.py.
"""

import argparse
from pathlib import Path
from typing import Any

from system import cli
from system.cores import allowed_cores

READERS = "processes that read images"
READERS_OF_EACH = f"{READERS}, for each process of torchrun"


def add_data(
    parser: argparse.ArgumentParser,
    help: str = "folder with train/ and val/, each with a folder per class or a list; or "
    "Tiny-ImageNet's; or containers whose names say train or val",
    required: bool = True,
    **options: Any,
) -> None:
    """`--data`: where the images are. `options` go to argparse."""
    parser.add_argument("--data", type=Path, required=required, help=help, **options)


def add_run_data(
    parser: argparse.ArgumentParser,
    help: str = "the run's images, its DIR, if they have moved",
) -> None:
    """`--data` of a run, whose folder says where its images were."""
    add_data(parser, help, required=False, metavar="DIR")


def add_model(
    parser: argparse.ArgumentParser,
    help: str = "checkpoint of the network",
    required: bool = True,
) -> None:
    """`--model`."""
    parser.add_argument("--model", type=Path, required=required, help=help)


def add_key(parser: argparse.ArgumentParser) -> None:
    """`--key`: `network_key`; None takes the network that the file's layout suggests."""
    key_help = (
        "of several networks in the checkpoint take the one of this name, such as teacher, student "
        "or encoder_k; left out: the query encoder, else the teacher"
    )
    parser.add_argument("--key", dest="network_key", metavar="NAME", help=key_help)


def add_exp(parser: argparse.ArgumentParser, help: str, required: bool = False) -> None:
    """`--exp`: the folder of the results; None by default."""
    parser.add_argument("--exp", type=Path, required=required, help=help)


def add_epoch(parser: argparse._ActionsContainer) -> None:
    """`--epoch` of a run's clusters; None for the last ones."""
    epoch_help = (
        "take the clusters that this epoch began with; left out: the last ones, which in a "
        "finished run are the finished network's"
    )
    parser.add_argument("--epoch", metavar="N", type=cli.whole_number(0), help=epoch_help)


def add_save_clusters(parser: argparse.ArgumentParser) -> None:
    """`--save-clusters`: None saves none."""
    save_help = "file for the PCA and the centroids, for assign.py's --clusters"
    parser.add_argument("--save-clusters", metavar="FILE.pth", type=Path, help=save_help)


def add_size(
    parser: argparse.ArgumentParser,
    default: int | None = 224,
    help: str = "side of the input in pixels; the short side is resized to 256/224 of it first",
) -> None:
    """`--size` in pixels."""
    parser.add_argument("--size", type=cli.whole_number(1), default=default, help=help)


def add_batch(
    parser: argparse.ArgumentParser,
    default: int | None,
    help: str = "mini-batch size",
    least: int = 1,
) -> None:
    """`--batch`: number of images at a time."""
    parser.add_argument("--batch", type=cli.whole_number(least), default=default, help=help)


def add_workers(
    parser: argparse.ArgumentParser,
    default: int | list[int] | None = 4,
    help: str = READERS,
    nargs: str | None = None,
) -> None:
    """`--workers`: the processes of a loader; 0 reads in the main process. The default falls to
    the number of cores that this process may use."""
    number = cli.whole_number(0)
    if isinstance(default, int):
        default = min(default, allowed_cores())
    parser.add_argument("--workers", type=number, nargs=nargs, default=default, help=help)


def add_seed(parser: argparse.ArgumentParser, help: str = "random seed", default: int = 31) -> None:
    """`--seed`."""
    parser.add_argument("--seed", type=cli.whole_number(0), default=default, help=help)


def add_seeds(parser: argparse.ArgumentParser, help: str) -> None:
    """One or several `--seed`: `seeds`, a list."""
    number = cli.whole_number(0)
    add = parser.add_argument
    add("--seed", "--seeds", dest="seeds", type=number, nargs="+", default=[31], help=help)


def add_sync_bn(parser: argparse._ActionsContainer, default: str) -> None:
    """`--sync_bn`, for `parallel.collectives.synchronised`."""
    sync_help = "pytorch: batch norm over the batches of all GPUs; none: of each GPU"
    parser.add_argument("--sync_bn", choices=["pytorch", "none"], default=default, help=sync_help)


def add_untrained(parser: argparse.ArgumentParser) -> None:
    """`--untrained`."""
    untrained_help = "for comparison, also evaluate the untrained network"
    parser.add_argument("--untrained", action="store_true", help=untrained_help)


def add_sobel2rgb(parser: argparse.ArgumentParser) -> None:
    """`--sobel2rgb`, for fine-tuning."""
    sobel_help = "merge the Sobel filters into the first convolution, which then takes colours"
    parser.add_argument("--sobel2rgb", action="store_true", help=sobel_help)


def add_verbose(parser: argparse.ArgumentParser, help: str = "show progress") -> None:
    """`--verbose`."""
    parser.add_argument("--verbose", action="store_true", help=help)
