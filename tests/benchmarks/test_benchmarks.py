"""The benchmarks run, and their arithmetic is right. Speed itself is not tested."""

import json
import math
import mmap
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny

from benchmarks import __main__ as benchmark
from benchmarks import multicrop, probe, scaling, timing, training, visu
from benchmarks.clustering import Step, arriving, growth, table
from benchmarks.photos import write_photos
from data.images import ImageList, find_images
from data.loading import Draw
from data.multicrop import Crops, unpack
from models import MODELS
from system.device import select_compute
from system.errors import InputError
from visu.ascent import Ascent, as_picture, ascend


def test_the_clustering_steps_are_all_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--n", "600", "400", "--dim", "300", "--k", "10", "--device", "cpu"]
    saved = tmp_path / "figures.json"
    benchmark.main(benchmark.parse_args(["clustering", *sizes, "--json", str(saved)]))
    assert set(json.loads(saved.read_text())) == {"settings", "400", "600"}
    out, exponents = capsys.readouterr().out.split("growth")
    first, second = out.split("N = ")[1:]
    assert first.startswith("400 ")
    assert second.startswith("600 ")
    for step in ("covariance", "eigenvectors", "projection", "k-means", "graph (exact)", "PIC"):
        for part in (first, second, exponents):
            assert step in part


def test_growth_is_the_exponent_of_n() -> None:
    runs = {n: [Step("a step", 3e-9 * n**1.5, None, 0, 0)] for n in (1000, 4000, 9000)}
    assert growth(runs).split()[-1] == "1.50"


def test_the_table_has_ratio_and_memory() -> None:
    row = table(1024, [Step("a step", 2.0, 5.0, 0.5, 2**20)], 1024).split("\n")[2]
    assert row.split() == ["a", "step", "2.000", "5.000", "2.5", "0.500", "0.25"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_the_memory_of_a_step_is_its_peak() -> None:
    def use(mib: int) -> None:
        fresh = mmap.mmap(-1, mib * 2**20)  # malloc might give what it kept of an old peak
        np.frombuffer(fresh, np.uint8)[:] = 1

    large, small = timing.timed(use, 300), timing.timed(use, 10)
    assert 200 < (large.memory - small.memory) / 2**20 < 400


def test_multicrop_is_compared_with_decoding_for_each_crop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = "--images 20 --nmb_crops 1 2 --size_crops 24 12 --batch 8 --workers 0 --rounds 1"
    saved = tmp_path / "figures.json"
    benchmark.main(benchmark.parse_args(["multicrop", *sizes.split(), "--json", str(saved)]))
    found = json.loads(saved.read_text())
    rates = found["images_per_second"]
    assert set(rates) == {"decoded once", "decoded for each crop"}
    assert found["ratio"] == rates["decoded once"] / rates["decoded for each crop"]
    assert "crops 1 × 24 + 2 × 12, " in capsys.readouterr().out


def test_the_plain_way_decodes_an_image_for_each_crop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(tmp_path, 1)
    images, opened = find_images(tmp_path), []
    read = ImageList.read_pixels

    def remember(self: ImageList, number: int) -> torch.Tensor:
        opened.append(number)
        return read(self, number)

    monkeypatch.setattr(ImageList, "read_pixels", remember)
    crops = Crops((1, 2), (24, 12), (0.14, 0.05), (1.0, 0.14))
    plain = multicrop.DecodedForEachCrop(images, crops, "pillow", "auto")
    _, pixels = plain[Draw(0, 0, 0)]
    assert isinstance(pixels, torch.Tensor)
    assert len(opened) == 3
    assert len(pixels) == crops.packed
    small = unpack(pixels[None], crops)[1]
    assert not torch.equal(small[0], small[1])


def test_spherical_kmeans_is_compared_with_the_plain_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = "--n 600 --dim 16 --k 20 30 --rounds 1 --device cpu"
    saved = tmp_path / "figures.json"
    benchmark.main(benchmark.parse_args(["spherical", *sizes.split(), "--json", str(saved)]))
    found = json.loads(saved.read_text())
    for k in ("20", "30"):
        assert found[k]["ratio"] == found[k]["plain_seconds"] / found[k]["seconds"]
        assert found[k]["same"] > 0.98
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["K", "20", "30"]
    with pytest.raises(InputError, match="--k 700: more clusters than --n 600; give fewer"):
        benchmark.main(benchmark.parse_args(["spherical", "--n", "600", "--k", "700"]))


def test_all_features_arrive() -> None:
    starts, batches = zip(*arriving(600, 32), strict=True)
    assert starts == (0, 256, 512)
    assert sum(len(batch) for batch in batches) == 600
    assert math.isfinite(float(batches[0].float().var()))


@pytest.mark.parametrize("flags", ["--k 700 --n 600", "--dim 255", "--n 256 --k 9"])
def test_impossible_sizes_are_an_error(flags: str) -> None:
    with pytest.raises(InputError, match="^" + flags.split(" --n")[0].split(" --k")[0]):
        benchmark.main(benchmark.parse_args(["clustering", *flags.split()]))


@pytest.mark.long
def test_training_has_its_limit_and_the_naive_way(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "clustering_seconds", lambda n, device: n / 1000 + 5)
    monkeypatch.setitem(timing.PRODUCTS, "cpu", (64, 1))
    flags = "training --images 20 --batch 10 --workers 0 --rounds 1 --device cpu"
    results = training.run(
        benchmark.parse_args([*flags.split(), "--precision", "fp32", "--project"])
    )
    out = capsys.readouterr().out
    for stage, rates in results["images_per_second"].items():
        assert set(rates) == {"end to end", "network", "reading", "limit", "naive"}
        assert all(rate > 0 for rate in rates.values())
        harmonic = 1 / (1 / rates["network"] + 1 / rates["reading"])
        assert rates["limit"] == pytest.approx(harmonic)
        assert f"\n{stage} " in out
    epoch = results["imagenet_seconds"]
    rates = results["images_per_second"]["training"]
    assert epoch["training"] == pytest.approx(1_281_167 / rates["end to end"])
    assert epoch["clustering"] == pytest.approx(1_281_167 / 1000 + 5)
    assert "an epoch of 1,281,167 images at these rates, k = 10,000: features" in out


def test_the_projected_clustering_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "DIM", 300)
    monkeypatch.setattr(training, "IMAGENET_K", 20)
    assert training.clustering_seconds(400, torch.device("cpu")) > 0


def test_alexnets_operations_by_hand() -> None:
    """Two for each multiply-add of the convolutions and the linear layers."""
    layers = [(96, 2, 11, 55), (256, 96, 5, 27), (384, 256, 3, 13), (384, 384, 3, 13)]
    layers += [(256, 384, 3, 13)]
    forward = sum(2 * out * grid**2 * into * kernel**2 for out, into, kernel, grid in layers)
    forward += 2 * (9216 * 4096 + 4096 * 4096)
    sobel = 2 * 224**2 * (3 + 2 * 9)
    assert training.operations("alexnet", training=False) == pytest.approx(forward + sobel)
    trained = training.operations("alexnet", training=True)
    assert 2.5 * forward < trained < 3.1 * (forward + sobel + 2 * 4096 * 1000)


@pytest.mark.long
def test_whole_epochs_by_images_workers_and_processes(capsys: pytest.CaptureFixture[str]) -> None:
    flags = (
        "scaling --arch resnet18 --images 20 --workers 0 --processes 1 --k 2 --batch 8 --device cpu"
    )
    results = scaling.run(benchmark.parse_args(flags.split()))
    rows = [(r["images"], r["workers"], r["processes"]) for r in results["runs"]]
    assert rows == [(20, 0, 1)]
    assert all(r["metrics"]["seconds"]["training"] > 0 for r in results["runs"])
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("clustering --json {}/none/x.json", "--json {}/none/x.json: give a file in an"),
        ("clustering --json {}", "--json {}: give a file in an existing folder"),
    ],
)
def test_a_bad_json_path_is_an_error_before_anything_is_measured(
    tmp_path: Path, flags: str, message: str
) -> None:
    with pytest.raises(InputError) as error:
        benchmark.main(benchmark.parse_args(flags.format(tmp_path).split()))
    assert str(error.value).startswith(message.format(tmp_path))


def test_nan_becomes_null_in_json() -> None:
    assert benchmark.without_nan({"a": [1.5, float("nan")], "b": "c"}) == {
        "a": [1.5, None],
        "b": "c",
    }


def test_probes_of_each_layer_and_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    flags = "probe --images 20 --batch 10 --classes 3 --workers 0 --rounds 1 --device cpu"
    results = probe.run(benchmark.parse_args(flags.split()))
    assert list(results["seconds"]) == ["conv1", "conv2", "conv3", "conv4", "conv5", "all"]
    assert all(seconds > 0 for seconds in results["seconds"].values())
    assert len(capsys.readouterr().out.splitlines()) == 2 + 6


def test_pictures_are_timed_and_equal_the_plain_ways(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    flags = "visu --arch tiny --batch 3 --alone 2 --niter 2 --rounds 1 --device cpu"
    args = benchmark.parse_args([*flags.split(), "--precision", "fp32"])
    rates = visu.run(args)["iterations_per_second"]
    assert {layer: list(rate) for layer, rate in rates.items()} == {
        f"conv{layer}": ["batch", "alone", "plain"] for layer in (1, 2)
    }
    first = capsys.readouterr().out.splitlines()[2].split()
    assert first[0] == "conv1"
    batch, alone, plain = rates["conv1"].values()
    assert first[4:] == [f"{batch / alone:.2f}×", f"{batch / plain:.2f}×"]

    model, ascent = tiny(sobel=True).eval(), Ascent(niter=6, idim=40)
    ours = ascend(model, 2, [3], ascent, select_compute("cpu", "fp32")).pictures
    theirs = as_picture(visu.plain(model, 2, 3, ascent))
    assert (ours.int() - theirs.int()).abs().max() <= 1


def test_each_kind_of_container_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "figures.json"
    sizes = "--images 20 --entries 25000 --readers 2 --rounds 1"
    benchmark.main(benchmark.parse_args(["containers", *sizes.split(), "--json", str(saved)]))
    found = json.loads(saved.read_text())
    assert len(found["milliseconds"]) == 7
    assert all(min(row.values()) > 0 for row in found["milliseconds"].values())
    assert found["index of 25000 images"]["MB of its own in each of 2 workers, at most"] > 0
    assert "folder " in capsys.readouterr().out
