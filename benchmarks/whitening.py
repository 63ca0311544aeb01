"""What the number of dimensions that features are whitened to does to their clusters, by the number
of images: the table behind `--dim_pca auto`.

Takes sets of features with labels. Of each, a fifth of the rows (2,000 at most) is held out as val,
anew for each seed, and N of the others are drawn, the PCA is fitted on these, and they are whitened
to D dimensions (0: L2-normalised only). NMI: k-means with k = number of labels against the labels.
20-NN: accuracy of the val rows by their 20 nearest neighbours among the N. Both: mean and standard
deviation over the seeds. PIC, once: its clusters at sigma 0.2, their NMI, and how many of them are
of one image.

Each finished cell is a line of `--out`, and is not measured again.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.json_lines import append_line, read_lines
from cluster.components import auto_dim
from cluster.kmeans import run_kmeans
from cluster.quality import nmi
from cluster.whitening import prepare
from clustering import PIC
from evaluation.learned import nearest
from system.errors import InputError
from system.progress import progress

DIMENSIONS = (8, 16, 32, 64, 128, 256, 0)
SIZES = (500, 1000, 2000, 5000, 10_000, 20_000, 50_000)
SEEDS = range(5)
MOST_HELD_OUT = 2000

Cell = tuple[str, int, int]  # set, N, D


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print a Markdown table for each set; the cells as a dict."""
    sets = {path.stem: read_set(path) for path in args.features}
    cells = [
        (name, n, d)
        for name, (rows, _) in sets.items()
        for n in sizes_of(len(rows))
        for d in sorted({*DIMENSIONS, auto_dim(n, rows.shape[1])}, key=lambda d: d or rows.shape[1])
        if d <= min(n - 1, rows.shape[1])
    ]
    done = read_cells(args.out)
    with progress("cells", len(cells), "cells") as advance:
        for cell in cells:
            if cell not in done:
                done[cell] = measure(*sets[cell[0]], *cell[1:])
                append_line(args.out, [*cell, done[cell]])
            advance(1)
    for name, (rows, _) in sets.items():
        found = {cell[1:]: values for cell, values in done.items() if cell[0] == name}
        sys.stdout.write(table(name, rows.shape, found) + "\n\n")
    return {"cells": [[*cell, done[cell]] for cell in cells]}


def measure(rows: np.ndarray, labels: np.ndarray, n: int, dim: int) -> dict[str, float]:
    """The figures of a cell: N rows, whitened to D dimensions."""
    agreement, accuracy = [], []
    pic: dict[str, float] = {}
    for seed in SEEDS:
        x, truth, queries, query_labels = draw(rows, labels, n, dim, seed)
        clusters, _ = run_kmeans(x, len(np.unique(labels)), seed=seed)
        agreement.append(nmi(clusters, truth))
        accuracy.append(np.mean(nearest(x, truth, queries, 20) == query_labels))
        pic = pic or measure_pic(x, truth)  # of the first seed
    return {
        "nmi": float(np.mean(agreement)),
        "nmi_std": float(np.std(agreement, ddof=1)),
        "20nn": float(np.mean(accuracy)),
        "20nn_std": float(np.std(accuracy, ddof=1)),
        **pic,
    }


def measure_pic(x: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """PIC's clusters of the rows `(N, d)`."""
    pic = PIC(distribute_singletons=False, pca=None)
    pic.cluster(x)
    sizes = np.bincount(pic.assignments)
    return {
        "pic_clusters": len(sizes),
        "pic_singletons": int((sizes == 1).sum()),
        "pic_nmi": nmi(pic.assignments, truth),
    }


def draw(
    rows: np.ndarray, labels: np.ndarray, n: int, dim: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """N whitened rows and their labels; the val rows, whitened with them, and theirs."""
    order = np.random.default_rng(seed).permutation(len(rows))
    val, train = order[: held_out(len(rows))], order[len(rows) - n :]
    whitening = prepare(rows[train], dim)
    return whitening.apply(rows[train]), labels[train], whitening.apply(rows[val]), labels[val]


def held_out(rows: int) -> int:
    """How many of the rows of a set are val."""
    return min(rows // 5, MOST_HELD_OUT)


def sizes_of(rows: int) -> list[int]:
    """The N that a set of so many rows is measured with: `SIZES`, and all that are not val."""
    most = rows - held_out(rows)
    return [*(n for n in SIZES if n < most), most]


def read_set(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """`rows` `(N, D)` and `labels` `(N,)` of an .npz file; the labels as numbers.

    Raises:
        InputError: it lacks them.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            rows, labels = content["rows"], content["labels"]
            if rows.ndim != 2 or len(rows) != len(labels) or len(rows) < 100:
                raise ValueError(f"rows {rows.shape}, labels {labels.shape}")
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: give an .npz of `rows` (N, D) and `labels` (N,), N 100 or more: {error}"
        ) from error
    return rows, np.unique(labels, return_inverse=True)[1]


def read_cells(path: Path) -> dict[Cell, dict[str, float]]:
    """The cells that are finished.

    Raises:
        InputError: the file is damaged.
    """
    return {(name, n, dim): values for name, n, dim, values in read_lines(path, 4)}


def table(name: str, shape: tuple[int, ...], cells: dict[tuple[int, int], dict[str, float]]) -> str:
    """The cells of a set in Markdown."""
    lines = [
        f"{name}: {shape[0]:,} rows of {shape[1]:,} dimensions\n",
        "| N | D | NMI | 20-NN | PIC: clusters, of one image, NMI |",
        "|---|---|---|---|---|",
    ]
    for (n, dim), found in cells.items():
        auto = " (auto)" if dim == auto_dim(n, shape[1]) else ""
        lines.append(
            f"| {n:,} | {dim or 'not whitened'}{auto} "
            f"| {found['nmi']:.3f} ± {found['nmi_std']:.3f} "
            f"| {found['20nn']:.3f} ± {found['20nn_std']:.3f} | {found['pic_clusters']:,}, "
            f"{found['pic_singletons']:,}, {found['pic_nmi']:.3f} |"
        )
    return "\n".join(lines)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The sets, and where the finished cells are kept."""
    add = parser.add_argument
    features_help = "sets of features: `rows` (N, D) and `labels` (N,)"
    add("features", metavar="FEATURES.npz", type=Path, nargs="+", help=features_help)
    out_help = "finished cells, a line of JSON for each; the same command goes on with them"
    add("--out", metavar="FILE.jsonl", type=Path, default=Path("whitening.jsonl"), help=out_help)
