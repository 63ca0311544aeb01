"""DeeperCluster at its published size: memory of a process, what travels, hours, as tables. By
default features are whitened to 256 dimensions; the published run kept all 4,096 (`--dim_pca`).

Rates that are not given are measured: those of the network on random images in memory, in training
with a process's share of the sub-heads and the features of all processes; and that of the search
for nearest centroids. Without --dry-run, a process's share of a clustering also runs in part: many
rows with few centroids for an update, few rows with all centroids of a super-cluster for one
search. Time and memory of the whole share are extrapolated from these.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.deepercluster_size import (
    FULL,
    TRAINED,
    Rates,
    Size,
    device_memory,
    host_memory,
    hours,
    search_operations,
    traffic_of_clustering,
    traffic_of_step,
)
from benchmarks.timing import add_rounds_flag, memory, timed
from cluster.hierarchy import lloyd
from cluster.kmeans import sum_by_cluster
from methods.sharded import ShardedHeads
from methods.two_level_settings import check
from models import MODELS, ConvNet, add_arch_flag
from system import cli, flags
from system.device import Compute, add_precision_flag, select_compute
from system.errors import InputError

BLOCK = 16384  # rows that are drawn at a time
UNITS = {"GB": 1e9, "MB": 1e6}
SEARCHED = (2**12, 2**13)  # rows and centroids of the dry run


@dataclass(frozen=True)
class Part:
    """A part of a clustering: its numbers of rows and centroids, the seconds of a search and of an
    update (NaN if there is none), and the peak memory in bytes beyond the interpreter's."""

    rows: int
    centroids: int
    search: float
    update: float
    memory: float


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print the tables. Returns the same as a dict."""
    size, compute = size_of(args), select_compute(args.device, args.precision)
    parts = [] if args.dry_run else run_in_part(args, size, compute.device)
    rates = rates_of(args, size, compute, parts)
    tables: dict[str, dict[str, float]] = {
        "GB on the device": device_memory(size),
        "GB in the host's memory": host_memory(size),
        "MB that travel in a step": traffic_of_step(size),
        "MB that travel in a clustering": traffic_of_clustering(size),
        "hours": hours(size, rates),
    }
    sys.stdout.write(describe(args, size, rates, compute))
    for title, table in tables.items():
        sys.stdout.write(markdown(title, table))
    results: dict[str, Any] = {**tables, "rates": vars(rates)}
    if parts:
        results |= {"parts": [vars(part) for part in parts], "share": whole_share(size, *parts)}
        sys.stdout.write(describe_parts(size, parts, results["share"]))
    return results


def size_of(args: argparse.Namespace) -> Size:
    """The size that the flags ask for.

    Raises:
        InputError: naming a flag that can't be right; `main.py` has the same checks.
    """
    flags_of_run = {"data": "--images", "nmb_cluster": args.k, "rotnet": True, "shard_heads": False}
    check(argparse.Namespace(**vars(args), **flags_of_run), args.images)
    with torch.device("meta"):
        network = MODELS[args.arch](sobel=True)
    own = ("images", "processes", "super_classes", "k", "batch", "epochs", "reassignment", "niter")
    size = Size(
        **{name: getattr(args, name) for name in own},
        dim=network.embedding_dim,
        kept=args.dim_pca,
        network=sum(weights.numel() for weights in network.body()),
    )
    if size.each < size.processes:
        raise InputError(
            f"--k {size.k}: gives each super-class {size.each} sub-classes, fewer than the "
            f"{size.processes} processes; give {size.processes * size.super_clusters} or more"
        )
    if size.batch < 2 * size.processes:
        raise InputError(
            f"--batch {size.batch}: too small for --processes {size.processes}; give "
            f"{2 * size.processes} or more (2 each)"
        )
    return size


def rates_of(args: argparse.Namespace, size: Size, compute: Compute, parts: list[Part]) -> Rates:
    """The rates that are given, and for the others measured ones."""
    features, training, search = args.feature_rate, args.training_rate, args.gflops
    if features is None or training is None:
        network = MODELS[args.arch](sobel=True)
        network.top_layer = None
        network.to(compute.device).to(memory_format=torch.channels_last)
        features = features or feature_rate(network, args, compute)
        training = training or training_rate(network, args, size, compute)
    if search is not None:
        return Rates(features, training, search * 1e9)
    searched = parts[-1] if parts else measure(*SEARCHED, size.kept, compute.device, False)
    operations = 2 * searched.rows * searched.centroids * size.kept
    return Rates(features, training, operations / searched.search)


def feature_rate(network: ConvNet, args: argparse.Namespace, compute: Compute) -> float:
    """Images per second of the frozen network, the median of the rounds."""
    images = random_images(args, compute)
    network.eval()

    @torch.inference_mode()
    def work() -> None:
        with compute.autocast():
            network.embedding(images)

    return args.sample / median(work, args.rounds)


def training_rate(
    network: ConvNet, args: argparse.Namespace, size: Size, compute: Compute
) -> float:
    """Images per second of a training step, the median of the rounds. Each process scores the
    features of all W with its share of the sub-heads: here those of its own images, W times."""
    images, share = random_images(args, compute), args.sample * size.processes
    heads = ShardedHeads(
        size.dim, size.super_classes, -(-size.each // size.processes), share, compute.device
    ).to(compute.device)
    heads.reset(0, 0, with_super=True)
    target = torch.arange(share, device=compute.device)
    targets = target % size.super_classes, target % heads.clusters
    weights = [*network.body(), *heads.super.parameters(), *heads.sub.parameters()]
    optimizer = torch.optim.SGD(weights, lr=1e-9, momentum=0.9, fused=True)
    network.train()

    def work() -> None:
        optimizer.zero_grad()
        with compute.autocast():
            features = network.embedding(images).repeat(size.processes, 1)
            losses = heads.losses(heads(features, targets[0]), *targets)
        losses.mean().backward()
        optimizer.step()

    return args.sample / median(work, args.rounds)


def random_images(args: argparse.Namespace, compute: Compute) -> Tensor:
    images = torch.randn(args.sample, 3, args.size, args.size, device=compute.device)
    return images.to(memory_format=torch.channels_last)


def median(work: Callable[[], None], rounds: int) -> float:
    """The median of the seconds of some rounds, after one that warms up."""
    work()
    return float(np.median([timed(work).seconds for _ in range(rounds)]))


def run_in_part(args: argparse.Namespace, size: Size, device: torch.device) -> list[Part]:
    """An update of many rows with few centroids, and a search of few rows with all centroids of a
    super-cluster."""
    many = measure(args.rows, args.centroids, size.kept, device, True)
    return [many, measure(args.few_rows, size.each, size.kept, device, False)]


def measure(rows: int, centroids: int, dim: int, device: torch.device, with_update: bool) -> Part:
    """Time a search, and if wanted the sums of an update."""
    before = memory()
    x, first = unit_rows(rows, dim), unit_rows(centroids, dim)
    search = timed(lloyd, x, first, 0, device)
    if not with_update:
        return Part(rows, centroids, search.seconds, float("nan"), search.memory - before)
    assignment = np.random.default_rng(rows).integers(centroids, size=rows)
    update = timed(sum_by_cluster, x, assignment, centroids, device)
    memory_of_both = max(search.memory, update.memory) - before
    return Part(rows, centroids, search.seconds, update.seconds, memory_of_both)


def unit_rows(count: int, dim: int) -> np.ndarray:
    """Random unit rows `(count, dim) float16`, as the feature pass keeps them."""
    rng, rows = np.random.default_rng(count), np.empty((count, dim), np.float16)
    for start in range(0, count, BLOCK):
        part = rng.standard_normal((min(BLOCK, count - start), dim), np.float32)
        rows[start : start + BLOCK] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return rows


def whole_share(size: Size, many: Part, few: Part) -> dict[str, float]:
    """Hours and peak memory of a process's share of a clustering: all searches at the rate of the
    part with all centroids, updates and memory of the rows from the part with many rows, memory of
    the centroids from the other."""
    rate = 2 * few.rows * few.centroids * size.kept / few.search
    updates = size.niter * many.update * size.share / many.rows
    return {
        "hours": (search_operations(size) / rate + updates) / 3600,
        "memory": many.memory * size.share / many.rows + few.memory,
    }


def describe(args: argparse.Namespace, size: Size, rates: Rates, compute: Compute) -> str:
    """The size and the rates in words."""
    given = (args.feature_rate, args.training_rate, args.gflops)
    values = (rates.features, rates.training, rates.search / 1e9)
    words = ("images/s of the feature pass", "images/s of training", "GFLOP/s of the search")
    how = ["measured" if each is None else "given" for each in given]
    found = (f"{v:,.1f} {w} ({h})" for v, w, h in zip(values, words, how, strict=True))
    return (
        f"{size.images:,} images, {size.processes} processes, {args.arch}; "
        f"{size.super_classes} super-classes, {size.super_clusters} × {size.each:,} clusters on "
        f"{size.kept} dimensions; {compute.device} in {compute.precision}\n"
        f"a process: {', '.join(found)}\n"
        f"whole sub-heads would take {TRAINED * size.sub_heads / 1e9:,.1f} GB in each process, and "
        f"their gradients {FULL * size.sub_heads / 1e9:,.1f} GB of traffic in each step\n\n"
    )


def markdown(title: str, table: Mapping[str, float]) -> str:
    """A table of two columns: of bytes in the unit that the title begins with, with their sum, or
    of hours."""
    unit, digits = UNITS.get(title[:2], 1), 2 if title[:2] in UNITS else 3
    rows = {**table, "sum": sum(table.values())} if title[:2] in UNITS else table
    lines = [f"| {name} | {value / unit:,.{digits}f} |" for name, value in rows.items()]
    return "\n".join([f"| | {title} |", "|---|---|", *lines]) + "\n\n"


def describe_parts(size: Size, parts: list[Part], share: dict[str, float]) -> str:
    """The parts, and the whole share in the last line."""
    columns = ("rows", "centroids", "search, s", "update, s", "GFLOP/s", "GB")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for part in parts:
        rate = 2 * part.rows * part.centroids * size.kept / part.search / 1e9
        update = "–" if np.isnan(part.update) else f"{part.update:,.2f}"
        cells = [f"{part.rows:,}", f"{part.centroids:,}", f"{part.search:,.2f}", update]
        lines.append(f"| {' | '.join([*cells, f'{rate:,.0f}', f'{part.memory / 1e9:.2f}'])} |")
    return "\n".join(lines) + (
        f"\n\na process's share of a clustering, {size.share:,.0f} rows, extrapolated: "
        f"{share['hours']:,.2f} hours, {share['memory'] / 1e9:,.2f} GB at its peak\n"
    )


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `run`, except the device. Defaults are the published run's, but for
    `--dim_pca`, there 4096."""
    add, number = parser.add_argument, cli.whole_number(1)
    add("--images", type=number, default=96_000_000, help="number of images")
    add("--processes", type=number, default=64, help="number of processes, one for each device")
    add_arch_flag(parser, default="vgg16")
    add("--super_classes", type=number, default=16, help="super-clusters times four rotations")
    add("--k", type=number, default=320_000, help="number of clusters in all")
    pca_help = "dimensions that features are whitened to; the published run's: 4096"
    add("--dim_pca", type=number, default=256, help=pca_help)
    flags.add_size(parser)
    flags.add_batch(parser, 3072, "mini-batch size of all processes")
    add("--epochs", type=number, default=100, help="number of epochs")
    add("--reassignment", type=number, default=3, help="epochs between two clusterings")
    add("--niter", type=number, default=10, help="updates of the centroids in a clustering")
    add("--feature_rate", type=cli.positive_number, help="images/s of a process's feature pass")
    add("--training_rate", type=cli.positive_number, help="images/s of a process's training")
    gflops_help = "GFLOP/s of a process's search for nearest centroids"
    add("--gflops", type=cli.positive_number, help=gflops_help)
    sample_help = "images in a step that is measured; a GPU needs about 48 to be busy"
    add("--sample", type=number, default=8, help=sample_help)
    add("--dry-run", action="store_true", help="only tables, without a part of the clustering")
    add("--rows", type=number, default=1_500_000, help="rows of the part with an update")
    add("--centroids", type=number, default=2000, help="centroids of that part")
    add("--few_rows", type=number, default=20_000, help="rows of the part with all centroids")
    add_rounds_flag(parser)
    add_precision_flag(parser)
