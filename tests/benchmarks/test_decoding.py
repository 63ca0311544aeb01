"""The decoding benchmark: processor time of workers, and its table."""

import json
import os
import time
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmark
from benchmarks import decoding


def test_every_source_and_crop_has_a_rate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "figures.json"
    sizes = "--images 20 --cores 1 --rounds 1 --wanted 1000"
    benchmark.main(benchmark.parse_args(["decoding", *sizes.split(), "--json", str(saved)]))
    found = json.loads(saved.read_text())["images_per_second"]
    sources = ("files, --decode auto", "files, --decode pil", "smaller copy")
    names = [*sources, "smaller copy in tars"]
    assert list(found) == [f"{name}, {view} crop" for name in names for view in decoding.VIEWS]
    assert all(row["1"]["of a core"] > 0 for row in found.values())
    assert len(capsys.readouterr().out.split("\n\n")[1].splitlines()) == 2 + 8


def test_cores_are_rounded_up_from_the_rate_with_most_workers() -> None:
    rows = {"files": {"1": {"of a core": 1200.0}, "2": {"of a core": 999.0}}}
    assert decoding.table(rows, [10_000, 999]).splitlines() == [
        "| | 1 worker | 2 workers | cores for 10,000 | cores for 999 |", "|---|---|---|---|---|",
        "| files | 1,200 | 999 | 11 | 1 |",
    ]  # fmt: skip


def test_processor_time_counts_work_and_no_waits() -> None:
    before = decoding.processor_seconds([os.getpid()]), time.process_time()
    time.sleep(0.3)
    while time.process_time() - before[1] < 0.2:
        pass
    used = decoding.processor_seconds([os.getpid()]) - before[0]
    assert used == pytest.approx(time.process_time() - before[1], abs=0.05)
