"""Images per second of the run of `./main.sh` without `DIR`: with AVX2 and float32 only, and with
all that this processor has (bf16, if it has that); each with all cores for training and two workers
beside it, and with half of the cores for each, as `main.sh` has it.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.scaling import ROOT, metrics_of
from benchmarks.timing import add_rounds_flag
from system import cli
from system.cores import allowed_cores
from system.device import select_compute

AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2", "FAISS_OPT_LEVEL": "AVX2",
}  # fmt: skip
FLAGS = "--device cpu --arch convnet_small --size 32 --batch 64 --k 50 --lr 0.2 --epochs 1"


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print a Markdown table of the medians; all rates as a dict."""
    own = select_compute("cpu").precision
    processors = {"AVX2, fp32": (AVX2, "fp32"), f"this processor, {own}": ({}, own)}
    half = -(-allowed_cores() // 2)
    shares = {"all and 2 workers": (allowed_cores(), 2), "half and half": (half, half)}
    rates: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        make = [sys.executable, "-m", "tools.make_digits", f"{folder}/digits", "--scattered"]
        subprocess.run(make, cwd=ROOT, check=True)
        for _ in range(args.rounds):
            for processor, (variables, precision) in processors.items():
                for share, (threads, workers) in shares.items():
                    flags = f"{FLAGS} --precision {precision} --workers {workers} "
                    flags += f"--reassign {args.passes}"
                    env = {**variables, "OMP_NUM_THREADS": str(threads)}
                    metrics = metrics_of(Path(folder, "digits", "train"), flags, env)
                    key = f"{processor} | {share}"
                    rates.setdefault(key, []).append(metrics["images_per_second"])
    sys.stdout.write(table(rates))
    return {"images_per_second": rates}


def table(rates: dict[str, list[dict[str, float]]]) -> str:
    """A row for each processor and share of the cores; medians in images/s."""
    stages = ("features", "training")
    rows = ["| | threads for training | features | training |", "|---|---|---|---|"]
    for name, measured in rates.items():
        medians = [statistics.median(each[stage] for each in measured) for stage in stages]
        rows.append(f"| {name} | " + " | ".join(f"{rate:,.0f}" for rate in medians) + " |")
    return "\n".join(rows) + "\n"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `run`, except the device."""
    add_rounds_flag(parser)
    passes_help = "passes over the images in each run"
    parser.add_argument("--passes", type=cli.whole_number(1), default=2, help=passes_help)
