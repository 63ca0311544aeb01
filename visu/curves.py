"""The curves of runs side by side: what learned beside what did not.

A column for each run, and a row for the loss (against ln k, what guessing gives), for how much the
clusters have in common with the epoch before's and with the folder labels, and for the purity and
the nearest-neighbour probe, where there are labels. A row has one scale for all runs.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if __name__ == "__main__":  # started by its path, from wherever
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from system import cli
from system.errors import InputError
from system.files import atomic_write, check_new_file
from training.logs import read_metrics

Metrics = list[dict[str, Any]]
Series = tuple[str, str, Callable[[dict[str, Any]], float | None]]  # name, style, value

ROWS: dict[str, list[Series]] = {
    "loss": [
        ("convnet loss", "C0.-", lambda m: m["convnet_loss"]),
        ("ln k", "C7--", lambda m: m["ln_k"]),
    ],
    "NMI of the clusters": [
        ("to the epoch before's", "C0.-", lambda m: m["nmi_previous"]),
        ("to the labels", "C1.--", lambda m: m["nmi_labels"]),
    ],
    "share of the images": [
        ("purity", "C2.-", lambda m: m["purity"]),
        ("10 neighbours are right", "C3.--", lambda m: (m.get("knn_top1") or {}).get("10")),
    ],
}
NEEDED = {"epoch", "convnet_loss", "ln_k", "nmi_previous", "nmi_labels", "purity"}
WIDTH, HEIGHT = 3.4, 2.2  # of a curve, in inches
DPI = 110
ENDINGS = (".png", ".svg", ".pdf")


def draw_curves(runs: dict[str, Metrics]) -> Figure:
    """A figure with a column for each run, by its name."""
    shown = {row: _known(series, runs) for row, series in ROWS.items()}
    shown = {row: series for row, series in shown.items() if series}
    size = (WIDTH * len(runs), HEIGHT * len(shown))
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    grid = figure.subplots(len(shown), len(runs), sharey="row", squeeze=False)
    for axes, (row, series) in zip(grid, shown.items(), strict=True):
        for ax, metrics in zip(axes, runs.values(), strict=True):
            _draw_row(ax, series, metrics)
        axes[0].set_ylabel(row)
        axes[-1].legend(fontsize="small", framealpha=0.7)
    for ax, name in zip(grid[0], runs, strict=True):
        ax.set_title(name)
    for ax in grid[-1]:
        ax.set_xlabel("epoch")
    return figure


def _known(series: list[Series], runs: dict[str, Metrics]) -> list[Series]:
    """Those that some run has a value of."""
    lines = [line for metrics in runs.values() for line in metrics]
    return [each for each in series if any(each[2](line) is not None for line in lines)]


def _draw_row(ax: Axes, series: list[Series], metrics: Metrics) -> None:
    for name, style, value in series:
        points = [(line["epoch"], value(line)) for line in metrics]
        there = [point for point in points if point[1] is not None]
        ax.plot(*zip(*there, strict=True) if there else ((), ()), style, label=name)
    ax.grid(alpha=0.3)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def main(args: argparse.Namespace) -> None:
    """Write the picture."""
    names = args.names or [str(folder) for folder in args.exp]
    if len(names) != len(args.exp):
        raise InputError(f"--names: {len(names)} for {len(args.exp)} runs; give one for each")
    if len(set(names)) < len(names):
        raise InputError(f"--names {' '.join(names)}: give each run another one")
    check_new_file("--out", args.out, ENDINGS)
    runs = {name: _read(folder) for name, folder in zip(names, args.exp, strict=True)}
    figure = draw_curves(runs)
    with atomic_write(args.out) as file:
        figure.savefig(file, format=args.out.suffix.lower()[1:])
    sys.stdout.write(f"written to {args.out}\n")


def _read(folder: Path) -> Metrics:
    metrics = read_metrics(folder)
    if not metrics:
        raise InputError(f"{folder}: no epoch of a run of main.py is in it (metrics.jsonl)")
    if not all(set(line) >= NEEDED for line in metrics):
        raise InputError(f"{folder / 'metrics.jsonl'}: has a line that is no epoch's")
    return metrics


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Draw the curves of runs side by side.",
        example="python visu/curves.py exp/001 exp/002 --names 'lr 0.03' 'lr 0.3'",
        details="docs/own-images.md",
    )
    add = parser.add_argument
    add("exp", metavar="EXP", type=Path, nargs="+", help="experiment folders of main.py")
    add("--names", metavar="NAME", nargs="+", help="what to call them; left out: their folders")
    out_help = "the picture: a .png, .svg or .pdf"
    add("--out", type=Path, default=Path("curves.png"), help=out_help)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
