"""visu/clusters.py: the clusters on a run's sheets, and their captions."""

import json
import shutil
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
    assert draw(exp, "--no-distances") == 0
    assert not (out / "tightest.jpg").exists(), "from the call before, with other numbers"


def test_distances_are_between_whitened_features_and_centroids(
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


def test_an_unfinished_run_has_no_distances(
    train: Callable[..., Path], tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exp = train(tree)
    checkpoint = torch.load(exp / "checkpoint.pth.tar", weights_only=True)
    checkpoint["clusters"]["epoch"] = 0  # as in the middle of a run
    torch.save(checkpoint, exp / "checkpoint.pth.tar")
    assert draw(exp) == 0
    assert "only at the end of the run" in capsys.readouterr().out
    (exp / "checkpoint.pth.tar").unlink()
    shutil.rmtree(exp / "clusters_epoch_0001")
    assert draw(exp, "--epoch", "0") == 0
    assert "checkpoint.pth.tar is missing" in capsys.readouterr().out
    assert not (exp / "clusters_epoch_0001").exists()
    assert (exp / "clusters_epoch_0000" / "largest.jpg").exists()


def test_the_largest_tightest_and_random_clusters_are_chosen() -> None:
    views = [view(0, 7), view(1, 30), view(2, 4), view(3, 30), view(4, 12)]
    assert [v.number for v in clusters.largest(views, 3)] == [1, 3, 4]
    distances = {0: 0.5, 1: 0.9, 2: 0.1, 4: 0.3}
    assert [v.number for v in clusters.tightest(views, 9, distances)] == [4, 0, 1]  # 2 is small
    drawn = [[v.number for v in clusters.at_random(views, 3, seed)] for seed in (1, 1, *range(9))]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 3
    assert len(set(map(tuple, drawn))) > 1


def test_the_caption_lists_the_known_figures(train: Callable[..., Path], tree: Path) -> None:
    run = read_run(train(tree))
    found = ClusterView(3, np.arange(12), 2 / 3, "cat", 5 / 12, 7)
    assert clusters.caption(run, 1, found, {3: 0.8514}) == (
        "cluster 3: 12 images, purity 67 % (cat), mean distance 0.851, "
        "42 % were together in epoch 0 (cluster 7)"
    )
    assert clusters.caption(run, 0, view(0, 1), {}) == "cluster 0: 1 image"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epoch", "9"], " has clusters of 0 to 1"),
        (["--data", "nowhere"], "--data nowhere: no such folder"),
        (["--count", "4", "--out", "{exp}/config.json"], "cannot write there"),
    ],
)
def test_bad_flags_are_reported_in_one_line(
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


def test_a_run_without_clusters_is_an_error(train: Callable[..., Path], tree: Path) -> None:
    exp = train(tree)
    shutil.rmtree(exp / "assignments")
    with pytest.raises(InputError, match="no clusters yet"):
        clusters.main(clusters.parse_args([str(exp)]))
