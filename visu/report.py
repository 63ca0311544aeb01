"""Write `EXP/report.html`, a run on one self-contained page: curves, first filters, clusters,
settings. The run may be finished, running or interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # `python visu/report.py` puts only visu/ on the import path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

    import system.interrupt

from system import cli, flags
from visu.report_page import CLUSTERS, IMAGES, write_report


def main(args: argparse.Namespace) -> None:
    page = write_report(args.exp, args.clusters, args.images, args.also, args.data)
    sys.stdout.write(f"written to {page} ({page.stat().st_size / 1e6:.1f} MB)\n")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Write EXP/report.html: a run on one self-contained page.",
        example="python visu/report.py exp/001",
        details="docs/runs.md",
    )
    add = parser.add_argument
    add("exp", metavar="EXP", type=Path, help="experiment folder of main.py")
    clusters_help = "clusters with pictures: the largest, the purest, and others at random"
    add("--clusters", type=cli.whole_number(1), default=CLUSTERS, help=clusters_help)
    images_help = "pictures of each of these clusters, at random; each adds about 2 kB to the page"
    add("--images", type=cli.whole_number(1), default=IMAGES, help=images_help)
    also_help = "further clusters, by number, and images, by name as in EXP/images.txt, to picture"
    add("--also", nargs="+", metavar="WHICH", default=[], help=also_help)
    flags.add_run_data(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
