"""Images per second that workers read and decode, by the number of workers: from files, with
TorchCodec and with Pillow; from a smaller copy by tools.prepare_data, in files and in tars. And how
many cores a GPU wants that takes so many images per second.

A core's rate is the number of images per second of processor time, of all workers and the main
process together, so that other programs on the machine hardly change it.
"""

import argparse
import contextlib
import io
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.transforms import v2

from benchmarks.photos import add_images_flag, write_photos
from benchmarks.timing import add_rounds_flag
from data.images import ImageList, find_images
from data.loading import ImageDataset, load_in_order
from data.transforms import central_crop, random_crop
from system import cli
from system.cores import allowed_cores
from system.errors import InputError
from tools import prepare_data

CPU = torch.device("cpu")
VIEWS: dict[str, v2.Transform] = {"central": central_crop(224), "random": random_crop(224)}
BATCH = 32


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print a table in Markdown. Returns the same as a dict."""
    if sys.platform != "linux":
        raise InputError("decoding: needs Linux, which has clocks of processor time by process")
    sys.stdout.write(
        f"{args.images} photos of 500 × 375, {allowed_cores()} cores; images per second of "
        f"processor time with {' and '.join(map(str, args.cores))} workers, and the cores for "
        f"{' and '.join(f'{rate:,}' for rate in args.wanted)} images/s\n\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        sources = make_sources(Path(folder), args.images)
        found = {
            f"{name}, {view} crop": {
                str(cores): measure(images, decode, view, cores, args.rounds)
                for cores in args.cores
            }
            for name, (images, decode) in sources.items()
            for view in VIEWS
        }
    sys.stdout.write(table(found, args.wanted))
    return {"images_per_second": found, "wanted": args.wanted}


def make_sources(folder: Path, count: int) -> dict[str, tuple[ImageList, str]]:
    """Photos and their copies, each with the value of `--decode`."""
    photos, copy, tars = (folder / name for name in ("photos", "copy", "tars"))
    write_photos(photos, count)
    for target, flags in ((copy, []), (tars, ["--shards", "2"])):
        argv = [str(photos), str(target), *flags, "--workers", "0"]
        with contextlib.redirect_stdout(io.StringIO()):
            prepare_data.main(prepare_data.parse_args(argv))
    original = find_images(photos)
    return {
        "files, --decode auto": (original, "auto"),
        "files, --decode pil": (original, "pil"),
        "smaller copy": (find_images(copy), "auto"),
        "smaller copy in tars": (find_images(tars), "auto"),
    }


def measure(
    images: ImageList, decode: str, view: str, workers: int, rounds: int
) -> dict[str, float]:
    """Images per second of processor time and of the clock, medians of some passes."""
    dataset = ImageDataset(images, VIEWS[view], decode=decode)
    loader = load_in_order(dataset, BATCH, workers, CPU)
    rates = []
    for _ in range(1 + rounds):  # the first starts the workers
        processes = [os.getpid(), *(worker.pid for worker in loader._workers)]
        processor, clock = processor_seconds(processes), time.perf_counter()
        for _ in loader:
            pass
        clock = time.perf_counter() - clock
        processor = processor_seconds(processes) - processor
        rates.append([len(images) / seconds for seconds in (processor, clock)])
    medians = np.median(rates[1:], axis=0).tolist()
    return dict(zip(("of a core", "by the clock"), medians, strict=True))


def processor_seconds(processes: Iterable[int]) -> float:
    """Seconds of processor time that some processes have used."""
    # the number that clock_getcpuclockid of Linux's C library gives
    return sum(time.clock_gettime((~process << 3) | 2) for process in processes)


def table(found: dict[str, dict[str, dict[str, float]]], wanted: list[int]) -> str:
    """A row for each source and crop. Cores are computed from the rate with the most workers."""
    counts = list(next(iter(found.values())))
    columns = [*(f"{n} worker{'s' if n != '1' else ''}" for n in counts)]
    columns += [f"cores for {rate:,}" for rate in wanted]
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, by_workers in found.items():
        rates = [by_workers[count]["of a core"] for count in counts]
        cores = [math.ceil(rate / rates[-1]) for rate in wanted]
        cells = [*(f"{rate:,.0f}" for rate in rates), *map(str, cores)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `run`, except the device."""
    add, number = parser.add_argument, cli.whole_number(1)
    add_images_flag(parser, 256)
    add("--cores", type=number, nargs="+", default=[1, 2], help="numbers of workers, one for each")
    wanted_help = "images per second that a GPU takes; the defaults are assumptions for AlexNet "
    wanted_help += "(an epoch of two passes over ImageNet in four minutes) and ResNet-50"
    add("--wanted", type=number, nargs="+", default=[10_700, 2500], help=wanted_help)
    add_rounds_flag(parser)
