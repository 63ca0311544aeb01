"""DeepCluster: a convnet and its own clusters train each other.

Caron, Bojanowski, Joulin and Douze, "Deep Clustering for Unsupervised Learning of Visual Features",
ECCV 2018. The method is `deepcluster` below: features of all images, clusters of the features, a
new top layer, an epoch of training on the cluster ids, and again.
"""

import argparse
import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

import clustering_flags
from checkpoints.folder import folder_of, instead_of_damaged, last_sound
from cluster.clusters import Clusters
from cluster.quality import group_by_cluster
from cluster.sampler import ORDERS, cluster_weights
from clustering_flags import check_clustering, cluster_steps, make_clustering
from data.decode_gpu import check_decode
from data.images import ImageList, find_images
from data.loading import (
    Batch,
    EpochBatches,
    ImageDataset,
    add_decode_flag,
    add_max_pixels_flag,
    load_in_order,
    make_loader,
)
from data.transforms import TRAINING_VIEWS, central_crop, to_input
from evaluation.knn import classify_each_other
from features.forward import Features, compute_features
from models import MODELS, ConvNet, check_size
from models.convnet import initialise
from parallel.collectives import (
    broadcast_buffers,
    data_parallel,
    gather_objects,
    gather_rows,
    process_group,
    rank,
    shard_of,
    together,
    weighted,
    world_size,
)
from parallel.signals import Stopping, stop_on_signals
from system import cli, device
from system.device import Compute, select_compute
from system.errors import InputError, Stopped
from system.files import new_numbered_folder, remove_leftovers_of
from system.progress import progress
from system.seeding import derive_seed
from training import health
from training.experiment import Bystander, Experiment
from training.finite import PendingLosses, check_weights, refuse_features
from training.state import AUTO, State, is_finished, read_resume, set_up, settings_of, to_checkpoint
from training.summary import describe_clusters, describe_epoch, epoch_metrics, summarise
from visu.report_page import write_report

log = logging.getLogger("deepcluster")

MOST_DRAWN = 2**31  # images an epoch, whose order is in memory


def main(args: argparse.Namespace) -> None:
    """Join the other processes, if there are any, and run."""
    with stop_on_signals() as stopping, process_group(args.device):
        run(args, stopping)


def run(args: argparse.Namespace, stopping: Stopping) -> None:
    """Check everything that can be checked, then train, until the end or until a signal comes."""
    with together():
        compute = select_compute(args.device, args.precision)
        check_decode(args.decode, compute.device)
        images = find_images(args.data, args.max_pixels)
        checkpoint = read_resume(args, images)
        check_settings(args, len(images))
        make_clustering(args, 0, compute.device)  # what it refuses, it shall refuse now
    check_same_place(args, checkpoint)
    if checkpoint is not None and is_finished(checkpoint, args.epochs):
        if rank() == 0:
            sys.stdout.write(
                f"nothing left to do: {args.resume} is at epoch {checkpoint['epoch']} of "
                f"--epochs {args.epochs}; give more to go on\n"
            )
            complete_report(args)
        return
    try:
        with contextlib.ExitStack() as stack:
            with together():
                model, optimizer, state = set_up(args, checkpoint, compute)
                experiment = open_experiment(args, images, checkpoint)
                stack.enter_context(experiment)
            deepcluster(args, images, model, optimizer, state, compute, experiment, stopping)
            if isinstance(experiment, Experiment):
                report = None if args.no_report else make_report(experiment.folder)
                summary = summarise(
                    experiment.read_metrics(), args.epochs, experiment.folder, report
                )
                sys.stdout.write(summary + "\n")
    except Stopped as stopped:
        if isinstance(experiment, Experiment):
            sys.stdout.write(f"stopped by {stopped}; to go on: {experiment.how_to_go_on()}\n")


def deepcluster(
    args: argparse.Namespace,
    images: ImageList,
    model: ConvNet,
    optimizer: torch.optim.Optimizer,
    state: State,
    compute: Compute,
    experiment: Experiment | Bystander,
    stopping: Stopping,
) -> None:
    """Train a network with its own clusters (paper, section 3), epoch after epoch.

    Raises:
        Stopped: a signal came; what was done is saved.
    """
    processes = f"{world_size()} processes, " if world_size() > 1 else ""
    own = "images of process 0" if processes else "images"  # what progress counts
    log.info(
        "%s, %d images, %son %s in %s",
        args.arch, len(images), processes, compute.device, compute.precision,
    )  # fmt: skip
    central = ImageDataset(images, central_crop(args.size), args.seed, args.decode)
    augmented = ImageDataset(
        images, TRAINING_VIEWS[args.transforms](args.size), args.seed, args.decode
    )
    draws, shard = EpochBatches(args.batch, rank(), world_size()), shard_of(len(images))
    to_extract = load_in_order(central, args.batch, args.workers, compute.device, shard)
    to_train = make_loader(augmented, draws, args.workers, compute.device)

    def save(name: str) -> None:
        check_weights(model, state, experiment)
        experiment.save(name, to_checkpoint(args, images, model, optimizer, state))

    def find_clusters(seconds: dict[str, float]) -> tuple[np.ndarray, float, Clusters]:
        experiment.begin_pass()

        def refuse(batch: int, bad: np.ndarray) -> None:
            refuse_features(batch, [images.paths[i] for i in bad], state.epoch)

        with stage("features", len(shard), own, seconds, args.verbose) as advance:
            report, advance = experiment.report_unreadable, stopping.checked(advance)
            with together():
                features = compute_features(
                    to_extract, model, shard, compute, report, advance, refuse
                )
            experiment.gather_unreadable()
        warn(health.check_features(features.rows))
        state.knn_top1 = None
        if args.probe and images.labels is not None and state.epoch % args.probe == 0:
            state.knn_top1 = classify_each_other(features, images.labels, args.seed, compute.device)
        total, unit = cluster_steps(args, len(images), "images")
        with stage("clustering", total, unit, seconds, args.verbose) as advance:
            return cluster(args, features, state.epoch, compute, stopping.checked(advance))

    while state.epoch < args.epochs:
        seconds = dict.fromkeys(("features", "clustering", "training"), 0.0)

        if state.step == 0:  # else the run goes on in the middle of an epoch, with its clusters
            state.relabel(*find_clusters(seconds))
            warn(health.check_assignment(state.assignment, state.k))
            model.top_layer = new_top_layer(args, model, state).to(compute.device)

        order = draw_order(args, state)
        draws.start_epoch(state.epoch, order, first_batch=state.step)
        left = max(len(order) - state.step * args.batch, 0)  # the last batch may be a small one
        share = -(-left // world_size())
        with stage("training", share, own, seconds, args.verbose) as advance:
            training = to_train, state, compute, experiment, save, advance, stopping
            train(args, model, optimizer, *training)
            experiment.gather_unreadable()

        metrics = epoch_metrics(state, images.labels, left, seconds)
        loss, clusters = metrics["convnet_loss"], metrics["nonempty_clusters"]
        warn(health.check_loss(loss, clusters, state.epoch))
        log.info(describe_epoch(metrics, args.epochs))
        lists = group_by_cluster(state.assignment, state.k)
        experiment.log_epoch(metrics, state.assignment, lists)
        state.finish_epoch()
        save("checkpoint.pth.tar")

    # Those of the last epoch are of the network before it: new images need the finished network's.
    assignment, _, state.clusters = find_clusters({})
    log.info(describe_clusters(assignment, state, images.labels))
    experiment.save_assignment(state.epoch, assignment)
    save("checkpoint.pth.tar")


def cluster(
    args: argparse.Namespace,
    features: Features,
    epoch: int,
    compute: Compute,
    advance: Callable[[int], None],
) -> tuple[np.ndarray, float, Clusters]:
    """Pseudo-labels `(N,) int64`, −1 for an image without features, the clustering's loss, and what
    it takes to assign other images."""
    present = gather_rows(features.present)
    check_clustering(args, int(present.sum()), "images with features")
    seed = derive_seed(args.seed, "k-means", epoch)
    clustering = make_clustering(args, seed, compute.device)
    loss = clustering.cluster(features.rows, moments=features.moments, advance=advance)
    assignment = np.full(len(present), -1, np.int64)
    assignment[present] = clustering.assignments
    return assignment, loss, Clusters.of(clustering, epoch)


def new_top_layer(args: argparse.Namespace, model: ConvNet, state: State) -> nn.Linear:
    """A fresh classifier: cluster numbers mean nothing from one epoch to the next."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(args.seed, "top layer", state.epoch))
        return nn.Linear(model.embedding_dim, state.k).apply(initialise)


def draw_order(args: argparse.Namespace, state: State) -> np.ndarray:
    """The images that the epoch trains on, in order: `(reassign × N,) int64` indices."""
    length = max(int(args.reassign * (state.assignment >= 0).sum()), 1)
    rng = np.random.default_rng(derive_seed(args.seed, "sampler", state.epoch))
    return ORDERS[args.sampler](state.assignment, length, rng)


def train(
    args: argparse.Namespace,
    model: ConvNet,
    optimizer: torch.optim.Optimizer,
    loader: DataLoader[Batch],
    state: State,
    compute: Compute,
    experiment: Experiment | Bystander,
    save: Callable[[str], None],
    advance: Callable[[int], None],
    stopping: Stopping,
) -> None:
    """Train on the pseudo-labels from batch `state.step` to the end of the epoch.

    Raises:
        Stopped: a signal came; the epoch can go on from the checkpoint.
    """
    assert model.top_layer is not None
    head = torch.optim.SGD(
        model.top_layer.parameters(), lr=args.lr, weight_decay=10**args.wd, fused=True
    )
    labels = torch.from_numpy(state.assignment).to(compute.device)
    weights = None
    if args.reweight:
        found = cluster_weights(state.assignment, state.k)
        weights = torch.from_numpy(found).to(compute.device)
    network = data_parallel(model, compute.device)
    if world_size() > 2 and compute.device.type == "cpu":
        # After its first step DDP adds gradients up in another order, and of three numbers the sum
        # hangs on it. So that an epoch's first step is like any other, this one comes before.
        model.eval()
        network(to_input(blank_batch(args.size).pixels, compute.device)).sum().backward()
    model.train()
    losses = PendingLosses(state, model.parameters(), experiment)
    for batch in loader:
        experiment.report_unreadable(batch.unreadable)
        size = len(batch.index)
        if size == 0 and world_size() > 1:  # the others wait for this process's gradients
            batch = blank_batch(args.size)
        model.train(size > 0)  # a blank image is nothing for batch norm's statistics
        if len(batch.index) > 0:
            # so that dropout, too, is a function of (seed, epoch, step), another in each process
            draw = state.step * world_size() + rank()
            torch.manual_seed(derive_seed(args.seed, "dropout", state.epoch, draw))
            target = labels[batch.index.to(compute.device, non_blocking=True)]
            with compute.autocast():
                logits = network(to_input(batch.pixels, compute.device))
                each = F.cross_entropy(logits, target, weights, reduction="none")
            optimizer.zero_grad()
            head.zero_grad()
            state.scaler.scale(weighted(each.mean(), size)).backward()
            losses.add(each[:size], batch.index[:size])
            state.scaler.step(optimizer)
            state.scaler.step(head)
            state.scaler.update()
        state.step += 1
        state.iteration += 1
        if state.iteration % args.checkpoints == 0:
            losses.flush()
            save(f"checkpoints/checkpoint_{state.iteration // args.checkpoints}.pth.tar")
        if stopping.agreed():
            losses.flush()
            save("checkpoint.pth.tar")
            stopping.check()
        advance(size + len(batch.unreadable))
    losses.flush()
    check_weights(model, state, experiment)
    broadcast_buffers(model)


def blank_batch(size: int) -> Batch:
    """What a process goes through the network with when it has no images of a batch; it does not
    count."""
    return Batch(torch.zeros(1, 3, size, size, dtype=torch.uint8), torch.zeros(1).long(), {})


@contextlib.contextmanager
def stage(
    name: str, total: int, unit: str, seconds: dict[str, float], verbose: bool
) -> Iterator[Callable[[int], None]]:
    """Show the progress of a stage of the epoch, and note how long it took."""
    start = time.perf_counter()
    with progress(name, total, unit, verbose and rank() == 0) as advance:
        yield advance
    seconds[name] = time.perf_counter() - start


def complete_report(args: argparse.Namespace) -> None:
    """Write the page of a run that was cut between its last checkpoint and the page's end."""
    page, folder = folder_of(args.resume) / "report.html", folder_of(args.resume)
    stale = not page.exists() or page.stat().st_mtime < args.resume.stat().st_mtime
    if stale and not args.no_report and (folder / "metrics.jsonl").exists():
        remove_leftovers_of(page)
        make_report(folder)


def make_report(folder: Path) -> Path | None:
    """Write the run's page; without it, whatever the reason, the run is still a good one."""
    try:
        return write_report(folder)
    except Exception as error:
        log.warning("no report: %s", " ".join(str(error).split()) or type(error).__name__)
        return None


def warn(warnings: Sequence[str]) -> None:
    if rank() == 0:
        for warning in warnings:
            log.warning("unhealthy: %s", warning)


def check_settings(args: argparse.Namespace, images: int) -> None:
    """Check the flags against each other and against the number of images.

    Raises:
        InputError: naming the flag, its value and what would be right.
    """
    if args.batch < 2 * world_size():
        raise InputError(
            f"--batch {args.batch}: is the batch of all {world_size()} processes; give "
            f"{2 * world_size()} or more"
        )
    check_clustering(args, images, f"images of {args.data}")
    if args.reassign * images > MOST_DRAWN:
        raise InputError(
            f"--reassign {args.reassign:g}: of {images:,} images that would be more than "
            f"{MOST_DRAWN:,} an epoch; give less, and more --epochs"
        )
    if args.resume in (None, AUTO) and args.start_epoch >= args.epochs:
        raise InputError(
            f"--start_epoch {args.start_epoch}: there are only --epochs {args.epochs}, from 0 on"
        )
    if args.wd > 0:
        raise InputError(
            f"--wd {args.wd:g}: is the power of ten of the weight decay; give -5 for 1e-5"
        )
    check_size(args.arch, args.size)


def check_same_place(args: argparse.Namespace, checkpoint: dict[str, Any] | None) -> None:
    """Check that all processes go on from the same place of the run.

    Raises:
        InputError: they do not.
    """
    place = None if checkpoint is None else (checkpoint["epoch"], checkpoint.get("step", 0))
    places = gather_objects(place)
    if len(set(places)) > 1:
        found = ", ".join("none" if place is None else "{}/{}".format(*place) for place in places)
        raise InputError(
            f"--resume {args.resume}: is not at the same epoch/batch for all processes ({found}); "
            "do they all see the same files?"
        )


def open_experiment(
    args: argparse.Namespace, images: ImageList, checkpoint: dict[str, Any] | None
) -> Experiment | Bystander:
    """The experiment folder, in the one process that writes there.

    Raises:
        InputError: another run's results are in it, or it cannot be written.
    """
    if rank() > 0:
        return Bystander()
    return Experiment(experiment_folder(args), images, vars(args), args.resume, checkpoint)


def experiment_folder(args: argparse.Namespace) -> Path:
    """`--exp`; without it the folder of the resumed run, or a new numbered one."""
    if args.exp is not None:
        return args.exp
    if args.resume is not None:
        return folder_of(args.resume)
    try:
        return new_numbered_folder("exp")
    except OSError as error:
        raise InputError(f"exp: cannot write there: {error.strerror}; give --exp") from error


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The original's flags, then ours."""
    parser = cli.Parser(
        description="Train a convnet on unlabelled images by clustering its own features.",
        epilog="Example: python main.py /imagenet/train --sobel --verbose --exp exp/alexnet",
    )
    add = parser.add_argument
    data_help = "images: a folder, nested or flat, or a text file with a path on each line"
    add("data", metavar="DIR", type=Path, help=data_help)
    add("-a", "--arch", choices=list(MODELS), default="alexnet", help="architecture")
    add("--sobel", action="store_true", help="put fixed Sobel filters in front of the network")
    clustering_flags.add_flags(parser)
    lr_help = "learning rate; on small data try 0.005"
    add("--lr", type=cli.positive_number, default=0.05, help=lr_help)
    add("--wd", type=cli.number, default=-5.0, help="weight decay, as a power of ten")
    reassign_help = "epochs of training between two reassignments of clusters"
    add("--reassign", type=cli.positive_number, default=1.0, help=reassign_help)
    add("--workers", type=cli.whole_number(0), default=4, help="processes that read images")
    add("--epochs", type=cli.whole_number(1), default=200, help="number of epochs in all")
    start_help = "number of the first epoch; --resume knows it by itself"
    add("--start_epoch", type=cli.whole_number(0), default=0, help=start_help)
    add("--batch", type=cli.whole_number(2), default=256, help="mini-batch size over all devices")
    add("--momentum", type=cli.fraction, default=0.9, help="momentum of the network's SGD")
    resume_help = (
        "checkpoint to go on from; auto: the newest in --exp, or from the start if there is none"
    )
    add("--resume", metavar="PATH", type=Path, help=resume_help)
    checkpoints_help = "iterations between two numbered checkpoints"
    add("--checkpoints", type=cli.whole_number(1), default=25000, help=checkpoints_help)
    keep_help = "numbered checkpoints that are kept, the last ones; left out: all"
    add("--keep", metavar="N", type=cli.whole_number(1), help=keep_help)
    add("--seed", type=cli.whole_number(0), default=31, help="random seed")
    exp_help = "experiment folder; left out: a new exp/NNN, or the one of the resumed run"
    add("--exp", type=Path, help=exp_help)
    add("--verbose", action="store_true", help="show progress and what each epoch came to")

    device.add_flags(parser)
    sampler_help = (
        "paper: all clusters equally often; released: unbalanced, as in the released code"
    )
    add("--sampler", choices=list(ORDERS), default="paper", help=sampler_help)
    transforms_help = "how training images are drawn: paper: crop and flip; modelzoo: and colours"
    add("--transforms", choices=list(TRAINING_VIEWS), default="paper", help=transforms_help)
    reweight_help = "let a cluster count in the loss by the root of one over its size"
    add("--reweight", action="store_true", help=reweight_help)
    probe_help = "classify by nearest neighbours, where there are labels, every so many epochs"
    add("--probe", metavar="EPOCHS", type=cli.whole_number(1), help=probe_help)
    size_help = "side of the input in pixels; the short side is resized to 256/224 of it first"
    add("--size", type=cli.whole_number(1), default=224, help=size_help)
    add_decode_flag(parser)
    add_max_pixels_flag(parser)
    add("--no-report", action="store_true", help="write no report.html at the end")

    args = parser.parse_args(argv)
    resume = args.resume
    if resume == AUTO:
        if args.exp is None:
            parser.error("argument --resume auto: give --exp, the folder that it is to go on in")
        resume = last_sound(args.exp) or AUTO
    elif resume is not None:
        resume = instead_of_damaged(resume)
    if resume not in (None, AUTO):  # a setting that is not given stays as it was
        parser.set_defaults(**parser.checked(settings_of(resume), f"--resume {resume}"))
        args = parser.parse_args(argv)
    args.resume = resume
    return args


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
