"""Whole epochs of `main.py` on a tree of photographs: how time and memory grow with the number of
images, and what workers and processes change.

Each run is started anew, with as many threads in all as there are cores. Its figures come from its
`metrics.jsonl`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.photos import add_images_flag, write_photos
from benchmarks.timing import number
from models import add_arch_flag
from system import cli, flags
from system.cores import allowed_cores
from system.errors import InputError

ROOT = Path(__file__).parents[1]
STAGES = ("features", "clustering", "training")


@dataclass(frozen=True)
class Run:
    """Settings of a run, and the last line of its `metrics.jsonl`."""

    images: int
    workers: int
    processes: int
    metrics: dict[str, Any]


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print a line for each run. Returns the same as a dict."""
    base = (max(args.images), max(args.workers), 1)
    settings = [(images, *base[1:]) for images in sorted(args.images)]
    settings += [(base[0], workers, 1) for workers in sorted(args.workers)[:-1]]
    settings += [(*base[:2], processes) for processes in sorted(args.processes) if processes > 1]
    sys.stdout.write(header())
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for images, workers, processes in settings:
            photos = Path(folder) / f"{images} images"
            if not photos.exists():
                write_photos(photos, images)
            metrics = epoch(photos, workers, processes, args)
            runs.append(Run(images, workers, processes, metrics))
            sys.stdout.write(line(runs[-1]))
            sys.stdout.flush()
    return {"runs": [vars(each) for each in runs]}


def epoch(photos: Path, workers: int, processes: int, args: argparse.Namespace) -> dict[str, Any]:
    """Run `main.py` for an epoch; the processes share the workers and threads.

    Raises:
        InputError: the run failed; has its last line.
    """
    flags = f"--arch {args.arch} --sobel --epochs 1 --k {args.k} --batch {args.batch}"
    flags += f" --workers {-(-workers // processes)} --device {args.device}"
    threads = {"OMP_NUM_THREADS": str(max(allowed_cores() // processes, 1))}
    return metrics_of(photos, flags, threads, processes)


def metrics_of(
    images: Path, flags: str, variables: dict[str, str], processes: int = 1
) -> dict[str, Any]:
    """Run `main.py` for an epoch; the line of its `metrics.jsonl`.

    Args:
        variables: of the environment, beside those there are.

    Raises:
        InputError: the run failed; has its last line.
    """
    launcher = ["-m", "parallel.launch", "--standalone", "--nproc_per_node", str(processes)]
    with tempfile.TemporaryDirectory() as exp:
        done = subprocess.run(
            [sys.executable, *(launcher if processes > 1 else []), str(ROOT / "main.py"),
             str(images), *flags.split(), "--exp", f"{exp}/run", "--no-report"],
            env={**os.environ, **variables}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise InputError(f"main.py failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        return json.loads((Path(exp) / "run" / "metrics.jsonl").read_text())


def header() -> str:
    columns = "".join(f"{name:>12}" for name in (*STAGES, "sum", "images/s", "memory"))
    return f"{'images':>8}{'workers':>9}{'processes':>11}{columns}\n"


def line(done: Run) -> str:
    """Seconds of each stage, images per second of the whole epoch, peak GiB of process 0."""
    seconds = [done.metrics["seconds"][stage] for stage in STAGES]
    whole = sum(seconds)
    cells = [*seconds, whole, done.images / whole, done.metrics["peak_memory_gib"]["process"]]
    row = "".join(number(value, 12, 2) for value in cells)
    return f"{done.images:8}{done.workers:9}{done.processes:11}{row}\n"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `run`, except the device."""
    add = parser.add_argument
    add_images_flag(
        parser, [512, 1024, 2048], "numbers of photographs, one run for each", nargs="+"
    )
    workers_help = f"{flags.READERS}, in all; one run for each, with the most images"
    flags.add_workers(parser, [0, 1, 2], workers_help, nargs="+")
    processes_help = "numbers of processes; one run for each number above 1, with the most images"
    add("--processes", type=cli.whole_number(1), nargs="+", default=[1, 2], help=processes_help)
    add_arch_flag(parser)
    add("--k", type=cli.whole_number(2), default=20, help="number of clusters")
    flags.add_batch(parser, 64, "mini-batch size of all processes", least=2)
