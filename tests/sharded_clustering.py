"""What test_distributed.py starts under torchrun: each process clusters its share of the features.

Usage: sharded_clustering.py FOLDER SHARES OUT.npz, where FOLDER has the features as .npy files and
SHARES are the numbers of rows of the processes, such as 100,0,250,50.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from cluster.kmeans import train_kmeans
from clustering import PIC, Kmeans, KmeansOptions
from parallel.collectives import gather_rows, process_group, rank, world_size


def main() -> None:
    shares = [int(share) for share in sys.argv[2].split(",")]
    assert len(shares) == world_size()
    start = sum(shares[: rank()])
    results: dict[str, Any] = {}
    for path in sorted(Path(sys.argv[1]).glob("*.npy")):
        features = np.load(path)[start : start + shares[rank()]]
        for name, (assignment, loss) in cluster(features).items():
            results[f"{path.stem}, {name}"] = np.array([loss, *assignment])
    for name, result in results.items():  # what one process has, all have
        copies = gather_rows(result[None])
        assert (copies == copies[0]).all(), name
    if rank() == 0:
        np.savez(sys.argv[3], **results)


def cluster(features: np.ndarray) -> dict[str, tuple[np.ndarray, float]]:
    """The assignment and the loss of each kind of clustering."""
    results = {}
    for init in ("random", "kmeans++"):
        found = train_kmeans(features, 12, seed=4, options=KmeansOptions(init))
        results[f"k-means from {init}"] = (found.assignment, found.loss)
    for clustering in (Kmeans(12, seed=4), PIC(sigma=1)):
        loss = clustering.cluster(features)
        results[type(clustering).__name__] = (clustering.assignments, loss)
    return results


if __name__ == "__main__":
    with process_group():
        main()
