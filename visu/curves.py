"""The curves of runs side by side, to compare runs that learned with runs that did not.

Each run has a column. The rows are the loss (with that of guessing), the NMI of the
clusters to those of the epoch before, and, where there are labels, their NMI and ARI to the folder
labels, purity, ACC and the nearest-neighbour probe; of DeeperCluster also those of the
super-clusters, and the share of rotations that are recognised. A row has one scale for all runs.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # `python visu/curves.py` puts only visu/ on the import path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

    import system.interrupt

from matplotlib.figure import Figure

from system import cli
from system.errors import InputError
from system.files import atomic_write, check_new_file
from training.logs import read_metrics
from visu.charts import LEARNING, Metrics, draw_chart, keep_known

NEEDED = {"epoch", "convnet_loss", "ln_k", "nmi_previous", "nmi_labels", "purity"}
WIDTH, HEIGHT = 3.4, 2.2  # of a chart, in inches
DPI = 110
ENDINGS = (".png", ".svg", ".pdf")


def draw_curves(runs: dict[str, Metrics]) -> Figure:
    """A figure with a column for each run.

    Args:
        runs: the lines of each run's metrics.jsonl, by the name above its column.
    """
    charts = keep_known(LEARNING, [line for metrics in runs.values() for line in metrics])
    size = (WIDTH * len(runs), HEIGHT * len(charts))
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    grid = figure.subplots(len(charts), len(runs), sharey="row", squeeze=False)
    for axes, chart in zip(grid, charts, strict=True):
        for ax, metrics in zip(axes, runs.values(), strict=True):
            draw_chart(ax, chart, metrics)
        axes[0].set_ylabel(chart.title)
        axes[-1].legend(fontsize="small", framealpha=0.7)
    for ax, name in zip(grid[0], runs, strict=True):
        ax.set_title(name, parse_math=False)
    for ax in grid[-1]:
        ax.set_xlabel("epoch")
    return figure


def main(args: argparse.Namespace) -> None:
    names = args.names or [str(folder) for folder in args.exp]
    if len(names) != len(args.exp):
        raise InputError(f"--names: {len(names)} for {len(args.exp)} runs; give one for each")
    if len(set(names)) < len(names):
        raise InputError(f"--names {' '.join(names)}: give each run its own name")
    check_new_file("--out", args.out, ENDINGS)
    runs = {name: _read(folder) for name, folder in zip(names, args.exp, strict=True)}
    figure = draw_curves(runs)
    with atomic_write(args.out) as file:
        figure.savefig(file, format=args.out.suffix.lower()[1:])
    sys.stdout.write(f"written to {args.out}\n")


def _read(folder: Path) -> Metrics:
    metrics = read_metrics(folder)
    if not metrics:
        raise InputError(f"{folder}: no finished epoch in its metrics.jsonl")
    if not all(set(line) >= NEEDED for line in metrics):
        raise InputError(f"{folder / 'metrics.jsonl'}: a line is not that of an epoch")
    return metrics


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Draw the curves of runs side by side.",
        example="python visu/curves.py exp/001 exp/002 --names 'lr 0.03' 'lr 0.3'",
        details="docs/own-images.md",
    )
    add = parser.add_argument
    add("exp", metavar="EXP", type=Path, nargs="+", help="experiment folders of main.py")
    add("--names", metavar="NAME", nargs="+", help="names of the runs; left out: their folders")
    out_help = "the picture: a .png, .svg or .pdf"
    add("--out", type=Path, default=Path("curves.png"), help=out_help)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
