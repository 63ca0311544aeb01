"""Spherical k-means on unit rows, as DeepCluster-v2 clusters its memory."""

import numpy as np
import torch

from cluster.kmeans import Advance, sum_by_cluster
from cluster.nearest import CPU
from parallel.collectives import all_reduce, together
from system.device import full_float32

UPDATES = 10
PRODUCTS = 2**24  # row-centroid products that a GPU holds at a time (float32: 64 MiB)
CACHED = 2**21  # and a CPU: they stay in its cache
NUDGE = 1 / 1024  # relative change of the two halves of a split centroid, as in Faiss


def spherical_kmeans(
    rows: np.ndarray,
    first: np.ndarray,
    updates: int = UPDATES,
    *,
    split_empty: bool = False,
    device: torch.device = CPU,
    advance: Advance | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Assign each row to the centroid of the largest cosine, move centroids to the normalised mean
    of their rows, repeat (DeepCluster-v2, arXiv 2006.09882).

    Memory does not depend on N × K: `PRODUCTS` cosines at most are held at a time.

    Args:
        rows: `(N, D)` unit rows, float32 or float16; under torchrun the rows of this process.
        first: `(K, D) float32`, the first centroids, the same in every process.
        updates: of the centroids.
        split_empty: an empty cluster takes half of the largest one; otherwise it keeps its
            centroid.
        device: where to find the largest cosines.
        advance: called with 1 after each update.

    Returns:
        The assignment after the last update, `(N,) int64`, and the centroids, `(K, D) float32`.
    """
    centroids = np.array(first, np.float32)
    for _ in range(updates):
        assignment = _nearest(rows, centroids, device)
        centroids = _updated(rows, assignment, centroids, split_empty, device)
        if advance is not None:
            with together():  # `advance` may raise Stopped in one process
                advance(1)
    return _nearest(rows, centroids, device), centroids


def _nearest(rows: np.ndarray, centroids: np.ndarray, device: torch.device) -> np.ndarray:
    """The centroid with the largest inner product of each row; of equal ones the first."""
    found = np.empty(len(rows), np.int64)
    columns = torch.from_numpy(centroids).to(device).T
    cpu = device.type == "cpu"
    block = max((CACHED if cpu else PRODUCTS) // len(centroids), 1)
    products = torch.empty(block, len(centroids), device=device)
    for start in range(0, len(rows), block):
        part = torch.from_numpy(rows[start : start + block]).to(device).float()
        with full_float32():
            cosines = torch.mm(part, columns, out=products[: len(part)])
        # on one CPU core, NumPy takes a third of torch's time
        largest = cosines.numpy().argmax(axis=1) if cpu else cosines.argmax(dim=1).cpu()
        found[start : start + block] = largest
    return found


def _updated(
    rows: np.ndarray,
    assignment: np.ndarray,
    centroids: np.ndarray,
    split_empty: bool,
    device: torch.device,
) -> np.ndarray:
    """The normalised sums of the rows of all processes; where there are none, as before."""
    sums = all_reduce(sum_by_cluster(rows, assignment, len(centroids), device))
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    moved = np.where(lengths > 0, sums / np.maximum(lengths, np.finfo(float).tiny), centroids)
    if split_empty:
        split_largest(
            moved, all_reduce(np.bincount(assignment, minlength=len(centroids))), unit=True
        )
    return moved.astype(np.float32)


def split_largest(centroids: np.ndarray, counts: np.ndarray, unit: bool = False) -> None:
    """Give each empty cluster a copy of the largest one's centroid, and move the two apart. Changes
    its arguments.

    Args:
        centroids: `(K, D) float64`.
        counts: `(K,) int64`, the members of each cluster; each half gets half of them.
        unit: keep centroids at unit length.
    """
    for empty in np.flatnonzero(counts == 0):
        largest = counts.argmax()
        nudge = np.where(np.arange(centroids.shape[1]) % 2, NUDGE, -NUDGE)
        pair = centroids[largest] * (1 + np.outer([1, -1], nudge))
        if unit:
            pair /= np.linalg.norm(pair, axis=1, keepdims=True)
        centroids[[largest, empty]] = pair
        counts[[largest, empty]] = counts[largest] - counts[largest] // 2, counts[largest] // 2
