"""The benchmark of cluster_images.py: every stage has its seconds."""

import contextlib
import io
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

import cluster_images
from benchmarks import __main__ as benchmark
from system import cli
from system.errors import InputError

SMALL = "pictures --model timm:test_efficientnet@none --size 32 --images 48 --workers 1 --batch 16"
ALONE = ["decoding alone", "network alone"]
STAGES = ["features", "number of clusters", "clusters", "duplicates", "outliers", "map", "measures"]


def in_this_process(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
    """Run the script without the seconds that another process would take for its imports."""
    assert command[1] == "cluster_images.py"
    output, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(error):
        status = cli.run(cluster_images.main, cluster_images.parse_args, command[2:])
    return subprocess.CompletedProcess(command, status, output.getvalue(), error.getvalue())


def test_every_stage_has_its_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", in_this_process)
    saved = tmp_path / "figures.json"
    words = f"{SMALL} --many 96 --device cpu --json {saved}"
    benchmark.main(benchmark.parse_args(words.split()))
    told = json.loads(saved.read_text())
    stages = [*ALONE, *STAGES, "tables and pages"]
    assert list(told["seconds"]) == stages
    assert told["seconds"].keys() == told["seconds_of_many"].keys()
    for stage in (*ALONE, "features"):
        assert told["seconds_of_many"][stage] == pytest.approx(2 * told["seconds"][stage])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| seconds | 48 pictures | 96 |"
    assert len(lines) == 2 + len(stages)


def test_fewer_made_pictures_than_photos() -> None:
    with pytest.raises(InputError, match="--many 20: give 48 of --images or more, or 0"):
        benchmark.main(benchmark.parse_args([*SMALL.split(), "--many", "20"]))
