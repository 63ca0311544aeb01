"""How long each stage takes, compared with a well-known library and with the hardware's limit.

All figures of a table are measured in one run, one after the other, so ratios can be trusted where
absolute times cannot.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import system.interrupt

from benchmarks import (
    clustering,
    containers,
    decoding,
    deepercluster,
    first_run,
    learned,
    multicrop,
    pictures,
    probe,
    scaling,
    spherical,
    training,
    visu,
    whitening,
)
from benchmarks.gpu import command as gpu
from system import cli
from system.device import add_device_flag
from system.errors import InputError
from system.files import write_text

BENCHMARKS = {
    "gpu": (gpu, "all that is to be measured on a GPU, in one command"),
    "clustering": (clustering, "PCA, k-means and PIC, step by step"),
    "training": (training, "features and training, from image files"),
    "containers": (containers, "images from files, tars, zips and Parquet; large indices"),
    "decoding": (decoding, "images/s of a core from files, copies and tars; cores for a GPU"),
    "pictures": (pictures, "the stages of cluster_images.py, beside decoding and network alone"),
    "multicrop": (multicrop, "reading several crops of each image"),
    "deepercluster": (deepercluster, "DeeperCluster at its published size, on paper and in part"),
    "spherical": (spherical, "k-means of DeepCluster-v2's memory, beside the plain way"),
    "probe": (probe, "linear classifiers on each conv layer, alone and all at once"),
    "visu": (visu, "pictures of filters by gradient ascent, many at once and one at a time"),
    "scaling": (scaling, "whole epochs, by number of images, workers and processes"),
    "first_run": (first_run, "images/s of ./main.sh without DIR, with AVX2 only and with bf16"),
    "learned": (learned, "what settings of main.py learn, over seeds"),
    "whitening": (whitening, "clusters of few images, by the dimensions of their whitening"),
}


def main(args: argparse.Namespace) -> None:
    benchmark, _ = BENCHMARKS[args.benchmark]
    if args.json is not None and not (args.json.parent.is_dir() and not args.json.is_dir()):
        raise InputError(f"--json {args.json}: give a file in an existing folder")
    results = without_nan({"settings": sys.argv[1:], **benchmark.run(args)})
    if args.json is not None:
        write_text(args.json, json.dumps(results, indent=2, allow_nan=False) + "\n")


def without_nan(value: Any) -> Any:
    """The value with None instead of NaN, which JSON lacks."""
    if isinstance(value, dict):
        return {name: without_nan(each) for name, each in value.items()}
    if isinstance(value, list):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    page = "docs/performance.md"
    parser = cli.Parser(description=__doc__, example="python -m benchmarks training", details=page)
    commands = parser.add_subparsers(dest="benchmark", required=True)
    for name, (benchmark, description) in BENCHMARKS.items():
        command = commands.add_parser(
            name,
            help=description,
            description=benchmark.__doc__,
            example=f"python -m benchmarks {name}",
            details=page,
        )
        benchmark.add_flags(command)
        add_device_flag(command)
        json_help = "write the figures to this file, too"
        command.add_argument("--json", metavar="FILE", type=Path, help=json_help)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
