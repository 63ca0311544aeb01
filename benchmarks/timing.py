"""Time, memory and the hardware's rate, as all benchmarks measure them."""

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from system import cli

PRODUCTS = {"cuda": (8192, 20), "cpu": (4096, 1)}  # side, and how many: a GPU takes 1 ms for one


def add_rounds_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--rounds`."""
    rounds_help = "number of timings; the median counts"
    parser.add_argument("--rounds", type=cli.whole_number(1), default=3, help=rounds_help)


@dataclass(frozen=True)
class Timed:
    """A result, the seconds it took, and the process's peak memory meanwhile, in bytes."""

    result: Any
    seconds: float
    memory: float


def timed(work: Callable[..., Any], *args: Any) -> Timed:
    """Call `work(*args)` and measure it."""
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")  # forget the peak so far
    start = time.perf_counter()
    result = work(*args)
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # wait for work on the GPU
    return Timed(result, time.perf_counter() - start, memory("VmHWM"))


def memory(which: str = "VmRSS") -> float:
    """The process's memory in bytes, now or at its peak (NaN without Linux's /proc)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return math.nan
    (line,) = (line for line in status.read_text().splitlines() if line.startswith(which))
    return float(line.split()[1]) * 1024


def matmul_rate(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations per second of large matrix products, the best of 3."""
    side, count = PRODUCTS["cuda" if device.type == "cuda" else "cpu"]
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))

    def multiply() -> None:
        for _ in range(count):
            torch.mm(a, b)

    return 2 * side**3 * count / min(timed(multiply).seconds for _ in range(3))


def number(value: float | None, width: int = 10, digits: int = 3) -> str:
    """A right-aligned number, or a dash."""
    return f"{'–':>{width}}" if value is None or math.isnan(value) else f"{value:{width}.{digits}f}"
