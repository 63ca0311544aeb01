"""PCA-whitening, k-means and Power Iteration Clustering on random clusterable features, step by
step and for several N.

Each step is compared with Faiss or scikit-learn, and with a floor: the time for its multiply-adds
at the measured rate of a large matrix product.
"""

import argparse
import dataclasses
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import faiss
import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from benchmarks.timing import Timed, matmul_rate, memory, number, timed
from cluster.kmeans import ITERATIONS, train_kmeans
from cluster.moments import Moments
from cluster.pic import join_singletons, make_graph, run_pic
from cluster.whitening import fit_whitening
from system import cli
from system.device import select_compute
from system.errors import InputError

PCA = 256
NEIGHBOURS = 5
BATCH = 256  # rows of features that arrive together
MODES = 200  # of the mixture that the features are drawn from


@dataclass(frozen=True)
class Step:
    """A step's seconds with our code, with the library (None if it has no such step) and at the
    floor, and its peak memory in bytes beyond the interpreter's."""

    name: str
    seconds: float
    library: float | None
    floor: float
    memory: float


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print a table for each N. Returns the same as a dict."""
    check_sizes(args)
    device = select_compute(args.device).device
    rate = matmul_rate(device)
    sys.stdout.write(
        f"{args.dim} → {PCA} dimensions, k = {args.k}, {NEIGHBOURS} neighbours; {device}, "
        f"{torch.get_num_threads()} threads, matrix product {rate / 1e9:,.0f} GFLOP/s\n\n"
    )
    small = argparse.Namespace(**vars(args) | {"dim": PCA, "k": 10, "library_up_to": 0})
    list(clustering_steps(1000, small, device, rate))  # warm up
    runs: dict[int, list[Step]] = {}
    for n in sorted(args.n):
        runs[n] = list(clustering_steps(n, args, device, rate))
        sys.stdout.write(table(n, runs[n], args.dim) + "\n")
    if len(runs) > 1:
        sys.stdout.write(growth(runs) + "\n")
    return {str(n): [dataclasses.asdict(step) for step in steps] for n, steps in runs.items()}


def check_sizes(args: argparse.Namespace) -> None:
    """Check that the sizes can be clustered.

    Raises:
        InputError: naming the flag, its value and what would be right.
    """
    if args.k > min(args.n):
        raise InputError(f"--k {args.k}: more clusters than --n {min(args.n)}; give fewer")
    if args.dim < PCA:
        raise InputError(f"--dim {args.dim}: fewer than the PCA's {PCA}; give {PCA} or more")
    if min(args.n) <= PCA:
        raise InputError(f"--n {min(args.n)}: give more than the PCA's {PCA} dimensions")


def clustering_steps(
    n: int, args: argparse.Namespace, device: torch.device, rate: float
) -> Iterator[Step]:
    """Time the steps of the clustering of `n` features."""
    dim, k, with_library = args.dim, args.k, n <= args.library_up_to
    before = memory()

    def step(name: str, ours: Timed, library: float | None, operations: float) -> Step:
        return Step(name, ours.seconds, library, operations / rate, ours.memory - before)

    rows = np.empty((n, dim), np.float16)
    moments = Moments(dim, device)
    covariance = whole(timed(store, rows, moments, *batch) for batch in arriving(n, dim))
    eigen = timed(fit_whitening, moments, PCA)
    del moments
    projection = timed(eigen.result.apply, rows, device)
    x = projection.result
    kmeans = timed(partial(train_kmeans, x, k, device=device))
    train, apply = faiss_pca(rows, PCA) if with_library else (math.nan, math.nan)
    yield step("covariance", covariance, None, n * dim**2)
    yield step("eigenvectors", eigen, None, 4 / 3 * dim**3)
    yield step("covariance and eigenvectors", whole([covariance, eigen]), train, math.nan)
    yield step("projection", projection, apply, 2 * n * dim * PCA)
    pca = whole([covariance, eigen, projection])
    yield step("PCA, all in all", pca, train + apply, math.nan)

    iteration = Timed(None, kmeans.seconds / (ITERATIONS + 1), kmeans.memory)
    library = faiss_kmeans(x, k) if with_library else None
    yield step("k-means, an iteration", iteration, library, 2 * n * k * PCA)

    graph = timed(make_graph, x, NEIGHBOURS, args.graph)
    library = sklearn_graph(x) if with_library else None
    yield step(f"graph ({args.graph})", graph, library, 2 * n**2 * PCA)
    yield step("PIC", timed(pic_clusters, *graph.result), None, math.nan)


def whole(parts: Iterable[Timed]) -> Timed:
    """Several timings as one."""
    parts = list(parts)
    return Timed(None, sum(part.seconds for part in parts), max(part.memory for part in parts))


def pic_clusters(neighbours: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """PIC on a given graph, with the paper's settings."""
    return join_singletons(neighbours, run_pic(neighbours, distances, sigma=0.2, alpha=0.001))


def arriving(n: int, dim: int) -> Iterator[tuple[int, torch.Tensor]]:
    """Random clusterable features in batches `(b, dim) float16`, each with the number of its first
    row. They lie around `MODES` centres, and their variance falls from one direction to the next.
    """
    random = torch.Generator().manual_seed(0)
    scale = torch.arange(1, dim + 1) ** -0.5
    centres = torch.randn(MODES, dim, generator=random)
    for start in range(0, n, BATCH):
        count = min(BATCH, n - start)
        modes = torch.randint(MODES, (count,), generator=random)
        noise = torch.randn(count, dim, generator=random)
        yield start, ((centres[modes] + noise) * scale + 1).half()


def store(rows: np.ndarray, moments: Moments, start: int, batch: torch.Tensor) -> None:
    """Store a batch as the feature pass does."""
    moments.add(batch)
    rows[start : start + len(batch)] = batch.numpy()


def faiss_pca(rows: np.ndarray, pca: int) -> tuple[float, float]:
    """Seconds that Faiss's PCA takes to train, and to apply and normalise."""
    features = rows.astype(np.float32)
    matrix = faiss.PCAMatrix(features.shape[1], pca, -0.5)

    def apply() -> None:
        faiss.normalize_L2(matrix.apply(features))

    return timed(matrix.train, features).seconds, timed(apply).seconds


def faiss_kmeans(x: np.ndarray, k: int) -> float:
    """Seconds that an iteration of Faiss's k-means takes, on all GPUs if there are any."""
    kmeans: Any = faiss.Clustering(x.shape[1], k)
    kmeans.niter, kmeans.max_points_per_centroid = ITERATIONS, len(x)
    kmeans.min_points_per_centroid = 1  # no warning about few points
    index: Any = faiss.IndexFlatL2(x.shape[1])
    if faiss.get_num_gpus() > 0:
        index = faiss.index_cpu_to_all_gpus(index)
    seconds = timed(kmeans.train, x, index).seconds
    return seconds / kmeans.iteration_stats.size()  # Faiss may stop before the twentieth


def sklearn_graph(x: np.ndarray) -> float:
    """Seconds that scikit-learn takes for the exact graph."""
    search = NearestNeighbors(n_neighbors=NEIGHBOURS + 1, algorithm="brute")
    return timed(search.fit(x).kneighbors, x).seconds


def table(n: int, steps: Sequence[Step], dim: int) -> str:
    """The steps as lines of text."""
    features = 4 * n * dim
    lines = [
        f"N = {n:,} (float32 features would be {features / 2**30:.2f} GiB)",
        f"{'step':30}{'seconds':>10}{'library':>10}{'ratio':>8}{'floor':>10}{'memory':>10}",
    ]
    for step in steps:
        ratio = math.nan if step.library is None else step.library / step.seconds
        lines.append(
            f"{step.name:30}{number(step.seconds)}{number(step.library)}{number(ratio, 8, 1)}"
            f"{number(step.floor)}{number(step.memory / features, 10, 2)}"
        )
    return "\n".join([*lines, "(memory: at its peak, as a fraction of the float32 features)", ""])


def growth(runs: dict[int, list[Step]]) -> str:
    """The exponent of each step's growth with N, by least squares."""
    lines = ["growth: seconds ~ N^e"]
    sizes = np.log(list(runs))
    for same in zip(*runs.values(), strict=True):
        exponent = np.polyfit(sizes, np.log([step.seconds for step in same]), 1)[0]
        lines.append(f"{same[0].name:30}{exponent:10.2f}")
    return "\n".join(lines)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `run`, except the device."""
    add = parser.add_argument
    n_help = "numbers of features, one after the other"
    add("--n", type=cli.whole_number(2), nargs="+", default=[10000, 20000, 40000], help=n_help)
    dim_help = f"dimensions of a feature, {PCA} at least"
    add("--dim", type=cli.whole_number(2), default=4096, help=dim_help)
    add("--k", type=cli.whole_number(2), default=1000, help="number of clusters")
    add(
        "--graph",
        choices=("auto", "exact", "approximate"),
        default="exact",
        help="kind of PIC's graph",
    )
    library_help = "largest N at which the libraries are timed, too"
    add("--library_up_to", metavar="N", type=cli.whole_number(0), default=60000, help=library_help)
