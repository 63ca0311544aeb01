"""Clustering on 1, 2 and 4 processes, started with torchrun (gloo, CPU)."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from arrays import sphere
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from clustering import Kmeans
from parallel.collectives import all_reduce, broadcast, gather_rows, rank, world_size

ROOT = Path(__file__).parents[2]


def cluster_on(folder: Path, shares: str) -> dict[str, np.ndarray]:
    """Run tests/sharded_clustering.py under torchrun, with a process of one thread for each share.
    Returns the loss and the assignment, in one array, by the kind of clustering."""
    processes = str(shares.count(",") + 1)
    launcher = ["-m", "parallel.launch", "--standalone", "--nproc_per_node", processes]
    settings = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    script = str(ROOT / "tests" / "sharded_clustering.py")
    done = subprocess.run(
        [sys.executable, *launcher, script, folder / "features", shares, folder / "out.npz"],
        env={**os.environ, **settings},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out.npz") as results:
        return dict(results)


def test_one_process_needs_no_group() -> None:
    rows = np.arange(6).reshape(3, 2)
    assert (world_size(), rank()) == (1, 0)
    for collective in (all_reduce, gather_rows, broadcast):
        np.testing.assert_array_equal(collective(rows), rows)


def test_the_clusters_do_not_depend_on_the_processes(tmp_path: Path) -> None:
    """Neither where the clusters are clear, nor, for k-means on given points, where there are none
    and the slightest difference would grow from one iteration to the next."""
    clear, _ = make_blobs(6000, 40, centers=12, cluster_std=2.0, random_state=0)
    (tmp_path / "features").mkdir()
    np.save(tmp_path / "features" / "clear.npy", clear.astype(np.float32))
    np.save(tmp_path / "features" / "none.npy", sphere(6000, 64))
    single, *others = (
        cluster_on(tmp_path, shares) for shares in ("6000", "2500,3500", "1000,0,4600,400")
    )
    kinds = [kind for kind in single if kind.startswith("clear") or "k-means" in kind]
    assert len(kinds) == 6
    for kind in kinds:
        for sharded in others:
            assert sharded[kind][0] == pytest.approx(single[kind][0], rel=1e-4), kind
            assert adjusted_rand_score(sharded[kind][1:], single[kind][1:]) > 0.999, kind


def test_fewer_features_than_dimensions_are_clustered_as_in_one_process(tmp_path: Path) -> None:
    features, _ = make_blobs(300, 400, centers=12, cluster_std=2.0, random_state=0)
    (tmp_path / "features").mkdir()
    np.save(tmp_path / "features" / "few.npy", features.astype(np.float16))
    kmeans = Kmeans(12, seed=4, device=torch.device("cpu"))
    loss = kmeans.cluster(features.astype(np.float16))
    sharded = cluster_on(tmp_path, "90,0,210")["few, Kmeans"]
    assert sharded[0] == pytest.approx(loss, rel=1e-6)
    np.testing.assert_array_equal(sharded[1:], kmeans.assignments)
