"""Settings of SwAV and DeepCluster-v2 that fit the data set, where they are not given.

At ImageNet's number of images the rules give the published settings: with batch 4,096 a learning
rate of 4.8 after 10 epochs of warm-up from 0.3; with batch 256 one of 0.6 without warm-up, and
SwAV's queue of 3,840 from epoch 15.
"""

import argparse
import math
from typing import Any

MOST_PROTOTYPES = 3000
IMAGES_EACH = 20  # at least, of a prototype
BATCH = 256  # up to here the learning rate stays and there is no warm-up
LARS_RATE, SGD_RATE = 0.6, 0.05
QUEUED_EACH = 1.25  # queued samples of a prototype
PROTOTYPES_RULE = (
    f"one for {IMAGES_EACH} images, {MOST_PROTOTYPES} at most; if you know roughly how many kinds "
    "of images there are, give ten times as many"
)
# Of flags that have another meaning or default with other methods
FITTED_HELPS = {
    "--lr": f"highest learning rate; left out: {LARS_RATE} for lars, {SGD_RATE} for sgd, and more "
    f"above batch {BATCH}",
    "--nmb_cluster": "number of prototypes, and of clusters of the finished run; left out: "
    f"{PROTOTYPES_RULE}",
    "--size_crops": "their sides in pixels; left out: --size, and 96/224 of it for small crops",
}


class Fitter:
    """Fills in flags that are None, and keeps a line for each.

    Args:
        args: the flags, which change.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.lines: list[str] = []

    def choose(self, name: str, value: Any, reason: str) -> None:
        """Set a flag that was not given."""
        if getattr(self.args, name) is None:
            setattr(self.args, name, value)
            shown = " ".join(map(str, value)) if isinstance(value, list) else f"{value:g}"
            self.lines.append(f"--{name} {shown}: {reason}")


def clusters_for(images: int) -> int:
    """A number of clusters for so many images."""
    return max(min(MOST_PROTOTYPES, images // IMAGES_EACH), 2)


def fit_shared(args: argparse.Namespace, images: int) -> list[str]:
    """Choose the clusters, crops and learning rates of both methods.

    Args:
        args: the flags, which change.
        images: N, number of images.

    Returns:
        A line for each choice, with its reason.
    """
    fit, given = Fitter(args), args.nmb_prototypes
    if given is not None:
        args.nmb_cluster = args.nmb_cluster or (given[0] if isinstance(given, list) else given)
    fit.choose("nmb_cluster", clusters_for(images), PROTOTYPES_RULE)
    small = round(args.size * 96 / 224)
    sizes = [args.size] + [small] * (len(args.nmb_crops) - 1)
    fit.choose("size_crops", sizes, "--size, and the paper's share of it for small crops")
    fit_learning_rate(fit)
    return fit.lines


def fit_learning_rate(fit: Fitter) -> None:
    """Choose the learning rate, its warm-up and its end."""
    args = fit.args
    growth = max(args.batch / BATCH, 1)
    lr = LARS_RATE * growth**0.75 if args.optimizer == "lars" else SGD_RATE * growth
    fit.choose("lr", lr, f"for {args.optimizer} and --batch {args.batch}")
    fit.choose("final_lr", args.lr / 1000, "a thousandth of --lr")
    warmup, reason = 0, f"none up to batch {BATCH}"
    if args.batch > BATCH:
        warmup, reason = min(10, args.epochs // 10), "a tenth of the epochs, 10 at most"
    fit.choose("warmup_epochs", warmup, reason)
    if args.warmup_epochs == 0 and args.start_warmup is None:
        args.start_warmup = args.lr
    fit.choose("start_warmup", args.lr / 16, "a sixteenth of --lr")


def fit_queue(args: argparse.Namespace, images: int) -> list[str]:
    """Choose SwAV's queue, and how long its prototypes are frozen; arguments and result as
    `fit_shared`."""
    fit, batches = Fitter(args), max(images // args.batch, 1)
    fit.choose("freeze_prototypes_niters", batches + 1, "an epoch, and one more")
    prototypes = args.nmb_prototypes
    if args.batch >= prototypes:
        length, reason = 0, f"--batch {args.batch} has at least as many samples as prototypes"
    else:
        length = math.ceil(QUEUED_EACH * prototypes / args.batch) * args.batch
        reason = f"codes need more samples than the {prototypes} prototypes, and than a batch has"
    fit.choose("queue_length", length, reason)
    if args.queue_length == 0 and args.epoch_queue_starts is None:
        args.epoch_queue_starts = 0
    starts = min(15, args.epochs // 10)
    fit.choose("epoch_queue_starts", starts, "a tenth of the epochs, 15 at most")
    return fit.lines
