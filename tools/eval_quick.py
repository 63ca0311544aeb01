"""What a network has learned, compared with the same network untrained and with raw pixels.

Protocol. Features of `--data`/train and `--data`/val, folders as labels: `evaluation/learned.py`
says how they are measured, with the run's k, and `evaluation/verdict.py` how they are compared. The
untrained network is the one that the run started from. Raw pixels: the network's own central crop,
resized to 32 pixels at most.

It takes seconds on some thousand images, and writes `quick.json` beside the checkpoint. It is not a
protocol of the paper: see docs/using.md.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import system.interrupt

import numpy as np
import torch

from checkpoints.checkpoint import model_of, read_checkpoint
from cluster.components import auto_dim
from data.decode import limit_pixels
from data.images import ImageList, NameUnreadable
from data.labelled import find_train_and_val
from data.loading import (
    ImageDataset,
    add_max_pixels_flag,
    load_in_order,
)
from data.reading import add_reading_flags, chosen_reading
from data.transforms import central_crop
from evaluation.learned import measures, raw_pixels
from evaluation.verdict import summary, table, to_plain, to_text, verdict
from features.forward import compute_features, raise_on_infinite
from models import ConvNet, untrained
from system import cli, device, flags
from system.device import Compute, select_compute
from system.errors import InputError
from system.files import write_text
from system.progress import progress
from visu.report_page import NAME, QUICK, write_report

BATCH = 256  # images at a time

# Images and their split's name → their rows `(M, D)`, and which can be read, `(N,) bool`
Embed = Callable[[ImageList, str], tuple[np.ndarray, np.ndarray]]


def main(args: argparse.Namespace) -> None:
    compute = select_compute(args.device, args.precision)
    checkpoint = read_checkpoint(args.model)
    protocol = protocol_of(checkpoint, args.model)
    limit_pixels(args.max_pixels)
    reading = chosen_reading(args, checkpoint["settings"], args.model)
    train, val = (split.images for split in find_train_and_val(args.data, reading))
    size, k, seed = (protocol[name] for name in ("size", "k", "seed"))
    trained = model_of(checkpoint, args.model)
    start = untrained(trained.arch, trained.sobel is not None, 2, seed)
    start.std = trained.std
    embeddings = {
        "pixels": embed_pixels(size, args),
        "untrained": embed_by(start, size, compute, args),
        "trained": embed_by(trained, size, compute, args),
    }
    judged = {name: judge(embed, train, val, k, seed) for name, embed in embeddings.items()}
    results = {name: found for name, (found, _) in judged.items()}
    labels, readable = len(train.classes), judged["trained"][1]
    components = auto_dim(readable, trained.embedding_dim)
    rows = table(results, k, labels, components)
    said = summary(results)
    before, after = results["untrained"], results["trained"]
    content = {
        "protocol": {
            "data": str(args.data),
            **protocol,
            **reading.settings,
            "whitened to": components,
        },
        "results": {name: to_plain(found) for name, found in results.items()},
        "verdicts": {name: verdict(before[name], after[name]) for name in after},
        "table": rows,
        "summary": said,
    }
    out = args.model.parent / QUICK
    write_text(out, json.dumps(content, indent=2) + "\n")
    sys.stdout.write("\n".join([to_text(rows), "", *said, f"written to {out}\n"]))
    if (out.parent / NAME).exists():
        write_report(out.parent)


def judge(
    embed: Embed, train: ImageList, val: ImageList, k: int, seed: int
) -> tuple[dict[str, np.ndarray], int]:
    """The `measures` of an embedding of labelled images, and the number of readable train images.

    Raises:
        InputError: train has fewer readable images than clusters, or val has none.
    """
    train_rows, readable = embed(train, "train")
    train_labels = np.array(train.folders)[readable]
    if len(train_rows) < max(k, 2):
        raise InputError(
            f"{train.root}: {len(train_rows)} readable images, fewer than the run's {k} clusters; "
            "give --data with more"
        )
    val_rows, readable = embed(val, "val")
    if len(val_rows) == 0:
        raise InputError(f"{val.root}: no readable image; give --data with some")
    val_labels = np.array(val.folders)[readable]
    return measures(train_rows, train_labels, val_rows, val_labels, k, seed), len(train_rows)


def embed_by(model: ConvNet, size: int, compute: Compute, args: argparse.Namespace) -> Embed:
    """By a network; raises InputError where its features are not finite."""
    model.to(compute.device).to(memory_format=torch.channels_last)

    def embed(images: ImageList, split: str) -> tuple[np.ndarray, np.ndarray]:
        dataset, count = ImageDataset(images, central_crop(size)), len(images)
        loader = load_in_order(dataset, BATCH, args.workers, compute.device)
        with progress(f"features of {split}", count, "images", args.verbose) as advance:
            unreadable, infinite = NameUnreadable(images), raise_on_infinite(images)
            found = compute_features(
                loader, model, range(count), compute, unreadable, advance, infinite
            )
        return found.rows, found.present

    return embed


def embed_pixels(size: int, args: argparse.Namespace) -> Embed:
    """By raw pixels: what the data give without a network."""

    def embed(images: ImageList, split: str) -> tuple[np.ndarray, np.ndarray]:
        dataset, readable = ImageDataset(images, central_crop(size)), np.zeros(len(images), bool)
        loader = load_in_order(dataset, BATCH, args.workers, torch.device("cpu"))
        rows = []
        with progress(f"pixels of {split}", len(images), "images", args.verbose) as advance:
            for batch in loader:
                if len(batch.index) > 0:
                    readable[batch.index.numpy()] = True
                    rows.append(raw_pixels(batch.pixels.numpy()))
                advance(len(batch.index) + len(batch.unreadable))
        return np.concatenate(rows) if rows else np.empty((0, 3), np.float32), readable

    return embed


def protocol_of(checkpoint: dict[str, Any], path: Path) -> dict[str, int]:
    """The number of clusters `k`, the `seed`, the input `size` and the `epoch` of a checkpoint.

    Raises:
        InputError: `main.py` did not write the checkpoint.
    """
    try:
        settings, clusters = checkpoint["settings"], checkpoint["clusters"]
        return {
            "k": len(clusters["centroids"]),
            "seed": int(settings["seed"]),
            "size": int(settings["size"]),
            "epoch": int(checkpoint["epoch"]),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: has no k, seed or input size; give a checkpoint of main.py"
        ) from error


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Linear probe, nearest neighbours and clusters against labels: the trained "
        "network, the untrained one, and raw pixels.",
        example="python -m tools.eval_quick --data datasets/digits "
        "--model exp/001/checkpoint.pth.tar",
        details="docs/own-images.md",
    )
    flags.add_data(parser)
    flags.add_model(parser, "checkpoint of a run of main.py")
    flags.add_workers(parser)
    add_max_pixels_flag(parser)
    add_reading_flags(parser)
    device.add_flags(parser)
    flags.add_verbose(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
