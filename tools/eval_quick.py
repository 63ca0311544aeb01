"""A quick look at what a network has learned, compared with the same network untrained.

Protocol. The network's embeddings of `--data`/train are PCA-whitened to 256 and L2-normalised, as
for clustering; those of `--data`/val go through the same whitening. NMI: k-means (k as in the run)
of the train features against the folder labels, mean over five seeds; normalised by the geometric
mean of the entropies, as in the paper. Linear probe: scikit-learn's logistic regression with its
default settings on the train features, accuracy on the val features. The untrained network is the
one that the run started from.

This takes seconds on small data, and is not a protocol of the paper: see docs/using.md.
"""

import argparse
import dataclasses
import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from checkpoints.checkpoint import model_of, read_checkpoint
from cluster.quality import nmi
from cluster.whitening import fit_whitening
from clustering import run_kmeans
from data.decode import limit_pixels
from data.images import ImageList, NameUnreadable, find_images
from data.loading import (
    ImageDataset,
    add_exif_flag,
    add_max_pixels_flag,
    chosen_exif,
    load_in_order,
)
from data.transforms import central_crop
from features.forward import compute_features
from models import ConvNet, untrained
from system import cli, device, flags
from system.device import Compute, select_compute
from system.errors import InputError
from system.files import write_text
from system.progress import progress

KMEANS_SEEDS = range(5)
BATCH = 256  # images at a time


def evaluate(
    model: ConvNet,
    train: ImageList,
    val: ImageList,
    *,
    k: int,
    size: int,
    compute: Compute,
    workers: int,
    verbose: bool = False,
) -> dict[str, float]:
    """A network's NMI to the labels and linear probe accuracy (fractions of 1).

    Args:
        train, val: labelled images, with the same folder names.
        k: number of clusters for the NMI.
        size: side of the input in pixels.

    Raises:
        InputError: train has fewer readable images than clusters.
    """

    def embed(images: ImageList, split: str) -> tuple[np.ndarray, np.ndarray]:
        dataset = ImageDataset(images, central_crop(size))
        loader = load_in_order(dataset, BATCH, workers, compute.device)
        with progress(f"features of {split}", len(images), "images", verbose) as advance:
            features = compute_features(
                loader, model, range(len(images)), compute, NameUnreadable(images), advance
            )
        return features.rows, np.array(images.folders)[features.present]

    model.to(compute.device).to(memory_format=torch.channels_last)
    train_features, train_labels = embed(train, "train")
    if k > len(train_features):
        raise InputError(
            f"{train.root}: {len(train_features)} readable images, fewer than the run's {k} "
            "clusters; give --data with more"
        )
    val_features, val_labels = embed(val, "val")
    whitening = fit_whitening(train_features)
    x = whitening.apply(train_features)
    labels = np.unique(train_labels, return_inverse=True)[1]
    nmis = [nmi(run_kmeans(x, k, seed=seed)[0], labels) for seed in KMEANS_SEEDS]
    probe = LogisticRegression(max_iter=1000).fit(x, train_labels)
    return {
        "nmi_labels": float(np.mean(nmis)),
        "probe_accuracy": float(probe.score(whitening.apply(val_features), val_labels)),
    }


def main(args: argparse.Namespace) -> None:
    compute = select_compute(args.device, args.precision)
    train, val = (find_images(args.data / split) for split in ("train", "val"))
    for images in (train, val):
        if images.labels is None:
            raise InputError(f"{images.root}: needs one folder of images per label, at least 2")
    checkpoint = read_checkpoint(args.model)
    protocol = protocol_of(checkpoint, args.model)
    limit_pixels(args.max_pixels)
    exif = chosen_exif(args.exif, checkpoint["settings"], args.model)
    train, val = (dataclasses.replace(images, exif=exif) for images in (train, val))
    trained = model_of(checkpoint, args.model)
    start = untrained(trained.arch, trained.sobel is not None, 2, protocol["seed"])
    judge = functools.partial(
        evaluate, train=train, val=val, k=protocol["k"], size=protocol["size"], compute=compute,
        workers=args.workers, verbose=args.verbose,
    )  # fmt: skip
    results = {"untrained": judge(start), "trained": judge(trained)}
    out = args.model.parent / "quick.json"
    content = {"protocol": {"data": str(args.data), **protocol}, "results": results}
    write_text(out, json.dumps(content, indent=2) + "\n")
    sys.stdout.write(table(results) + f"\nwritten to {out}\n")


def protocol_of(checkpoint: dict[str, Any], path: Path) -> dict[str, int]:
    """The number of clusters `k`, the `seed` and the input `size` of a checkpoint's run.

    Raises:
        InputError: `main.py` did not write the checkpoint.
    """
    try:
        settings, clusters = checkpoint["settings"], checkpoint["clusters"]
        k = len(clusters["centroids"])
        return {"k": k, "seed": int(settings["seed"]), "size": int(settings["size"])}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: has no k, seed or input size; give a checkpoint of main.py"
        ) from error


def table(results: dict[str, dict[str, float]]) -> str:
    """The results of each network as text."""
    lines = [f"{'network':12}{'NMI to labels':>16}{'linear probe':>16}"]
    for name, result in results.items():
        lines.append(f"{name:12}{result['nmi_labels']:16.3f}{result['probe_accuracy']:16.3f}")
    return "\n".join(lines)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="NMI to the labels and a quick linear probe, of the trained and the untrained "
        "network.",
        example="python -m tools.eval_quick --data datasets/digits "
        "--model exp/001/checkpoint.pth.tar",
        details="docs/own-images.md",
    )
    flags.add_data(parser, "folder with train/ and val/, a folder for each label in both")
    flags.add_model(parser, "checkpoint of a run of main.py")
    flags.add_workers(parser)
    add_max_pixels_flag(parser)
    add_exif_flag(parser)
    device.add_flags(parser)
    flags.add_verbose(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
