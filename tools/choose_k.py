"""How many clusters: a table, a picture and a suggestion, from the features in a file.

k-means with the powers of √2 from 2 to N/20, with five seeds each. The suggestion is the most
stable k within one deviation of the best silhouette. It costs 5 k-means for each k: seconds for
some thousand rows. Of more than 20,000 rows it takes so many, at random.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import system.interrupt

from cluster.choosing import SEEDS, Choice, choose_k, numbers_to_try
from cluster.components import AUTO, add_flag
from cluster.whitening import prepare
from features.row_file import check_finite, read_rows
from system import cli, device
from system.device import select_compute
from system.errors import InputError
from system.files import atomic_write, check_new_file
from system.progress import progress
from visu.choice import draw_choice
from visu.curves import ENDINGS


def main(args: argparse.Namespace) -> None:
    on = select_compute(args.device).device
    if args.out is not None:
        check_new_file("--out", args.out, ENDINGS)
    count, rows = read_rows(args.features)
    try:
        steps = len(SEEDS) * len(numbers_to_try(count))
    except InputError as error:
        raise InputError(f"{args.features}: {error}") from error
    check_finite(args.features, rows, 0)
    x = prepare(rows, args.dim_pca, on).apply(rows, on)
    with progress("k-means", steps, "clusterings") as advance:
        choice = choose_k(x, device=on, advance=advance)
    sys.stdout.write("\n".join(to_lines(choice)) + "\n")
    if args.out is not None:
        with atomic_write(args.out) as file:
            draw_choice(choice).savefig(file, format=args.out.suffix.lower()[1:])
        sys.stdout.write(f"written to {args.out}\n")


def to_lines(choice: Choice) -> list[str]:
    """The table and the suggestion as lines of text."""
    lines = [f"{'k':>6}{'loss':>12}{'silhouette':>18}{'stability':>12}"]
    for tried in choice.table:
        spread = f"{tried.silhouette:.3f} ± {tried.deviation:.3f}"
        lines.append(f"{tried.k:>6}{tried.loss:>12.5g}{spread:>18}{tried.stability:>12.3f}")
    return [*lines, f"suggested: --k {choice.k}, {choice.reason}"]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Choose the number of clusters of the features in a file.",
        example="python -m tools.choose_k exp/features/features.npy --out choice.png",
        details="docs/clustering.md",
    )
    add = parser.add_argument
    add("features", metavar="FEATURES", type=Path, help="as tools.cluster_features takes them")
    pca_help = "dimensions that rows are whitened to; auto: as many as suit the number of rows; 0: "
    add_flag(parser, AUTO, pca_help + "only normalise them")
    out_help = "picture of loss, silhouette and stability over k: a .png, .svg or .pdf"
    add("--out", metavar="FILE", type=Path, help=out_help)
    device.add_device_flag(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
