"""Write the page of a run, `EXP/report.html`: curves, first filters, clusters, settings.

One file that needs nothing else, to be read anywhere. The run may be over, under way or cut.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # started by its path, from wherever
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from system import cli, flags
from visu.report_page import CLUSTERS, IMAGES, write_report


def main(args: argparse.Namespace) -> None:
    """Write the page and say where it is."""
    page = write_report(args.exp, args.clusters, args.images, args.also, args.data)
    sys.stdout.write(f"written to {page} ({page.stat().st_size / 1e6:.1f} MB)\n")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Write EXP/report.html: a run on one page that needs nothing else.",
        example="python visu/report.py exp/001",
        details="docs/runs.md",
    )
    add = parser.add_argument
    add("exp", metavar="EXP", type=Path, help="experiment folder of main.py")
    clusters_help = "clusters that have pictures: the largest, the purest, and others at random"
    add("--clusters", type=cli.whole_number(1), default=CLUSTERS, help=clusters_help)
    images_help = "pictures of each of them, at random; the page grows by 2 kB or so with each"
    add("--images", type=cli.whole_number(1), default=IMAGES, help=images_help)
    also_help = "clusters, by number, and images, by name as in EXP/images.txt, to picture as well"
    add("--also", nargs="+", metavar="WHICH", default=[], help=also_help)
    flags.add_run_data(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
