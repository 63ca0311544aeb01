"""A third clustering is one class and a row of `CLUSTERINGS`; the scripts need no change."""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from arrays import correlated
from runs import load_clusters, load_metrics

from checkpoints.clusters import load_clusters as load_centroids
from cluster.components import Components
from cluster.kmeans import Advance
from clustering import CLUSTERINGS, Clustering
from system.errors import InputError
from tools import cluster_features


class Bands(Clustering):
    """Equally large bands along the first component."""

    has_loss = False

    def __init__(self, bands: int, device: torch.device | None, pca: Components | None) -> None:
        if bands == 13:
            raise ValueError("13 bands bring no luck")
        super().__init__(device, pca)
        self.bands = bands

    def group(
        self, x: np.ndarray, verbose: bool, advance: Advance | None
    ) -> tuple[np.ndarray, np.ndarray, float]:
        assignments = (x[:, 0].argsort().argsort() * self.bands // len(x)).astype(np.int64)
        means = [x[assignments == band].mean(axis=0) for band in range(self.bands)]
        if advance is not None:
            advance(1)
        return assignments, np.array(means), 0.0

    @staticmethod
    def add_flags(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--bands", type=int, default=2)

    @classmethod
    def from_args(
        cls, args: argparse.Namespace, seed: int, device: torch.device, pca: Components | None
    ) -> "Bands":
        return cls(args.bands, device, pca)

    @staticmethod
    def check(args: argparse.Namespace, count: int, what: str) -> None:
        if args.bands > count:
            raise InputError(f"--bands {args.bands}: more than the {count} {what}")

    @staticmethod
    def steps(args: argparse.Namespace, count: int, what: str) -> tuple[int, str]:
        return 1, "sorting"


@pytest.fixture
def bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLUSTERINGS, "Bands", Bands)


@pytest.mark.usefixtures("bands")
def test_clustering_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its flags, check and errors work, and its centroids go into a file for `assign.py`."""
    x = correlated(60, 8)
    np.save(tmp_path / "x.npy", x)
    out, saved = tmp_path / "out.npy", tmp_path / "clusters.pth"

    def run(*flags: str) -> None:
        files = [str(tmp_path / "x.npy"), "--out", str(out), "--save-clusters", str(saved)]
        args = [*files, "--device", "cpu", "--pca", "3", "--clustering", "Bands", *flags]
        cluster_features.main(cluster_features.parse_args(args))

    run("--bands", "4")
    bands = Bands(4, torch.device("cpu"), 3)
    bands.cluster(x)
    np.testing.assert_array_equal(np.load(out), bands.assignments)
    assert [len(members) for members in bands.images_lists] == [15] * 4
    said = capsys.readouterr().out
    assert said.startswith("4 of 4 clusters not empty, sizes 15 to 15, median 15, ")
    assert "loss" not in said
    clusters = load_centroids(saved, 8, "", 32)
    assert clusters.algorithm == "Bands"
    np.testing.assert_array_equal(clusters.centroids, bands.centroids)
    with pytest.raises(InputError, match=r"^--bands 61: more than the 60 rows of .*x.npy$"):
        run("--bands", "61")
    with pytest.raises(InputError, match=r"^--clustering Bands: 13 bands bring no luck$"):
        run("--bands", "13")


@pytest.mark.usefixtures("bands")
def test_training(tree: Path, train: Callable[..., Path]) -> None:
    folder = train(tree, "--clustering", "Bands", "--bands", "5")
    assert [len(members) for members in load_clusters(folder)[0]] == [8] * 5
    (line,) = load_metrics(folder)
    assert (line["clusters"], line["kmeans_loss"]) == (5, None)
