"""Run by test_collectives.py in several processes: each clusters its share of the features.

Usage: sharded_clustering.py FOLDER SHARES OUT.npz, where FOLDER has the features as .npy files and
SHARES are the numbers of rows of the processes, such as 100,0,250,50.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster.hierarchy import hierarchical_kmeans
from cluster.kmeans import train_kmeans
from cluster.quality import silhouette
from cluster.sinkhorn import sinkhorn
from cluster.spherical import spherical_kmeans
from cluster.whitening import Whitening
from clustering import PIC, Kmeans, KmeansOptions
from methods.memory import Memory
from methods.queue import Queue
from parallel.collectives import gather_rows, process_group, rank, world_size

K, SEED = 12, 3


def main() -> None:
    shares = [int(share) for share in sys.argv[2].split(",")]
    assert len(shares) == world_size()
    start = sum(shares[: rank()])
    results: dict[str, Any] = {}
    for path in sorted(Path(sys.argv[1]).glob("*.npy")):
        features = np.load(path)[start : start + shares[rank()]]
        found = {**cluster(features), **in_two_levels(features), **of_unit_rows(features, start)}
        for name, result in found.items():
            results[f"{path.stem}, {name}"] = result
    for name, result in results.items():  # the same in all processes
        copies = gather_rows(result[None])
        assert (copies == copies[0]).all(), name
    if rank() == 0:
        np.savez(sys.argv[3], **results)


def cluster(features: np.ndarray) -> dict[str, np.ndarray]:
    """Assignments `(N,)` of k-means and PIC on the raw rows, with loss and silhouette; the
    whitening's mean `(D,)` and inverse covariance `(D, D)`, which don't depend on the axes' signs;
    k-means on the whitened rows with random and k-means++ initialisation."""
    given = train_kmeans(features.astype(np.float32), K, seed=SEED)
    pic = PIC(sigma=10, pca=None)
    pic.cluster(features)
    whitened, spread = Kmeans(K, SEED), Kmeans(K, SEED, KmeansOptions("kmeans++"))
    loss = whitened.cluster(features)
    spread.cluster(features)
    chosen, normalised = Kmeans(K, SEED, pca="auto"), Kmeans(K, SEED, pca=0)
    chosen.cluster(features)
    normalised.cluster(features)
    assert isinstance(whitened.whitening, Whitening)
    assert chosen.whitening is not None
    matrix = whitened.whitening.matrix.astype(np.float64)
    return {
        "k-means": given.assignment,
        "loss": np.array([given.loss]),
        "silhouette": np.array(silhouette(features, given.assignment, sample=200)),
        "PIC": pic.assignments,
        "mean": whitened.whitening.mean,
        "inverse covariance": matrix @ matrix.T,
        "k-means, whitened": whitened.assignments,
        "loss, whitened": np.array([loss]),
        "k-means++, whitened": spread.assignments,
        "components": np.array(chosen.whitening.components),
        "k-means, auto": chosen.assignments,
        "k-means, normalised": normalised.assignments,
    }


def in_two_levels(features: np.ndarray) -> dict[str, np.ndarray]:
    """Two-level k-means of the raw rows: the super- and the sub-cluster of each row, `(N, 2)`, and
    all centroids, one after the other."""
    found = hierarchical_kmeans(features.astype(np.float32), 3, 4, seed=SEED)
    return {
        "two levels": gather_rows(np.stack([found.super, found.sub], axis=1)),
        "centroids of two levels": np.concatenate([found.super_centroids, *found.sub_centroids]),
    }


def of_unit_rows(features: np.ndarray, start: int) -> dict[str, np.ndarray]:
    """Spherical k-means, Sinkhorn's codes, and what DeepCluster-v2's memory and SwAV's queue keep,
    of the rows at unit length.

    Args:
        start: the number of this process's first row.
    """
    rows = features.astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    first = np.random.default_rng(SEED).standard_normal((K, rows.shape[1]), np.float32)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    assignment, centroids = spherical_kmeans(rows, first)
    split, _ = spherical_kmeans(rows, first, split_empty=True)
    codes = sinkhorn(torch.from_numpy(rows @ first.T), 0.05, 3).numpy()
    return {
        "spherical": gather_rows(assignment),
        "spherical centroids": centroids,
        "spherical, empty ones split": gather_rows(split),
        "codes": gather_rows(codes),
        **remembered(rows, start),
    }


def remembered(rows: np.ndarray, start: int) -> dict[str, np.ndarray]:
    """The memory and the queue after two batches of each process: all its rows but each seventh,
    then a new row of image 3 from the process that has image 0."""
    total = int(gather_rows(np.array([len(rows)])).sum())
    numbers = np.arange(start, start + len(rows))
    kept, again = numbers[numbers % 7 > 0], numbers[numbers == 0]
    here = torch.from_numpy(rows[:, None])
    memory = Memory(total, 1, rows.shape[1], np.dtype(np.float16))
    memory.write(torch.from_numpy(kept), here[kept - start])
    memory.write(torch.from_numpy(again + 3), here[again - start])
    drawn = memory.draw(K, 0, np.random.default_rng(SEED))
    known = memory.own.start + np.flatnonzero(memory.known)
    queue = Queue(world_size() * total, torch.zeros(0, 1, rows.shape[1]))  # room for all
    queue.push(here[kept - start])
    plain = memory.to_plain()
    return {
        "memory": plain["rows"].numpy(),
        "known": plain["known"].numpy(),
        "drawn": drawn,
        "numbers of the known": memory.of_all(known),
        "queue": queue.to_plain().numpy(),
    }


if __name__ == "__main__":
    with process_group():
        main()
