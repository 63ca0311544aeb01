"""`python -m benchmarks gpu`: it goes on when a part fails, keeps what is there, and on a CPU each
part runs small."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny

from benchmarks import __main__ as benchmark
from benchmarks import training
from benchmarks.gpu import clusters, command, epoch, machine, own_tests, rates, steps
from benchmarks.gpu.command import PARTS, ROOT, Part, run_in_process
from benchmarks.gpu.setting import NO_GPU, Setting, photos
from benchmarks.gpu.table import markdown
from models import MODELS
from system.device import Compute
from system.errors import Fault, InputError


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(True, Compute(torch.device("cpu"), "fp32"), tmp_path)


def parse(out: Path, *flags: str) -> Any:
    return benchmark.parse_args(["gpu", "--device", "cpu", "--out", str(out), *flags])


def test_all_parts_together_take_nine_minutes_at_most() -> None:
    assert sum(part.limit for part in PARTS.values()) <= 9 * 60


def test_without_a_gpu_it_says_how_to_try_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no GPU with CUDA here; give --tiny to try"):
        command.run(parse(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_it_goes_on_when_a_part_fails_and_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A part that fails may have measured something; the file of an earlier run doesn't count."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "second.json").write_text('{"old": {"figure": 1}}')
    ways: dict[str, Callable[[], str]] = {
        "first": lambda: write({"a": {"figure": 12345.6}, "b": {"failed": "too hot"}}, "first"),
        "second": lambda: "took longer than 5 s",
        "third": lambda: write({"c": NO_GPU}, "third"),
    }

    def write(results: dict[str, Any], name: str) -> str:
        (out / f"{name}.json").write_text(json.dumps(results))
        return "status 2: failed: b" if name == "first" else ""

    parts = {name: Part(name.title(), lambda setting: {}, 5) for name in ways}
    monkeypatch.setattr(command, "PARTS", parts)
    monkeypatch.setattr(command, "run_in_process", lambda name, args, limit: ways[name]())
    with pytest.raises(Fault, match=r"^failed: first, second; see .*/gpu\.md$"):
        command.run(parse(out, "--tiny"))
    found = json.loads((out / "gpu.json").read_text())
    assert list(found) == ["first", "second", "third"]
    assert found["second"]["results"] == {}
    table = (out / "gpu.md").read_text()
    assert table in capsys.readouterr().out
    for line in ("| a | 12,346 |", "- b: failed: too hot", "- c: skipped: needs a GPU with CUDA"):
        assert line in table.splitlines()
    assert "**failed**: took longer than 5 s" in table


def test_the_table_has_a_row_for_each_thing_that_was_measured() -> None:
    rows = {"x": {"seconds": 0.12345, "where": "a|b"}, "y": {"seconds": 2.0, "more": 3}}
    part = {"title": "Title", "seconds": 4.4, "results": rows}
    assert markdown({"part": part}).splitlines() == [
        "## Title", "", "4 s", "", "| | seconds | where | more |", "|---|---|---|---|",
        "| x | 0.123 | a/b |  |", "| y | 2 |  | 3 |",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("script", "limit", "failed"),
    [
        ("echo well; exit 0", 60, ""),
        ("echo first >&2; echo 'benchmarks: error: no' >&2; exit 2", 60,
         "status 2: benchmarks: error: no"),
        ("sleep 300 & sleep 300", 0.3, "took longer than 0.3 s"),
    ],
)  # fmt: skip
def test_a_part_is_a_process_with_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, limit: float, failed: str
) -> None:
    """What it has started ends with it."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert run_in_process("images", parse(tmp_path), limit) == failed


def test_a_measurement_that_fails_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> dict[str, Any]:
        raise RuntimeError("CUDA out of memory\nmore")

    works = {"a": fail, "b": lambda: {"seconds": 1.5}}
    monkeypatch.setitem(command.PARTS, "images", Part("Images", lambda setting: works, 5))
    with pytest.raises(Fault, match=r"^failed: a$"):
        command.run(parse(tmp_path, "--tiny", "--part", "images"))
    found = json.loads((tmp_path / "images.json").read_text())
    assert found == {"a": {"failed": "CUDA out of memory"}, "b": {"seconds": 1.5}}
    assert "  b: seconds 1.5\n" in capsys.readouterr().out


def test_the_outcome_of_the_tests() -> None:
    good = "....\n4 passed, 2 skipped, 900 deselected in 3.2s\n"
    assert own_tests.outcome(good, 0) == {"passed": 4, "skipped tests": 2}
    bad = "FAILED tests/a.py::test_b - no\nERROR tests/c.py\n1 failed, 3 passed, 1 error in 3s\n"
    said = "1 failed, 3 passed, 1 error in 3s; tests/a.py::test_b; tests/c.py"
    assert own_tests.outcome(bad, 1) == {"failed": said}
    assert own_tests.outcome("", 1) == {"failed": "nothing printed"}


def test_parts_for_a_gpu_are_skipped_on_a_cpu(setting: Setting) -> None:
    assert [work() for work in own_tests.works(setting).values()] == [NO_GPU, NO_GPU]
    assert not list(setting.out.iterdir())
    assert machine.products(setting) == NO_GPU
    assert clusters.kmeans(setting, clusters.TINY, with_faiss=False) == NO_GPU
    assert machine.machine(setting)["torch"] == torch.__version__


def test_clustering_is_measured(setting: Setting) -> None:
    found = {name: work() for name, work in clusters.works(setting).items()}
    pca = found["PCA"]
    assert pca["seconds"] == sum(pca[s] for s in ("covariance", "eigenvectors", "projection"))
    kmeans = found["k-means, Faiss"]
    operations = 2 * 21 * np.prod([clusters.TINY.n, clusters.TINY.k, clusters.TINY.pca])
    assert kmeans["TFLOP/s"] == pytest.approx(operations / kmeans["seconds"] / 1e12)
    assert found["sums of an iteration"]["seconds"] > 0


@pytest.mark.parametrize("method", list(steps.TINY))
def test_the_steps_of_each_method_are_measured(
    setting: Setting, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    flags = steps.TINY[method].replace("resnet18_small", "tiny") + " --workers 0"
    with photos(20) as images:
        found = steps.figures_of(setting, f"{flags} --device cpu --precision fp32", images, 2)
    assert found["images/s"] == pytest.approx(4000 / found["ms a step"])
    assert found["waits a step"] == "skipped: needs a GPU with CUDA"


def test_operations_are_a_fraction_of_a_matrix_product(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "STAGES", {"training": lambda args, images, compute: images})
    monkeypatch.setattr(
        training, "measure", lambda images, rounds, with_naive: {"network": 10.0 * len(images)}
    )
    monkeypatch.setattr(training, "operations", lambda arch, trained: 3.0 if trained else 1.0)
    monkeypatch.setattr(Setting, "matmul", lambda self: 1200.0)
    assert list(rates.works(setting)) == ["alexnet, training"]
    found = rates.rates_of(setting, "alexnet", "training")
    assert found == {"network": 200, "of a matrix product": 0.5}


def test_the_projected_epoch(setting: Setting) -> None:
    assert epoch.project(setting, "alexnet") == {"skipped": "alexnet, features was not measured"}
    images = {
        "alexnet, features": {"end to end": 1281.167, "network": 12811.67},
        "alexnet, training": {"end to end": 640.5835, "network": 6405.835},
    }
    (setting.out / "images.json").write_text(json.dumps(images))
    clustering = {"PCA": {"seconds": 20.0}, "k-means, Faiss": {"seconds": 40.0}}
    (setting.out / "clustering.json").write_text(json.dumps(clustering))
    found = epoch.project(setting, "alexnet")
    seconds = [found[stage] for stage in ("features", "clustering", "training")]
    assert seconds == pytest.approx([1000, 60, 2000])
    assert found["minutes"] == pytest.approx(51)
    assert found["hours of 500 epochs"] == pytest.approx(425)
    assert found["minutes if reading kept up"] == pytest.approx(6)


@pytest.mark.long
def test_it_runs_to_its_end_on_a_cpu(tmp_path: Path) -> None:
    """Every part, with those that need a GPU named as skipped."""
    command = ["-m", "benchmarks", "gpu", "--tiny", "--device", "cpu", "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    parts = json.loads((tmp_path / "gpu.json").read_text())
    assert list(parts) == list(PARTS)
    assert not [name for name, part in parts.items() if "failed" in part]
    results = {name: row for part in parts.values() for name, row in part["results"].items()}
    assert results["pytest -m gpu"] == results["k-means, torch"] == NO_GPU
    assert results["k-means, Faiss"]["seconds"] > 0
