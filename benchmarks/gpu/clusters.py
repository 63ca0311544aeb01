"""Part: PCA and k-means of as many features as ImageNet has images, on random clusterable ones.

Features come in blocks from the device, as in the feature pass, and are kept in half precision in
the host's memory.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest.mock import patch

import faiss
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu.setting import NO_GPU, Setting, Work
from benchmarks.timing import timed
from cluster.kmeans import ITERATIONS, sum_by_cluster, train_kmeans
from cluster.moments import Moments
from cluster.whitening import fit_whitening

BLOCK = 4096  # rows that are made at a time
MODES = 2000


class Size(NamedTuple):
    """N features of `dim` dimensions → `pca`, then k clusters."""

    n: int
    dim: int
    pca: int
    k: int


FULL = Size(1_281_167, 4096, 256, 10_000)
TINY = Size(3000, 64, 16, 20)
WARM_UP = Size(20_000, 4096, 256, 100)


def works(setting: Setting) -> dict[str, Work]:
    size = TINY if setting.tiny else FULL
    return {
        "PCA": functools.partial(pca, setting, size),
        "k-means, Faiss": functools.partial(kmeans, setting, size, with_faiss=True),
        "k-means, torch": functools.partial(kmeans, setting, size, with_faiss=False),
        "sums of an iteration": functools.partial(sums, setting, size),
    }


def pca(setting: Setting, size: Size) -> dict[str, Any]:
    """Seconds of covariance (part of the feature pass), eigenvectors and projection."""
    if not setting.tiny:
        pca_steps(setting, WARM_UP)
    steps = pca_steps(setting, size)
    return {**steps, "seconds": sum(steps.values()), **setting.peak_memory()}


def pca_steps(setting: Setting, size: Size) -> dict[str, float]:
    """Seconds of each step."""
    device, rows = setting.compute.device, np.empty((size.n, size.dim), np.float16)
    moments, covariance = Moments(size.dim, device), 0.0
    for start, block in features(size.n, size.dim, device):
        covariance += timed(moments.add, block.half()).seconds
        rows[start : start + len(block)] = block.half().cpu().numpy()
    eigen = timed(fit_whitening, moments, size.pca)
    projection = timed(eigen.result.apply, rows, device).seconds
    return {"covariance": covariance, "eigenvectors": eigen.seconds, "projection": projection}


def kmeans(setting: Setting, size: Size, with_faiss: bool) -> dict[str, Any]:
    """Seconds of the whole k-means, with its loss, which is the same with both libraries."""
    if not with_faiss and not setting.on_gpu:
        return NO_GPU  # on a CPU it is always Faiss
    if with_faiss and setting.on_gpu and faiss.get_num_gpus() == 0:
        return {"skipped": "Faiss sees no GPU"}
    device, x = setting.compute.device, unit_rows(setting, size)
    with contextlib.nullcontext() if with_faiss else without_faiss():
        train_kmeans(x[: 2 * size.k], size.k, device=device)  # warm up
        done = timed(lambda: train_kmeans(x, size.k, device=device))
    operations = 2 * (ITERATIONS + 1) * size.n * size.k * size.pca
    rate = operations / done.seconds / 1e12
    figures = {"seconds": done.seconds, "loss": done.result.loss, "TFLOP/s": rate}
    return figures if with_faiss else {**figures, **setting.peak_memory()}  # torch's memory only


def sums(setting: Setting, size: Size) -> dict[str, Any]:
    """Seconds of the sums by cluster, of which each iteration has one, and of the copy of all rows
    to the device, which is part of it."""
    device, x = setting.compute.device, unit_rows(setting, size)
    assignment = np.random.default_rng(0).integers(size.k, size=size.n)
    sum_by_cluster(x[:BLOCK], assignment[:BLOCK], size.k, device)
    copy = timed(lambda: torch.from_numpy(x).to(device, copy=True)).seconds
    done = timed(sum_by_cluster, x, assignment, size.k, device)
    return {"seconds": done.seconds, "copy": copy}


def unit_rows(setting: Setting, size: Size) -> np.ndarray:
    """`(n, pca) float32`, random clusterable rows of unit length."""
    rows = np.empty((size.n, size.pca), np.float32)
    for start, block in features(size.n, size.pca, setting.compute.device):
        rows[start : start + len(block)] = F.normalize(block).cpu().numpy()
    return rows


def features(n: int, dim: int, device: torch.device) -> Iterator[tuple[int, Tensor]]:
    """Blocks of random rows `(b, dim) float32` on the device around `MODES` centres, whose variance
    falls from one direction to the next; each with the number of its first row."""
    random = torch.Generator(device).manual_seed(0)
    scale = torch.arange(1, dim + 1, device=device) ** -0.5
    centres = torch.randn(MODES, dim, generator=random, device=device)
    for start in range(0, n, BLOCK):
        count = min(BLOCK, n - start)
        modes = torch.randint(MODES, (count,), generator=random, device=device)
        noise = torch.randn(count, dim, generator=random, device=device)
        yield start, (centres[modes] + noise) * scale


@contextlib.contextmanager
def without_faiss() -> Iterator[None]:
    """Let the search for nearest centroids use torch, as if Faiss saw no GPU."""
    with patch("cluster.nearest.faiss.get_num_gpus", return_value=0):
        yield
