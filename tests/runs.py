"""Runs in their own processes, which a test can kill or signal, and helpers to compare runs."""

import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from checkpoints.checkpoint import read_checkpoint

ROOT = Path(__file__).parents[1]
STAGES = (
    "start", "logs taken back", "features", "clustering", "training", "checkpoint", "clusters file",
    "assignment", "metrics", "report", "end",
)  # fmt: skip
FLAGS = (
    "--arch tiny --sobel --k 4 --batch 8 --lr 0.01 --size 32 --epochs 3 --checkpoints 7 --probe 2 "
    "--device cpu --precision fp32"
)


class Server:
    """A client of tests/run_server.py."""

    def __init__(self) -> None:
        settings = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "run_server.py")],
            env={**os.environ, **settings},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._read()

    def start(
        self,
        data: Path,
        folder: Path,
        ranks: int = 1,
        workers: int = 0,
        more: Sequence[str] = (),
        flags: str = FLAGS,
        **options: Any,
    ) -> list[int]:
        """Start a run in `folder`/exp, or resume the run there. Returns the process IDs.

        Args:
            more: flags of main.py after `flags`.
            options: further fields of the request to tests/run_server.py.
        """
        folder.mkdir(exist_ok=True)
        (folder / "stage").unlink(missing_ok=True)
        command = f"{data} {flags} --workers {workers} --exp {folder / 'exp'} --resume auto".split()
        return self._ask(
            {"start": [*command, *more], "ranks": ranks, "folder": str(folder), **options}
        )

    def run_script(
        self,
        script: Path,
        arguments: Sequence[object],
        folder: Path,
        ranks: int = 2,
        threads: int = 1,
    ) -> str:
        """Run a script to its end in processes that are connected as under torchrun, without the
        seconds that each would take to import torch. Returns what they print, also to stderr."""
        folder.mkdir(exist_ok=True)
        request = {"script": str(script), "start": list(map(str, arguments)), "threads": threads}
        processes = self._ask({**request, "ranks": ranks, "folder": str(folder)})
        assert self.wait(processes) == [0] * ranks, output_of(folder)
        return output_of(folder)

    def wait(self, processes: list[int]) -> list[int]:
        """Wait for processes to end. Returns their exit statuses."""
        return self._ask({"wait": processes})

    def _ask(self, request: dict[str, Any]) -> list[int]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> list[int]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def stage_of(folder: Path) -> str:
    """The current stage of a run, or its last one."""
    noted = folder / "stage"
    return STAGES[noted.read_bytes()[0]] if noted.exists() and noted.stat().st_size else "start"


def wait_for(folder: Path, stage: str) -> None:
    """Wait until a run reaches a stage, or its end."""
    while stage_of(folder) not in (stage, "end"):
        time.sleep(0.0005)


def send(folder: Path, process: int, number: int, group: bool = False) -> None:
    """Wait until a run pauses, send a signal to one process or its group, and end the pause."""
    while not (folder / "paused").exists():
        time.sleep(0.001)
    (os.killpg if group else os.kill)(process, number)
    time.sleep(0.1)  # a thread receives it
    (folder / "paused").unlink()


def wait_until_killed(process: int) -> None:
    """Wait until a process has died and only its exit status is left."""
    while Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.001)


def output_of(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.glob("output_*")))


def load_clusters(folder: Path) -> list[list[list[int]]]:
    with (folder / "clusters").open("rb") as file:
        return pickle.load(file)


def load_metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_times(folder: Path) -> list[dict[str, Any]]:
    timed = ("seconds", "images_per_second", "peak_memory_gib")
    return [{n: v for n, v in line.items() if n not in timed} for line in load_metrics(folder)]


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = read_checkpoint(one), read_checkpoint(other)
    for name, weight in first["state_dict"].items():
        assert torch.equal(weight, second["state_dict"][name]), name
    momenta = [checkpoint["optimizer"]["state"] for checkpoint in (first, second)]
    for number, entry in momenta[0].items():
        assert torch.equal(entry["momentum_buffer"], momenta[1][number]["momentum_buffer"])


def assert_same(whole: Path, cut: Path) -> None:
    """Both runs have the same weights, assignments and metrics, bit for bit, with each epoch once,
    and no temporary files are left."""
    one, other = whole / "exp", cut / "exp"
    numbered, again = (sorted(p.name for p in (e / "checkpoints").iterdir()) for e in (one, other))
    assert again == numbered
    assert "checkpoint_1.pth.tar" in numbered
    for name in ("checkpoint.pth.tar", *(f"checkpoints/{name}" for name in numbered)):
        first, second = (torch.load(folder / name, weights_only=True) for folder in (one, other))
        for checkpoint in (first, second):
            for own in ("exp", "resume", "workers"):
                del checkpoint["settings"][own]
        assert_equal(first, second, name)
    assignments = sorted(path.name for path in (one / "assignments").iterdir())
    more = ["prototypes.npy"] if "window" in first else []  # of SwAV and DeepCluster-v2
    assert assignments == [*(f"epoch_{n:04d}.npy" for n in range(4)), *more]
    assert sorted(path.name for path in (other / "assignments").iterdir()) == assignments
    for name in assignments:
        first, second = (np.load(folder / "assignments" / name) for folder in (one, other))
        np.testing.assert_array_equal(first, second)
    assert without_times(one) == without_times(other)
    assert [line["epoch"] for line in without_times(other)] == [0, 1, 2]
    assert load_clusters(one) == load_clusters(other)
    assert (one / "clusters").read_bytes() == (other / "clusters").read_bytes()
    assert (one / "images.txt").read_bytes() == (other / "images.txt").read_bytes()
    for page in one.glob("report.html"):
        assert (other / page.name).read_text().rstrip().endswith("</html>")
    assert not list(other.rglob(".*.tmp"))
    events = EventAccumulator(str(other / "tensorboard")).Reload().Scalars("convnet_loss")
    assert sorted(event.step for event in events) == [0, 1, 2]


def contents_of(exp: Path) -> dict[str, Any]:
    """The newest checkpoint without the settings that differ between a run and the same resumed."""
    checkpoint = torch.load(exp / "checkpoint.pth.tar", weights_only=True)
    for own in ("exp", "resume", "checkpoints"):
        del checkpoint["settings"][own]
    return checkpoint


def assert_equal(one: Any, other: Any, where: str) -> None:
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one:
            assert_equal(one[name], other[name], f"{where}, {name}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for first, second in zip(one, other, strict=True):
            assert_equal(first, second, where)
    else:
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other, where
