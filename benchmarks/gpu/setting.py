"""The settings of the parts, and the functions that they share."""

import argparse
import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from benchmarks.photos import write_photos
from benchmarks.timing import matmul_rate
from data.images import ImageList, find_images
from system.cores import allowed_cores
from system.device import AUTOCAST, Compute

DISTINCT = 512  # photographs; writing one takes milliseconds

# Measures something: figures by name. Or one entry, `skipped` or `failed`, with the reason.
Work = Callable[[], dict[str, Any]]
NO_GPU = {"skipped": "needs a GPU with CUDA"}


@dataclass(frozen=True)
class Setting:
    """How a part measures.

    Attributes:
        tiny: on so little that a CPU takes seconds.
        out: folder with the files of earlier parts.
    """

    tiny: bool
    compute: Compute
    out: Path

    @property
    def on_gpu(self) -> bool:
        return self.compute.device.type == "cuda"

    @property
    def workers(self) -> int:
        """Processes that read images: one for each core, at most 16."""
        return 0 if self.tiny else min(allowed_cores(), 16)

    def arguments(self, benchmark: ModuleType, flags: str) -> argparse.Namespace:
        """The flags of another benchmark, parsed."""
        parser = argparse.ArgumentParser()
        benchmark.add_flags(parser)
        return parser.parse_args(flags.split())

    def matmul(self) -> float:
        """Floating-point operations per second of a large matrix product in the precision of
        forward passes."""
        return _rate(self.compute.device, AUTOCAST.get(self.compute.precision, torch.float32))

    def peak_memory(self) -> dict[str, float]:
        """The GPU's peak memory in GB since the last call; empty on a CPU."""
        if not self.on_gpu:
            return {}
        peak = torch.cuda.max_memory_allocated() / 1e9
        torch.cuda.reset_peak_memory_stats()
        return {"peak GB": peak}


@functools.cache
def _rate(device: torch.device, dtype: torch.dtype) -> float:
    return matmul_rate(device, dtype)


@contextlib.contextmanager
def photos(count: int) -> Iterator[ImageList]:
    """A data set of so many photographs; of more than `DISTINCT` some are the same files."""
    with tempfile.TemporaryDirectory() as folder:
        write_photos(Path(folder), min(count, DISTINCT))
        images = find_images(Path(folder))
        yield images.take(np.arange(count) % len(images))
