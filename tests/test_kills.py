"""Runs that are killed at random moments and resumed end like a run that was never killed."""

import collections
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import write_images
from runs import (
    STAGES,
    Server,
    assert_same,
    output_of,
    stage_of,
    wait_for,
    wait_until_killed,
)

from checkpoints.folder import place_of
from data.levels import LOOKED_AT

SEVERAL_CROPS = """--nmb_crops 2 1 --size_crops 32 16 --min_scale_crops 0.4 0.2
    --max_scale_crops 1 0.4 --hidden_mlp 8 --feat_dim 4 --lr 0.5"""
METHODS = {
    "deepcluster": "",
    "deepclusterv2": SEVERAL_CROPS,
    "swav": f"{SEVERAL_CROPS} --queue_length 16 --epoch_queue_starts 1",
}


class Campaign:
    """Runs of a method over the same images; one of them, `whole`, is never killed.

    Attributes:
        fell: the number of kills in each stage.
    """

    def __init__(
        self, server: Server, folder: Path, ranks: int, seed: int, method: str, *more: str
    ) -> None:
        self.server, self.folder, self.ranks = server, folder, ranks
        self.flags = ["--method", method, *METHODS[method].split(), "--checkpoints", "5", *more]
        self.random = random.Random(seed)
        self.fell: collections.Counter[str] = collections.Counter()
        for label in "ab":
            write_images(folder / "images" / label, 13, seed=ord(label))
        self.whole = folder / "whole"
        began = time.monotonic()
        assert self.server.wait(self.start(self.whole, 0)) == [0] * ranks, output_of(self.whole)
        self.seconds = time.monotonic() - began
        self.changes = int.from_bytes((self.whole / "changes").read_bytes(), "little")

    def start(self, folder: Path, workers: int, **options: Any) -> list[int]:
        data = self.folder / "images"
        return self.server.start(data, folder, self.ranks, workers, self.flags, **options)

    def kill_until(self, kills: int) -> None:
        """Kill and resume runs, each until it finishes, until there were this many kills. The first
        comes in the first pass over the images."""
        number = 0
        while sum(self.fell.values()) < kills:
            folder = self.folder / f"cut_{number}"
            if number == 0:
                self.kill_in_first_pass(folder)
            while not self.finishes(folder):
                pass
            assert_same(self.whole, folder)
            shutil.rmtree(folder)
            sys.stdout.write(f"{sum(self.fell.values())} kills so far: {dict(self.fell)}\n")
            number += 1

    def kill_in_first_pass(self, folder: Path) -> None:
        """DeepCluster-v2 fills its memory there. The others compute features."""
        processes = self.start(folder, 0, stall_at=[0, LOOKED_AT + 7])
        while not (folder / "paused").exists():
            time.sleep(0.001)
        assert stage_of(folder) == "features"
        self.kill(processes)
        assert -signal.SIGKILL in self.server.wait(processes), output_of(folder)
        self.fell["features"] += 1

    def kill(self, processes: list[int]) -> None:
        for process in self.random.sample(processes, len(processes)):
            os.kill(process, signal.SIGKILL)
            time.sleep(self.random.choice((0, 0, 0.01)))

    def finishes(self, folder: Path) -> bool:
        """Start or resume a run and kill it at a random moment. Returns whether it ended before."""
        workers = self.random.choice((0, 0, 0, 2))
        kind = self.random.choice(("time", "stage", "change", "change"))
        kill_at = self.random.randint(1, self.changes) if kind == "change" else None
        processes = self.start(folder, workers, kill_at=kill_at)
        if kind == "time":
            time.sleep(self.random.uniform(0, self.seconds))
        elif kind == "stage":
            wait_for(folder, self.random.choice(STAGES))
            time.sleep(self.random.uniform(0, 0.05))
        if kind == "change" and self.ranks > 1:
            wait_until_killed(processes[0])
        if kind != "change" or self.ranks > 1:
            self.kill(processes)
        statuses = self.server.wait(processes)
        if set(statuses) == {0}:
            return True
        assert -signal.SIGKILL in statuses, output_of(folder)
        self.fell[stage_of(folder)] += 1
        return False


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_ends_with_the_same_bits(
    server: Server, tmp_path: Path, method: str, ranks: int
) -> None:
    """The report takes longer than the training; kills in it are left to DeepCluster."""
    more = [] if method == "deepcluster" else ["--no-report"]
    seed = random.randrange(10**6)
    Campaign(server, tmp_path, ranks, seed, method, *more).kill_until(3)


def test_three_processes_resume_within_an_epoch_with_the_same_bits(
    server: Server, tmp_path: Path
) -> None:
    """Three ranks, since the sum of three gradients depends on their order."""
    campaign = Campaign(server, tmp_path, 3, 0, "deepcluster")
    cut = shutil.copytree(campaign.whole, tmp_path / "cut")
    gone = ("checkpoint.pth.tar", "checkpoint.previous.pth.tar", "checkpoints/checkpoint_2.pth.tar")
    for name in (*gone, "report.html"):
        (cut / "exp" / name).unlink()
    assert place_of(cut / "exp" / "checkpoints" / "checkpoint_1.pth.tar") == (1, 1)
    assert server.wait(campaign.start(cut, 0)) == [0, 0, 0], output_of(cut)
    assert_same(campaign.whole, cut)


@pytest.mark.long
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_a_long_campaign_of_kills(server: Server, tmp_path: Path, method: str, ranks: int) -> None:
    campaign = Campaign(server, tmp_path, ranks, random.randrange(10**6), method)
    campaign.kill_until(200)
    sys.stdout.write(f"{method}, {ranks} processes, kills by stage: {dict(campaign.fell)}\n")
    assert set(campaign.fell) >= set(STAGES) - {"end"}, "kills in every stage"
