"""A long run uses no more memory, files and processes at its end than at its beginning."""

import gc
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import load_metrics

from training.experiment import Experiment

Train = Callable[..., Path]
Usage = dict[str, float]
COUNTED = ("open files", "threads", "processes")


def usage() -> Usage:
    """Usage of this process; resident memory in MiB, also of the workers."""
    gc.collect()  # closed with what holds them, which may be in a cycle
    me = Path("/proc/self")
    workers = [pid for file in me.glob("task/*/children") for pid in file.read_text().split()]
    return {
        "memory": _resident(me),
        "workers' memory": sum(_resident(Path("/proc", pid)) for pid in workers),
        "open files": len(list((me / "fd").iterdir())),
        "threads": len(list((me / "task").iterdir())),
        "Python threads": threading.active_count(),
        "processes": len(workers),
    }


def _resident(process: Path) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", (process / "status").read_text())
    return int(found[1]) / 1024 if found else 0.0


@pytest.fixture
def after_epochs(monkeypatch: pytest.MonkeyPatch) -> list[Usage]:
    """Usage after each epoch of a test's runs."""
    history: list[Usage] = []
    log_epoch = Experiment.log_epoch

    def measured(self: Experiment, *args: Any) -> None:
        log_epoch(self, *args)
        history.append(usage())

    monkeypatch.setattr(Experiment, "log_epoch", measured)
    return history


def median(history: list[Usage], name: str) -> float:
    return float(np.median([line[name] for line in history]))


def test_six_epochs_leave_nothing_open(tree: Path, train: Train, after_epochs: list[Usage]) -> None:
    train(tree, "--epochs", "6", "--checkpoints", "3", "--keep", "2")
    for name in COUNTED:
        assert after_epochs[-1][name] <= after_epochs[1][name], name


def test_three_runs_in_a_row_leave_nothing_open(
    tree: Path, train: Train, after_epochs: list[Usage]
) -> None:
    at_first, before = usage(), []  # other tests may have left processes
    for number in range(3):
        train(tree, "--workers", "1", exp=str(number))
        before.append(usage())
    deadline = time.monotonic() + 20  # the thread of the last pass ends by itself
    while time.monotonic() < deadline and any(usage()[name] > before[1][name] for name in COUNTED):
        time.sleep(0.1)
    at_last = usage()
    for name in COUNTED:
        assert at_last[name] <= before[1][name], name
    assert at_last["processes"] <= at_first["processes"], "the workers have ended"


@pytest.mark.long
def test_200_epochs_stay_flat(tree: Path, train: Train, after_epochs: list[Usage]) -> None:
    folder = train(tree, "--epochs", "200", "--workers", "2", "--checkpoints", "7", "--keep", "3")
    quarters = [after_epochs[start : start + 50] for start in range(0, 200, 50)]
    for name in after_epochs[0]:
        medians = [round(median(quarter, name), 1) for quarter in quarters]
        sys.stdout.write(f"{name}: {after_epochs[0][name]:.1f}, medians of 50 epochs {medians}\n")
    for name in COUNTED:
        assert after_epochs[-1][name] <= after_epochs[4][name], name
    for name in ("memory", "workers' memory"):
        grown = median(quarters[3], name) - median(quarters[1], name)
        assert grown < 0.02 * median(quarters[1], name), f"{name}: {grown:.1f} MiB in 100 epochs"
    assert len(list((folder / "checkpoints").iterdir())) == 3
    assert len(load_metrics(folder)) == 200
