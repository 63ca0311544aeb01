"""DeeperCluster's size on paper, against the published run's numbers and a count by hand; and the
benchmark with small sizes."""

import dataclasses
import json
from pathlib import Path

import pytest
from conftest import tiny
from reference_numbers import DEEPER

from benchmarks import __main__ as benchmark
from benchmarks.deepercluster import Part, size_of, whole_share
from benchmarks.deepercluster_size import (
    Rates,
    Size,
    device_memory,
    host_memory,
    hours,
    search_operations,
    traffic_of_clustering,
    traffic_of_step,
)
from models import MODELS
from system.errors import InputError

PUBLISHED = size_of(benchmark.parse_args(["deepercluster"]))
SMALL = Size(1000, 4, 8, 60, 10, 5, 300, 40, 10, 3, 2)  # m = 2, K = 30


def test_the_published_size_is_that_of_the_release() -> None:
    assert PUBLISHED.network == 134_268_416
    assert (PUBLISHED.super_clusters, PUBLISHED.each) == (4, 80_000)
    assert PUBLISHED.sub_heads == 16 * 80_000 * 4097
    assert round(4 * PUBLISHED.sub_heads / 16 / 1e9, 2) == 1.31  # gradients of a head
    assert PUBLISHED.clusterings == 35
    assert PUBLISHED.sample // 1_000_000 == 8, "D(D−1)/2"
    assert search_operations(PUBLISHED) * 64 == pytest.approx(4.3e16, rel=0.01)
    for run in DEEPER["run_arithmetic"].tolist():
        super_classes, rotnet, k, m, each = run[3:8]
        if rotnet:
            size = dataclasses.replace(PUBLISHED, super_classes=super_classes, k=k)
            assert (size.super_clusters, size.each) == (m, each)


def test_a_small_size_by_hand() -> None:
    heads, replicated = 8 * 30 * 11, 300 + 8 * 11
    assert list(device_memory(SMALL).values()) == [
        12 * replicated, 12 * heads / 4, 2 * heads / 4, 4 * heads / 4, 8 * 1000, 12 * 30 * 5,
        1.5 * 2**30,
    ]  # fmt: skip
    assert list(host_memory(SMALL).values()) == [
        2 * 250 * 5, 4 * 250 * 5, 24 * 30 * 5, 8 * 60 * 5, 16_000, 16_000, 40_000, 1600, 1200,
    ]  # fmt: skip
    assert list(traffic_of_step(SMALL).values()) == [
        4 * replicated, 2 * 40 * 10, 16 * 40, 20 * 40, 4 * 40 * 10,
    ]  # fmt: skip
    centroids = 2 + 60
    assert list(traffic_of_clustering(SMALL).values()) == [
        800, 4 * centroids * 5, 8 * 2 * centroids * 6, 9000,
    ]  # fmt: skip
    assert search_operations(SMALL) == 3 * 2 * 250 * (2 + 30) * 5
    found = hours(SMALL, Rates(features=2, training=5, search=100))
    features, kmeans, training = 250 / 2, 240_000 / 100, 250 / 5
    assert SMALL.clusterings == 5
    whole = 5 * (features + kmeans) + 10 * training
    for value, seconds in zip(found.values(), (features, kmeans, training, whole), strict=True):
        assert value == pytest.approx(seconds / 3600)


def test_the_share_of_a_process_is_extrapolated_from_its_parts() -> None:
    many, few = Part(100, 3, 9.0, 2.0, 5e6), Part(50, 30, 0.5, float("nan"), 1e6)
    found = whole_share(SMALL, many, few)
    rate = 2 * 50 * 30 * 5 / 0.5
    seconds = search_operations(SMALL) / rate + 2 * 2.0 * 250 / 100
    assert found["hours"] == pytest.approx(seconds / 3600)
    assert found["memory"] == 5e6 * 2.5 + 1e6


def test_small_sizes_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    saved = tmp_path / "figures.json"
    flags = "deepercluster --images 3000 --processes 2 --arch tiny --k 40 --dim_pca 8 --batch 32"
    flags += " --size 32 --sample 2 --rounds 1 --rows 2000 --centroids 20 --few_rows 100"
    flags += " --device cpu --precision fp32 --json"
    benchmark.main(benchmark.parse_args([*flags.split(), str(saved)]))
    found = json.loads(saved.read_text())
    assert all(rate > 0 for rate in found["rates"].values())
    assert [part["centroids"] for part in found["parts"]] == [20, 10]
    assert found["share"]["hours"] > 0
    out = capsys.readouterr().out
    for title in (
        "GB on the device",
        "GB in the host's memory",
        "MB that travel in a step",
        "hours",
    ):
        assert f"| | {title} |" in out
    assert "a process's share of a clustering, 1,500 rows, extrapolated: " in out


def test_given_rates_are_not_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.deepercluster.timed", None)
    flags = "deepercluster --dry-run --feature_rate 3500 --training_rate 1200 --gflops 40000"
    results = benchmark.BENCHMARKS["deepercluster"][0].run(benchmark.parse_args(flags.split()))
    assert results["hours"]["training, an epoch"] == pytest.approx(1_500_000 / 1200 / 3600)
    out = capsys.readouterr().out
    assert "1,200.0 images/s of training (given)" in out
    assert "whole sub-heads would take 62.9 GB in each process" in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--k 200", "--k 200: gives each super-class 50 sub-classes, fewer than the 64 processes; "
                    "give 256 or more"),
        ("--batch 112", "--batch 112: too small for --processes 64; give 128 or more"),
        ("--super_classes 6", "--super_classes 6: must be a multiple of 4 with rotations; give 8"),
        ("--batch 3070", "--batch 3070: each batch has equally many images of each of 16 "
                         "super-classes; give 3072"),
        ("--k 96000001", "--k 96000001: more clusters than the 96000000 images of --images"),
    ],
)  # fmt: skip
def test_impossible_sizes_are_an_error(flags: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        benchmark.main(benchmark.parse_args(["deepercluster", "--dry-run", *flags.split()]))
