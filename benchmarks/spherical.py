"""DeepCluster-v2's clustering step, spherical k-means of a memory of embeddings, beside the plain
way: all cosines in one matrix, and a loop over the clusters for their means."""

import argparse
import sys
from typing import Any

import numpy as np
import torch

from benchmarks.timing import Timed, add_rounds_flag, memory, timed
from cluster.spherical import UPDATES, spherical_kmeans
from system import cli
from system.device import select_compute
from system.errors import InputError

NOISE = 0.7  # of an embedding, in proportion to its centre


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print a table with a row for each K. Returns the same as a dict."""
    if max(args.k) > args.n:
        raise InputError(f"--k {max(args.k)}: more clusters than --n {args.n}; give fewer")
    device = select_compute(args.device).device
    rows = embeddings(args.n, args.dim)
    sys.stdout.write(
        f"{args.n:,} embeddings of {args.dim} dimensions, {UPDATES} updates; {device}, "
        f"{torch.get_num_threads()} threads\n"
        f"{'K':>6}{'seconds':>10}{'plain':>10}{'ratio':>8}{'MiB':>8}{'plain':>8}{'same':>8}\n"
    )
    found = {str(k): measure(rows, k, device, args.rounds) for k in args.k}
    for k, row in found.items():
        sys.stdout.write(
            f"{k:>6}{row['seconds']:10.2f}{row['plain_seconds']:10.2f}{row['ratio']:8.2f}"
            f"{row['mib']:8.0f}{row['plain_mib']:8.0f}{row['same']:8.1%}\n"
        )
    sys.stdout.write("(MiB: the peak beyond the interpreter's; same: images in the same cluster)\n")
    return found


def measure(rows: np.ndarray, k: int, device: torch.device, rounds: int) -> dict[str, float]:
    """The median of rounds in which both ways take turns, their peak memory, and the share of rows
    that both put into the same cluster."""
    first = rows[np.random.default_rng(k).choice(len(rows), k, replace=False)]
    ours: list[Timed] = []
    theirs: list[Timed] = []
    before = memory()
    for _ in range(1 + rounds):  # the first warms up
        ours.append(timed(lambda: spherical_kmeans(rows, first, device=device)[0]))
        theirs.append(timed(plain, rows, first))
    seconds, plain_seconds = (
        float(np.median([each.seconds for each in way[1:]])) for way in (ours, theirs)
    )
    return {
        "seconds": seconds,
        "plain_seconds": plain_seconds,
        "ratio": plain_seconds / seconds,
        "mib": (min(each.memory for each in ours) - before) / 2**20,
        "plain_mib": (min(each.memory for each in theirs) - before) / 2**20,
        "same": float((ours[-1].result == theirs[-1].result).mean()),
    }


def plain(rows: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The plain way, on the CPU. Returns the assignment."""
    centroids = first.copy()
    for _ in range(UPDATES):
        found = all_at_once(rows, centroids)
        for cluster in range(len(centroids)):
            members = rows[found == cluster]
            if len(members) > 0:
                total = members.sum(axis=0)
                centroids[cluster] = total / np.linalg.norm(total)
    return all_at_once(rows, centroids)


def all_at_once(rows: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The centroid with the largest cosine of each row, from one matrix of all cosines."""
    return (torch.from_numpy(rows) @ torch.from_numpy(centroids).T).argmax(dim=1).numpy()


def embeddings(n: int, dim: int) -> np.ndarray:
    """Random unit rows `(n, dim) float32` around n / 20 centres."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((max(n // 20, 1), dim), np.float32)
    rows = centres[rng.integers(len(centres), size=n)]
    rows += NOISE * rng.standard_normal((n, dim), np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `run`, except the device."""
    add, number = parser.add_argument, cli.whole_number(2)
    add("--n", type=number, default=20000, help="number of embeddings")
    add("--dim", type=number, default=128, help="dimensions of an embedding")
    k_help = "numbers of clusters, one after the other"
    add("--k", type=number, nargs="+", default=[1000, 3000], help=k_help)
    add_rounds_flag(parser)
