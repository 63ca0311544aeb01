"""Where the host waits for the device.

Torch's sync debug mode names calls that wait for a result. It doesn't see copies from memory that
isn't pinned, before which the driver may wait, nor other libraries' calls; a profile does.
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
    return dict(collections.Counter(_names(profiled, "Pageable")))


def count_calls(steps: Iterable[Any]) -> dict[str, int]:
    """The number of calls of CUDA that wait for a stream or an event, of any library. The one that
    waits for the whole device is left out: the profiler makes it, too."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        for _ in steps:
            pass
    return dict(collections.Counter(_names(profiled, "StreamSynchronize", "EventSynchronize")))


def _names(profiled: profile, *parts: str) -> list[str]:
    """The names of the events whose name has one of these parts."""
    return [e.name for e in profiled.events() if any(part in e.name for part in parts)]


def _short(path: str) -> str:
    found = Path(path)
    return str(found.relative_to(ROOT)) if found.is_relative_to(ROOT) else found.name
