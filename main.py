"""Train a convnet on unlabelled images. `train` below is the loop; `methods/` has the methods.

DeepCluster: Caron, Bojanowski, Joulin and Douze, "Deep Clustering for Unsupervised Learning of
Visual Features", ECCV 2018.
"""

import argparse
import contextlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import system.interrupt

from checkpoints.folder import folder_of, instead_of_damaged, last_sound
from data.decode import limit_pixels
from data.images import IMAGES_HELP, ImageList, find_images
from data.labels_csv import add_labels_flag
from data.levels import warn_of_lost_levels
from data.loading import add_decode_flag, add_max_pixels_flag
from data.reading import add_reading_flags, reading_of
from evaluation.knn import make_probe
from methods.deepcluster import DeepCluster
from methods.deepclusterv2 import DeepClusterV2
from methods.deepercluster import DeeperCluster
from methods.method import Method
from methods.swav import SwAV
from models import add_arch_flag, check_size
from parallel.collectives import process_group, rank, together, world_size
from parallel.signals import Stopping, stop_on_signals
from system import cli, device, flags
from system.device import Compute, select_compute
from system.errors import InputError, Stopped
from system.files import remove_leftovers_of
from training import initial, optimizers, resume
from training.experiment import Experiment
from training.logs import NOTE
from training.resume import AUTO, check_same_place, is_finished, read_resume, settings_of
from training.run import Run
from training.summary import summarise
from visu.report_page import write_report

log = logging.getLogger("deepcluster")

METHODS: dict[str, type[Method]] = {
    "deepcluster": DeepCluster,
    "deepclusterv2": DeepClusterV2,
    "swav": SwAV,
    "deepercluster": DeeperCluster,
}
DEFAULT_METHOD = "deepcluster"


def train(method: Method, run: Run) -> None:
    """The loop of every method: new labels before each epoch, then training on them.

    Raises:
        Stopped: a signal came, and a checkpoint was saved.
    """
    while run.epoch < run.epochs:
        if run.step == 0:
            method.relabel(run)  # features → whitening → k-means → pseudo-labels, a new top layer
        for batch in run.batches(method.draw(run.epoch)):
            method.before_step()
            run.update(method.losses(run.forward, batch))  # backward, SGD
            method.after_step(batch)
        run.finish_epoch()  # metrics, assignments, checkpoint
    run.finish(method.finish(run))  # the finished network's clusters, for new images


def main(args: argparse.Namespace) -> None:
    """Join the other processes, check everything, then train."""
    with stop_on_signals() as stopping, process_group(args.device):
        with together():
            limit_pixels(args.max_pixels)
            compute = select_compute(args.device, args.precision)
            images = find_images(args.data, reading_of(args), args.labels)
            if args.size_dataset is not None:
                images = images.take(range(len(images))[: args.size_dataset])
            warn_of_lost_levels(images)
            checkpoint = read_resume(args, images, METHODS[args.method])
            init = initial.read_init(args, checkpoint)
            chosen = check_settings(args, images, compute)
        check_same_place(args, checkpoint, images)
        if checkpoint is not None and is_finished(checkpoint, args.epochs):
            if rank() == 0:
                say_finished(args)
        else:
            start(args, images, compute, checkpoint, init, chosen, stopping)


def start(
    args: argparse.Namespace,
    images: ImageList,
    compute: Compute,
    checkpoint: dict[str, Any] | None,
    init: dict[str, Any] | None,
    chosen: list[str],
    stopping: Stopping,
) -> None:
    """Train to the end and print a summary, or until a signal comes."""
    probed = make_probe(images.labels, args.seed, compute.device) if args.probe else None
    try:
        with contextlib.ExitStack() as stack:
            with together():
                method = METHODS[args.method](args, compute)
                taken = init and initial.take_weights(method.network, init, args.init)
                run = Run(args, images, method, compute, stopping, checkpoint, probed)
                stack.enter_context(run)
            for line in filter(None, [*(f"note: {choice}" for choice in chosen), taken]):
                log.log(NOTE, line)
            train(method, run)
            if isinstance(run.folder, Experiment):
                folder = run.folder.folder
                report = None if args.no_report else make_report(folder)
                history = run.folder.read_metrics()
                sys.stdout.write(summarise(history, run.result, args.epochs, folder, report) + "\n")
    except Stopped as stopped:
        if isinstance(run.folder, Experiment):
            sys.stdout.write(f"stopped by {stopped}; to resume: {run.folder.how_to_resume()}\n")


def say_finished(args: argparse.Namespace) -> None:
    """Say that nothing is left to do. Write the page of a run that was killed before it had one."""
    sys.stdout.write(
        f"nothing to do: {args.resume} has finished all {args.epochs} epochs; raise --epochs to "
        "continue\n"
    )
    folder = folder_of(args.resume)
    page = folder / "report.html"
    stale = not page.exists() or page.stat().st_mtime < args.resume.stat().st_mtime
    if stale and not args.no_report and (folder / "metrics.jsonl").exists():
        remove_leftovers_of(page)
        make_report(folder)


def make_report(folder: Path) -> Path | None:
    """Write the run's page. A failure is only a warning: the run itself is good."""
    try:
        return write_report(folder)
    except Exception as error:
        log.warning("no report: %s", " ".join(str(error).split()) or type(error).__name__)
        return None


def check_settings(args: argparse.Namespace, images: ImageList, compute: Compute) -> list[str]:
    """Choose the settings that were not given, say why, and check all of them against each other
    and against the number of images. Returns a line for each choice.

    Raises:
        InputError: naming the flag, its value and what would be right.
    """
    chosen = METHODS[args.method].fit_settings(args, len(images))
    if args.batch < 2 * world_size():
        raise InputError(
            f"--batch {args.batch}: too small for {world_size()} processes; give "
            f"{2 * world_size()} or more (2 each)"
        )
    if args.resume in (None, AUTO) and args.start_epoch >= args.epochs:
        raise InputError(f"--start_epoch {args.start_epoch}: must be below --epochs {args.epochs}")
    optimizers.check_flags(args)
    check_size(args.arch, args.size)
    METHODS[args.method].check_flags(args, len(images), compute.device)
    return chosen


def make_parser(method: str) -> cli.Parser:
    """The flags of every run (the original's, then ours) and of a method."""
    parser = cli.Parser(
        description="Train a convnet on unlabelled images by clustering its own features.",
        example="python main.py /imagenet/train --sobel --verbose --exp exp/alexnet",
        details="docs/training.md",
        allow_abbrev=False,
        owner_of=owner_of,
    )
    add = parser.add_argument
    add("data", metavar="DIR", type=Path, help=f"images: {IMAGES_HELP}")
    add_labels_flag(parser)
    add("--method", choices=list(METHODS), default=DEFAULT_METHOD, help="training method")
    add_arch_flag(parser, "-a")
    add("--sobel", action="store_true", help="put fixed Sobel filters in front of the network")
    add("--size_dataset", metavar="N", type=cli.whole_number(1), help="use only the first N images")
    optimizers.add_flags(parser)
    flags.add_workers(parser)
    add("--epochs", type=cli.whole_number(1), default=200, help="number of epochs in all")
    flags.add_batch(parser, 256, "mini-batch size over all devices", least=2)
    resume.add_flags(parser)
    flags.add_seed(parser)
    exp_help = "experiment folder; left out: a new exp/NNN, or the one of the resumed run"
    flags.add_exp(parser, exp_help)
    flags.add_verbose(parser, "show progress and the numbers of each epoch")

    device.add_flags(parser)
    probe_help = "every so many epochs, classify labelled images by neighbours, not whitened"
    add("--probe", metavar="EPOCHS", type=cli.whole_number(1), help=probe_help)
    flags.add_size(parser)
    add_decode_flag(parser)
    add_max_pixels_flag(parser)
    add_reading_flags(parser, trained=False)
    add("--no-report", action="store_true", help="write no report.html at the end")
    initial.add_flags(parser)
    METHODS[method].add_flags(parser)
    return parser


def owner_of(flag: str) -> str | None:
    """The methods that have a flag."""
    methods = [name for name in METHODS if flag in make_parser(name).flags()]
    return f"--method {' or '.join(methods)}" if methods else None


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the flags. A resumed run takes those that aren't given from its checkpoint."""
    early = parse_early(argv)
    if (path := early.resume) == AUTO:
        path = (early.exp and last_sound(early.exp)) or AUTO
    elif path is not None:
        path = instead_of_damaged(path)
    settings = {} if path in (None, AUTO) else settings_of(path)
    saved = str(settings.get("method", DEFAULT_METHOD))
    method = early.method or saved
    parser = make_parser(method if method in list(METHODS) else DEFAULT_METHOD)
    if settings and method == saved:  # `read_resume` names another method
        parser.set_defaults(**parser.checked(settings, f"--resume {path}"))
    elif path in (None, AUTO) and early.init is not None:
        parser.set_defaults(**initial.network_flags(early.init, early.network_key))
    args = parser.parse_args(argv)
    if args.resume == AUTO and args.exp is None:
        parser.error("argument --resume auto: give --exp, the folder to resume in")
    args.resume = path
    return args


def parse_early(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags that the others depend on: each method has its own, and a resumed run's defaults
    are those of its checkpoint."""
    parser = cli.Parser(add_help=False, allow_abbrev=False)  # `--k` is not short for `--keep`
    parser.add_argument("--method")
    flags.add_exp(parser, "")
    resume.add_flags(parser)
    initial.add_flags(parser)
    return parser.parse_known_args(argv)[0]


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
