"""visu/clusters.py: which clusters a run's sheets show, and what they say of them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ErrorLine
from PIL import Image

from checkpoints.checkpoint import load_model, read_checkpoint
from cluster.quality import nmi
from data.images import find_images
from data.loading import ImageDataset, load_in_order
from data.transforms import central_crop, to_input
from system import cli
from system.errors import InputError
from training.finished_run import ClusterView, clusters_at, read_run
from visu import clusters

ROOT = Path(__file__).resolve().parents[2]
CPU = ["--device", "cpu", "--precision", "fp32", "--workers", "0"]


def view(number: int, size: int) -> ClusterView:
    return ClusterView(number, np.arange(size), None, None, None, None)


def draw(exp: Path, *flags: str) -> int:
    return cli.run(clusters.main, clusters.parse_args, [str(exp), *CPU, *flags])


def table(folder: Path) -> dict[int, dict[str, float]]:
    return {row["cluster"]: row for row in json.loads((folder / "clusters.json").read_text())}


def test_the_sheets_of_a_finished_run(
    train: Callable[..., Path], tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exp = train(tree, "--epochs", "2")
    assert draw(exp) == 0
    out = exp / "clusters_epoch_0002"
    assert sorted(path.name for path in out.iterdir()) == [
        "clusters.json", "largest.jpg", "random.jpg", "tightest.jpg",
    ]  # fmt: skip
    for kind in ("largest", "random", "tightest"):
        with Image.open(out / f"{kind}.jpg") as sheet:
            assert sheet.width > 900
    run = read_run(exp)
    moved = nmi(run.assignment(2), run.assignment(1))
    assert f"NMI to epoch 1 {moved:.3f}" in capsys.readouterr().out
    for found in clusters_at(run, 2):
        row = table(out)[found.number]
        assert (row["size"], row["purity"]) == (found.size, found.purity)
        assert (row["together_before"], row["cluster_before"]) == (found.stayed, found.before)


def test_distances_are_those_of_the_whitened_features(
    train: Callable[..., Path], tree: Path
) -> None:
    exp = train(tree)
    assert draw(exp) == 0
    plain = read_checkpoint(exp / "checkpoint.pth.tar")["clusters"]
    dataset = ImageDataset(find_images(tree), central_crop(32))
    (batch,) = load_in_order(dataset, 40, 0, torch.device("cpu"))
    with torch.inference_mode():
        pixels = to_input(batch.pixels, torch.device("cpu"))
        features = load_model(exp / "checkpoint.pth.tar").eval().embedding(pixels)
    white = (features - plain["pca_mean"]) @ plain["pca_matrix"]
    white = white / white.norm(dim=1, keepdim=True)
    apart = torch.cdist(white, plain["centroids"])
    rows = table(exp / "clusters_epoch_0001")
    for found in clusters_at(read_run(exp), 1):
        assert (apart[found.members].argmin(dim=1) == found.number).all()
        expected = apart[found.members, found.number].mean().item()
        assert rows[found.number]["mean_distance"] == pytest.approx(expected, abs=2e-3)


def test_an_earlier_epoch_has_no_distances(
    train: Callable[..., Path], tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exp = train(tree, "--epochs", "2")
    assert draw(exp, "--epoch", "1", "--out", str(tree.parent / "sheets")) == 0
    assert "no sheet of the tightest" in (said := capsys.readouterr().out)
    assert "the network of epoch 2, not of 1" in said
    names = {path.name for path in (tree.parent / "sheets").iterdir()}
    assert names == {"largest.jpg", "random.jpg", "clusters.json"}
    assert {row["mean_distance"] for row in table(tree.parent / "sheets").values()} == {None}


def test_a_call_without_distances_leaves_no_sheet_of_the_one_before(
    train: Callable[..., Path], tree: Path
) -> None:
    exp = train(tree)
    assert draw(exp) == draw(exp, "--no-distances") == 0
    assert not (exp / "clusters_epoch_0001" / "tightest.jpg").exists()
    assert {row["mean_distance"] for row in table(exp / "clusters_epoch_0001").values()} == {None}


def test_a_run_without_its_own_clusters_yet_has_no_distances(
    train: Callable[..., Path], tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exp = train(tree)
    checkpoint = torch.load(exp / "checkpoint.pth.tar", weights_only=True)
    checkpoint["clusters"]["epoch"] = 0  # as in the middle of a run: the network has moved on
    torch.save(checkpoint, exp / "checkpoint.pth.tar")
    assert draw(exp) == 0
    assert "before the end of the run" in capsys.readouterr().out
    (exp / "checkpoint.pth.tar").unlink()
    shutil.rmtree(exp / "clusters_epoch_0001")
    assert draw(exp, "--epoch", "0") == 0
    assert "is not there" in capsys.readouterr().out
    assert not (exp / "clusters_epoch_0001").exists()
    assert (exp / "clusters_epoch_0000" / "largest.jpg").exists()


def test_the_distance_to_the_own_centroid_is_averaged_by_cluster() -> None:
    x = np.array([[3, 4], [0, 0], [9, 1], [7, 7]], np.float32)
    centroids = np.array([[0, 0], [5, 5], [9, 0]], np.float32)
    found = clusters.centroid_distances(x, np.array([0, 0, 2, -1]), centroids)
    assert found == {0: 2.5, 2: 1.0}


def test_which_clusters_are_shown() -> None:
    views = [view(0, 7), view(1, 30), view(2, 4), view(3, 30), view(4, 12)]
    assert [v.number for v in clusters.largest(views, 3)] == [1, 3, 4]
    distances = {0: 0.5, 1: 0.9, 2: 0.1, 4: 0.3}
    assert [v.number for v in clusters.tightest(views, 9, distances)] == [4, 0, 1]  # 2 is small
    chosen = [v.number for v in clusters.at_random(views, 3, seed=1)]
    assert chosen == [v.number for v in clusters.at_random(views, 3, seed=1)]
    assert len(set(chosen)) == 3
    assert (
        len({tuple(v.number for v in clusters.at_random(views, 3, seed=s)) for s in range(9)}) > 1
    )


def test_the_caption_says_what_is_known(train: Callable[..., Path], tree: Path) -> None:
    run = read_run(train(tree))
    told = ClusterView(3, np.arange(12), 2 / 3, "cat", 5 / 12, 7)
    assert clusters.caption(run, 1, told, {3: 0.8514}) == (
        "cluster 3: 12 images, purity 67 % (cat), mean distance 0.851, "
        "42 % were together in epoch 0 (cluster 7)"
    )
    assert clusters.caption(run, 0, view(0, 1), {}) == "cluster 0: 1 image"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epoch", "9"], "--epoch 9: no clusters of it"),
        (["--data", "nowhere"], "--data nowhere: no such folder"),
        (["--count", "0"], "whole number of 1 or more"),
        (["--count", "4", "--out", "{exp}/config.json"], "cannot write there"),
    ],
)
def test_bad_flags_are_refused(
    train: Callable[..., Path],
    tree: Path,
    flags: list[str],
    message: str,
    error_line: ErrorLine,
) -> None:
    exp = train(tree)
    given = (flag.format(exp=exp) for flag in flags)
    assert message in error_line(clusters, exp, *CPU, *given)
    assert not list(exp.glob("clusters_*"))


def test_a_run_without_clusters_is_refused(train: Callable[..., Path], tree: Path) -> None:
    exp = train(tree)
    shutil.rmtree(exp / "assignments")
    with pytest.raises(InputError, match="no clusters yet"):
        clusters.main(clusters.parse_args([str(exp)]))


def test_the_script_finds_its_modules_from_its_own_folder() -> None:
    ended = subprocess.run(
        [sys.executable, "clusters.py", "nowhere"],
        cwd=ROOT / "visu", capture_output=True, text=True,
    )  # fmt: skip
    assert ended.stderr == (
        "clusters.py: error: nowhere: not the experiment folder of a run: it has no images.txt\n"
    )
    assert ended.returncode == 2
