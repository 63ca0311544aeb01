"""Logistic regression on the embeddings of a frozen network, without augmentation.

The short side of each image is resized to 256/224 of --size; the central crop goes through the
network in eval mode, once. The embedding, in half precision, is the last hidden layer before its
ReLU, or the global average pool of a residual network. Each dimension is standardised by its mean
and standard deviation over the train images. Logistic regression (scikit-learn's, with all classes
in one softmax and an L2 penalty) is fitted to four fifths of the train images with each C of
0.0001, 0.001, 0.01, 0.1 and 1; the C with the highest accuracy on the other fifth, which is drawn
with --seed and has its share of each class, is fitted again to all train images. (If a class has
too few images to be on both sides, C is 0.01.) top1 and top5 are accuracies on val, as fractions of
1. A val image that cannot be read counts as a mistake.
"""

import argparse
from typing import Any

import numpy as np

from data.labelled import Labelled
from evaluation.embedded import rows_of_share
from evaluation.learned import fit_probe
from evaluation.linear_scores import TOP
from evaluation.metrics import top_k
from features.kept import Pass
from models import Network
from models.frozen import frozen
from parallel.collectives import gather_rows, rank
from system.errors import InputError

SIMPLE = "simple"  # a protocol beside those of `RECIPES`
WITHOUT = ("conv", "tencrops", "epochs", "lr", "steps", "momentum", "wd")  # flags of the others


def check_simple(args: argparse.Namespace) -> None:
    """Check that no flag of another protocol was given: its default is None here.

    Raises:
        InputError: naming the flag.
    """
    for name in WITHOUT:
        if getattr(args, name) is not None:
            raise InputError(f"--{name}: not with --protocol {SIMPLE}, which trains without it")


def evaluate(model: Network, train: Labelled, val: Labelled, by: Pass, seed: int) -> dict[str, Any]:
    """Val's `top1` and `top5` (fractions of 1); the chosen `c`, and the accuracy on the held-out
    fifth by C; the `dimensions`; whether the solver `converged`. In processes other than the first,
    nothing.

    Raises:
        InputError: too many images cannot be read, or only one class is left.
    """
    with frozen(model):
        rows, labels = rows_of_share(model, by, train, "train", "train on")
        queries, truth = rows_of_share(model, by, val, "val", "validate on")
    rows, labels, queries, truth = map(gather_rows, (rows, labels, queries, truth))
    if len(np.unique(labels)) < 2:
        raise InputError(
            f"{train.images.root}: readable images of one class only; give two or more"
        )
    if rank() > 0:
        return {}
    probe = fit_probe(rows, labels, seed)
    scores = np.full((len(queries), len(train.classes)), -np.inf)
    scores[:, probe.labels] = probe.scores(queries)
    readable = len(truth) / len(val.images)
    return {
        "top1": top_k(scores, truth, 1) * readable,
        "top5": top_k(scores, truth, TOP) * readable,
        "c": probe.regularisation,
        "held_out": {str(c): accuracy for c, accuracy in probe.held_out.items()},
        "dimensions": rows.shape[1],
        "converged": probe.converged,
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """A line for each network, accuracies in percent."""
    lines = [f"{'network':12}{'top-1':>8}{'top-5':>8}{'C':>9}"]
    for name, found in results.items():
        shown = f"{name:12}{100 * found['top1']:8.2f}{100 * found['top5']:8.2f}{found['c']:9g}"
        lines.append(shown if found["converged"] else f"{shown}  (the solver did not converge)")
    return "\n".join(lines)
