"""What a network has learned, compared with the same network untrained and with raw pixels.

Protocol. Features of `--data`/train and `--data`/val, folders as labels: `evaluation/learned.py`
says how they are measured, with the run's k, and `evaluation/verdict.py` how they are compared. The
untrained network is the one that the run started from; of a run with --init, one with random
weights. Raw pixels: the network's own central crop, resized to 32 pixels at most. A val image that
cannot be read counts as a mistake, a train image is left out; above 1 % of either it is an error.

It takes seconds on some thousand images, and writes `quick.json` beside the checkpoint. It is not a
protocol of the paper: see docs/using.md.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import system.interrupt

from checkpoints.checkpoint import model_of, read_checkpoint, untrained_of
from cluster.components import auto_dim
from data.decode import limit_pixels
from data.labelled import find_train_and_val
from data.labels_csv import add_labels_flag
from data.loading import add_max_pixels_flag
from data.reading import add_reading_flags, chosen_reading
from evaluation.embedded import embed_together, judge
from evaluation.verdict import summary, table, to_plain, to_text, verdict
from features.kept import Pass
from system import cli, device, flags
from system.device import select_compute
from system.errors import InputError
from system.files import write_text
from visu.report_page import NAME, QUICK, write_report


def main(args: argparse.Namespace) -> None:
    compute = select_compute(args.device, args.precision)
    checkpoint = read_checkpoint(args.model)
    protocol = protocol_of(checkpoint, args.model)
    limit_pixels(args.max_pixels)
    reading = chosen_reading(args, checkpoint["settings"], args.model)
    splits = find_train_and_val(args.data, reading, args.labels)
    train, val = (split.images for split in splits)
    size, k, seed = (protocol[name] for name in ("size", "k", "seed"))
    trained = model_of(checkpoint, args.model)
    start = untrained_of(checkpoint, seed)
    by = Pass(size, compute, workers=args.workers, verbose=args.verbose)
    names = ("pixels", "untrained", "trained")
    judged = {
        name: judge(embed, train, val, k, seed)
        for name, embed in zip(names, embed_together([start, trained], by), strict=True)
    }
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
    add_labels_flag(parser)
    device.add_flags(parser)
    flags.add_verbose(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
