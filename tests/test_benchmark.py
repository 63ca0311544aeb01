"""The benchmark runs, and its arithmetic is right; how fast anything is, is not tested."""

import math
import mmap
from pathlib import Path

import numpy as np
import pytest

import benchmark
from benchmark import Step
from errors import InputError


def test_the_clustering_steps_are_shown_beside_library_and_floor(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sizes = ["--n", "600", "400", "--dim", "300", "--k", "10", "--device", "cpu"]
    benchmark.main(benchmark.parse_args(["clustering", *sizes]))
    out, growth = capsys.readouterr().out.split("growth")
    first, second = out.split("N = ")[1:]
    assert first.startswith("400 ")
    assert second.startswith("600 ")
    for step in ("covariance", "eigenvectors", "projection", "k-means", "graph (exact)", "PIC"):
        for part in (first, second, growth):
            assert step in part


def test_the_growth_is_the_exponent_of_n() -> None:
    runs = {n: [Step("a step", 3e-9 * n**1.5, None, 0, 0)] for n in (1000, 4000, 9000)}
    assert benchmark.growth(runs).split()[-1] == "1.50"


def test_the_ratio_and_the_memory_are_in_the_table() -> None:
    row = benchmark.table(1024, [Step("a step", 2.0, 5.0, 0.5, 2**20)], 1024).split("\n")[2]
    assert row.split() == ["a", "step", "2.000", "5.000", "2.5", "0.500", "0.25"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_the_memory_of_a_step_is_its_peak() -> None:
    def use(mib: int) -> None:
        fresh = mmap.mmap(-1, mib * 2**20)  # malloc might give what it kept of an old peak
        np.frombuffer(fresh, np.uint8)[:] = 1

    large, small = benchmark.timed(use, 300), benchmark.timed(use, 10)
    assert 200 < (large.memory - small.memory) / 2**20 < 400


def test_the_arriving_features_are_all_there() -> None:
    starts, batches = zip(*benchmark.arriving(600, 32), strict=True)
    assert starts == (0, 256, 512)
    assert sum(len(batch) for batch in batches) == 600
    assert math.isfinite(float(batches[0].float().var()))


@pytest.mark.parametrize("flags", ["--k 700 --n 600", "--dim 255", "--n 256 --k 9"])
def test_impossible_sizes_are_refused(flags: str) -> None:
    with pytest.raises(InputError, match="^" + flags.split(" --n")[0].split(" --k")[0]):
        benchmark.main(benchmark.parse_args(["clustering", *flags.split()]))
