"""Clusters by the number of images and of the dimensions that their features are whitened to: the
tables behind `--dim_pca auto`.

Takes sets of features with labels. Of each, a fifth of the rows (2,000 at most) is held out as val,
anew for each seed, and N of the others are drawn, the PCA is fitted on these, and they are whitened
to D dimensions (0: L2-normalised only). NMI: k-means with k = number of labels against the labels.
20-NN: accuracy of the val rows by their 20 nearest neighbours among the N. Both: mean and standard
deviation over the seeds. PIC, once: its clusters at sigma 0.2, their NMI, and how many of them are
of one image (before these join their neighbours).

Each finished cell is a line of `--out`, and is not measured again. A sample of N rows is measured
with all D at once.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.json_lines import append_line, read_lines
from cluster.components import auto_dim
from cluster.kmeans import run_kmeans
from cluster.quality import nmi
from cluster.whitening import Preparation, Whitening, fit_whitening, prepare
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
    """Print Markdown tables for each set; the cells as a dict."""
    sets = {path.stem: read_set(path) for path in args.features}
    samples = [(name, n) for name, (rows, _) in sets.items() for n in sizes_of(len(rows))]
    done = read_cells(args.out)
    with progress("samples", len(samples), "samples") as advance:
        for name, n in samples:
            dims = dimensions_of(n, sets[name][0].shape[1])
            missing = [dim for dim in dims if (name, n, dim) not in done]
            for dim, values in measure(*sets[name], n, missing).items():
                done[name, n, dim] = values
                append_line(args.out, [name, n, dim, values])
            advance(1)
    found: dict[str, dict[tuple[int, int], dict[str, float]]] = {name: {} for name in sets}
    for name, n in samples:
        for dim in dimensions_of(n, sets[name][0].shape[1]):
            found[name][n, dim] = done[name, n, dim]
    for name, cells in found.items():
        sys.stdout.write(tables(name, sets[name][0].shape, cells) + "\n\n")
    return {"cells": [[name, *key, v] for name, cells in found.items() for key, v in cells.items()]}


def dimensions_of(n: int, dim: int) -> list[int]:
    """The numbers of dimensions that N rows of D dimensions are whitened to, ascending; then 0."""
    wanted = sorted({*DIMENSIONS, auto_dim(n, dim)} - {0})
    return [*(d for d in wanted if d <= min(n - 1, dim)), 0]


def measure(
    rows: np.ndarray, labels: np.ndarray, n: int, dims: list[int]
) -> dict[int, dict[str, float]]:
    """The figures of N rows, whitened to each of these numbers of dimensions."""
    agreement: dict[int, list[float]] = {dim: [] for dim in dims}
    accuracy: dict[int, list[float]] = {dim: [] for dim in dims}
    pic: dict[int, dict[str, float]] = {}
    for seed in SEEDS if dims else ():
        train, val = draw(len(rows), n, seed)
        for dim, preparation in preparations(rows[train], dims).items():
            x, queries = preparation.apply(rows[train]), preparation.apply(rows[val])
            clusters, _ = run_kmeans(x, len(np.unique(labels)), seed=seed)
            agreement[dim].append(nmi(clusters, labels[train]))
            right = nearest(x, labels[train], queries, 20) == labels[val]
            accuracy[dim].append(float(np.mean(right)))
            if dim not in pic:  # of the first seed
                pic[dim] = measure_pic(x, labels[train])
    return {
        dim: {
            "nmi": float(np.mean(agreement[dim])),
            "nmi_std": float(np.std(agreement[dim], ddof=1)),
            "20nn": float(np.mean(accuracy[dim])),
            "20nn_std": float(np.std(accuracy[dim], ddof=1)),
            **pic[dim],
        }
        for dim in dims
    }


def preparations(rows: np.ndarray, dims: list[int]) -> dict[int, Preparation]:
    """The whitening of the rows to each of these numbers of dimensions, 0 for none. One PCA serves
    all: its first axes are those of a smaller one."""
    found: dict[int, Preparation] = {dim: prepare(rows, 0) for dim in dims if dim == 0}
    if max(dims) > 0:
        whole = fit_whitening(rows, max(dims))
        for dim in set(dims) - {0}:
            found[dim] = Whitening(whole.mean, whole.matrix[:, :dim])
    return found


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


def draw(rows: int, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices of N of the rows, and of the val rows."""
    order = np.random.default_rng(seed).permutation(rows)
    return order[rows - n :], order[: held_out(rows)]


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


def tables(
    name: str, shape: tuple[int, ...], cells: dict[tuple[int, int], dict[str, float]]
) -> str:
    """The cells of a set in Markdown: a table for each measure, a row for each N."""
    parts = [f"{name}: {shape[0]:,} rows of {shape[1]:,} dimensions"]
    names = [*map(str, DIMENSIONS[:-1]), "not whitened", "`auto`"]
    for title, written in MEASURES.items():
        lines = [f"| {title} | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
        for n in sorted({n for n, _ in cells}):
            auto = auto_dim(n, shape[1])
            row = [written(cells[n, dim]) if (n, dim) in cells else "" for dim in DIMENSIONS]
            row.append(f"{written(cells[n, auto])} ({auto})")
            lines.append(f"| {n:,} | {' | '.join(row)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def with_deviation(measure: str) -> Callable[[dict[str, float]], str]:
    """Writes the mean of a measure, and its deviation in thousandths."""
    return lambda cell: f"{cell[measure]:.3f} ± {1000 * cell[f'{measure}_std']:.0f}"


# A table's title, and how it writes a cell
MEASURES: dict[str, Callable[[dict[str, float]], str]] = {
    "NMI": with_deviation("nmi"),
    "20-NN": with_deviation("20nn"),
    "PIC: clusters, of one image": lambda c: f"{c['pic_clusters']:,}, {c['pic_singletons']:,}",
    "PIC: NMI": lambda cell: f"{cell['pic_nmi']:.3f}",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The sets, and where the finished cells are kept."""
    add = parser.add_argument
    features_help = "sets of features: `rows` (N, D) and `labels` (N,)"
    add("features", metavar="FEATURES.npz", type=Path, nargs="+", help=features_help)
    out_help = "finished cells, a line of JSON for each; the same command goes on with them"
    add("--out", metavar="FILE.jsonl", type=Path, default=Path("whitening.jsonl"), help=out_help)
