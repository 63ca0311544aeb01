"""Where the host waits for the device.

Torch's sync debug mode names calls that wait for a result. It doesn't see copies from memory that
isn't pinned, before which the driver may wait; a profile does.
"""

import collections
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

ROOT = Path(__file__).parents[2]
SAID = "called a synchronizing CUDA operation"


def count_waits(steps: Iterable[Any]) -> dict[str, int]:
    """The number of times that the host waits in some steps, by the line of code that calls."""
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for _ in steps:
                pass
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    lines = [f"{_short(w.filename)}:{w.lineno}" for w in caught if SAID in str(w.message)]
    return dict(collections.Counter(lines))


def count_copies(steps: Iterable[Any]) -> dict[str, int]:
    """The number of copies between the device and memory of the host that isn't pinned, by their
    direction."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        for _ in steps:
            pass
    names = [event.name for event in profiled.events() if "Pageable" in event.name]
    return dict(collections.Counter(names))


def _short(path: str) -> str:
    found = Path(path)
    return str(found.relative_to(ROOT)) if found.is_relative_to(ROOT) else found.name
