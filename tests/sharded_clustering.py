"""Run by test_collectives.py in several processes: each clusters its share of the features.

Usage: sharded_clustering.py FOLDER SHARES OUT.npz, where FOLDER has the features as .npy files and
SHARES are the numbers of rows of the processes, such as 100,0,250,50.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from cluster.kmeans import train_kmeans
from cluster.whitening import Whitening
from clustering import PIC, Kmeans, KmeansOptions
from parallel.collectives import gather_rows, process_group, rank, world_size

K, SEED = 12, 3


def main() -> None:
    shares = [int(share) for share in sys.argv[2].split(",")]
    assert len(shares) == world_size()
    start = sum(shares[: rank()])
    results: dict[str, Any] = {}
    for path in sorted(Path(sys.argv[1]).glob("*.npy")):
        features = np.load(path)[start : start + shares[rank()]]
        for name, result in cluster(features).items():
            results[f"{path.stem}, {name}"] = result
    for name, result in results.items():  # the same in all processes
        copies = gather_rows(result[None])
        assert (copies == copies[0]).all(), name
    if rank() == 0:
        np.savez(sys.argv[3], **results)


def cluster(features: np.ndarray) -> dict[str, np.ndarray]:
    """Assignments `(N,)` and losses of k-means and PIC on the raw rows; the whitening's mean `(D,)`
    and inverse covariance `(D, D)`, which don't depend on the axes' signs; k-means on the whitened
    rows with random and k-means++ initialisation."""
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


if __name__ == "__main__":
    with process_group():
        main()
