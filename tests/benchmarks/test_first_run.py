"""The benchmark of the run of `./main.sh` without `DIR`: what it starts, and its table."""

from pathlib import Path
from typing import Any

import pytest

import main
from benchmarks import __main__ as benchmark
from benchmarks import first_run
from system.cores import allowed_cores


def test_processors_and_shares_of_the_cores_take_turns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[tuple[str, str, int]] = []

    def metrics_of(images: Path, flags: str, variables: dict[str, str]) -> dict[str, Any]:
        settings = main.parse_args([str(images), *flags.split()])
        assert len(list(images.rglob("*.png"))) == 5748
        started.append((variables.get("FAISS_OPT_LEVEL", ""), settings.precision, settings.workers))
        assert settings.reassign == 1
        rate = float(100 * len(started))
        return {"images_per_second": {"features": 2 * rate, "training": rate}}

    monkeypatch.setattr(first_run, "metrics_of", metrics_of)
    args = benchmark.parse_args(["first_run", "--rounds", "3", "--passes", "1"])
    rates = first_run.run(args)["images_per_second"]
    assert started[:4] == started[4:8] == started[8:]
    half = -(-allowed_cores() // 2)
    assert [(level, workers) for level, _, workers in started[:4]] == [
        ("AVX2", 2), ("AVX2", half), ("", 2), ("", half),
    ]  # fmt: skip
    assert started[0][1] == "fp32"
    assert [each["training"] for each in rates["AVX2, fp32 | half and half"]] == [200, 600, 1000]
    assert "| AVX2, fp32 | half and half | 1,200 | 600 |\n" in capsys.readouterr().out
