"""Several trained networks side by side, with untrained ones and raw pixels.

Protocol. Features of `--data`/train and `--data`/val, folders as labels, of the central crop at the
size of each network's training: `evaluation/learned.py` says how they are measured. The figures are
the accuracy on val of a linear probe and of the 20 nearest neighbours, and NMI, ARI and ACC of
k-means of train with k = number of labels. Neighbours and clusters are seen in the view, plain or
whitened, in which the figure is higher. Checkpoints of main.py that differ only by their seed are
runs of one row: mean ± standard deviation over the runs. Better and worse are against the untrained
network of the same seed, with random weights. Of several runs: the mean difference is above twice
its standard error, and four fifths of the differences have its sign. Of a single run: McNemar's
test on the val images (p < 0.01), and for clusters a difference above 0.01 and above twice its
standard error over five seeds of k-means; another run may differ. Raw pixels: the central crop,
resized to 32 pixels at most. A val image that cannot be read counts as a mistake, a train image is
left out; above 1 % of either it is an error.

Writes `compare.md`, `compare.json` and `compare.png`. Finished measures are kept in `--out`: after
an interruption the same command goes on, and only new networks are measured.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import system.interrupt

from checkpoints.checkpoint import digest_of
from checkpoints.networks import MODEL_HELP, open_network
from data.decode import limit_pixels
from data.labelled import Labelled, find_train_and_val
from data.labels_csv import add_labels_flag
from data.loading import add_max_pixels_flag
from data.reading import Reading, add_reading_flags
from evaluation.comparison import Row, table
from evaluation.embedded import Embed, embed_by, embed_pixels, judge
from evaluation.verdict import Measures, to_markdown
from features.kept import Pass, conditions, known_by
from features.network import add_size_flag
from system import cli, device, flags
from system.device import Compute, select_compute
from system.errors import InputError
from system.files import atomic_write, make_folder, write_text
from system.kept import Key, Store
from system.names import printable
from system.results import save_results
from tools.contenders import Contender, Kind, look_at_all, names_of
from visu.comparison import draw_comparison

NOTE = (
    "Accuracy on val of a linear probe and of the 20 nearest neighbours; NMI, ARI and ACC of "
    "k-means with k = number of labels. ± is the standard deviation over runs that differ only by "
    "their seed. Better and worse: against the untrained network of the same seed."
)


@dataclass(frozen=True)
class Bench:
    """Measures networks.

    Attributes:
        splits: train and val, by how images are read.
        store: keeps finished measures.
    """

    splits: dict[Reading, tuple[Labelled, Labelled]]
    compute: Compute
    workers: int
    store: Store
    verbose: bool

    def measure(self, kind: Kind, network: str, embed: Callable[[Pass], Embed]) -> Measures:
        """The measures of a network, or of raw pixels; those that were kept, if there are any.

        Args:
            network: the digest of its weights, or "pixels".
            embed: makes the function that embeds images.
        """
        train, val = self.splits[kind.reading]
        by = Pass(kind.size, self.compute, workers=self.workers, verbose=self.verbose)
        contents = [known_by(split.images) for split in (train, val)]
        store = self.store if all(contents) else Store(None)
        key: Key = {
            "protocol": 2,  # grey pixels once, and not every C is tried
            "network": network[:12],
            "size": kind.size,
            **conditions(self.compute),
            "images": contents,
            "labels": [split.digest[:12] for split in (train, val)],
            **kind.reading.key,
        }
        found = store.find("measures", key)
        if not found:
            found, _ = judge(embed(by), train.images, val.images, k=None, seed=0)
            store.keep("measures", key, found)
        return found

    def pixels(self, kind: Kind) -> Measures:
        """The measures of raw pixels."""
        return self.measure(kind, "pixels", embed_pixels)

    def untrained(self, kind: Kind, seed: int) -> Measures:
        """The measures of a seed's untrained network."""
        model = kind.untrained(seed)
        return self.measure(kind, digest_of(model), lambda by: embed_by(model, by))

    def trained(self, found: Contender, key: str | None) -> Measures:
        """The measures of a network, `key` as for `read_checkpoint`.

        Raises:
            InputError: naming the checkpoint; its features are not finite, for example.
        """

        def embed(by: Pass) -> Embed:
            return embed_by(open_network(found.path, key, found.kind.size).model, by)

        try:
            return self.measure(found.kind, found.digest, embed)
        except InputError as error:
            raise InputError(f"{found.path}: {error}") from error


def main(args: argparse.Namespace) -> None:
    """Check all input, measure, and write the results."""
    compute = select_compute(args.device, args.precision)
    limit_pixels(args.max_pixels)
    groups = look_at_all(args.checkpoints, args)
    names = names_of(groups, args.names)
    kinds = list(dict.fromkeys(found.kind for group in groups for found in group))
    splits = {
        reading: find_train_and_val(args.data, reading, args.labels)
        for reading in readings_of(kinds)
    }
    make_folder(args.out, "--out")
    bench = Bench(splits, compute, args.workers, Store(args.out / "kept"), args.verbose)
    starts = {
        (kind, seed): bench.untrained(kind, seed)
        for kind in kinds
        for seed in sorted({*args.seeds, *seeds_of(kind, groups)})
    }
    rows = [*pixel_rows(bench, kinds), *untrained_rows(starts, kinds)]
    for name, group in zip(names, groups, strict=True):
        runs = [bench.trained(found, args.network_key) for found in group]
        sources, seeds = [str(found.path) for found in group], [found.seed for found in group]
        known = [starts[found.kind, found.seed] for found in group if found.seed is not None]
        rows.append(Row(name, runs, sources, seeds, known))
    train, val = next(iter(splits.values()))
    used: dict[str, Any] = {"device": str(compute.device), "precision": compute.precision}
    used |= {"checkpoints": list(map(str, args.checkpoints)), "classes": len(train.classes)}
    used |= {"train": len(train.images), "val": len(val.images)}
    used["networks"] = {str(found.path): found.about for group in groups for found in group}
    write(args, rows, used)


def readings_of(kinds: Sequence[Kind]) -> list[Reading]:
    """The ways in which images are read."""
    return list(dict.fromkeys(kind.reading for kind in kinds))


def seeds_of(kind: Kind, groups: Sequence[Sequence[Contender]]) -> set[int]:
    """The seeds of the runs of a kind."""
    own = [found for group in groups for found in group if found.kind == kind]
    return {found.seed for found in own if found.seed is not None}


def pixel_rows(bench: Bench, kinds: Sequence[Kind]) -> list[Row]:
    """A row of raw pixels for each size and way of reading."""
    different = {(kind.size, kind.reading): kind for kind in kinds}.values()
    words = [kind.among(kinds, {"size", "reading"}) for kind in different]
    return [
        Row(", ".join(filter(None, ["raw pixels", each])), [bench.pixels(kind)])
        for kind, each in zip(different, words, strict=True)
    ]


def untrained_rows(starts: dict[tuple[Kind, int], Measures], kinds: Sequence[Kind]) -> list[Row]:
    """A row of the untrained networks of each kind."""
    rows = []
    for kind in kinds:
        own = {seed: found for (each, seed), found in starts.items() if each == kind}
        name = ", ".join(filter(None, ["untrained", kind.among(kinds)]))
        rows.append(Row(name, list(own.values()), seeds=list(own)))
    return rows


def write(args: argparse.Namespace, rows: Sequence[Row], used: dict[str, Any]) -> None:
    """Write the results as Markdown, JSON and a picture, and print the table."""
    of_data = (
        f"{args.data}: {used['train']:,} images to train on, {used['val']:,} to validate on, "
        f"{used['classes']} labels."
    )
    shown = to_markdown([[printable(word) for word in cells] for cells in table(rows)])
    write_text(args.out / "compare.md", f"{printable(of_data)}\n\n{shown}\n\n{NOTE}\n")
    results = {"rows": [row.to_plain() for row in rows]}
    save_results(args.out / "compare.json", __doc__ or "", {**vars(args), **used}, results)
    with atomic_write(args.out / "compare.png") as file:
        draw_comparison(rows).savefig(file, format="png")
    written = ", ".join(str(args.out / f"compare.{ending}") for ending in ("md", "json", "png"))
    sys.stdout.write(f"{shown}\n\n{NOTE}\nwritten to {written}\n")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="A table and a picture of what several trained networks have learned, beside "
        "untrained ones and raw pixels.",
        example="python -m tools.compare exp/001/checkpoint.pth.tar exp/002/checkpoint.pth.tar "
        "--data datasets/digits --out exp/comparison",
        details="docs/evaluation/compare.md",
    )
    add = parser.add_argument
    checkpoints_help = f"{MODEL_HELP}; those of main.py that differ only by their seed are one row"
    add("checkpoints", metavar="CHECKPOINT", type=Path, nargs="+", help=checkpoints_help)
    flags.add_data(parser)
    out_help = "folder for the results; the same command goes on there"
    add("--out", type=Path, required=True, metavar="FOLDER", help=out_help)
    names_help = "names of the rows of checkpoints; left out: their folders"
    add("--names", metavar="NAME", nargs="+", help=names_help)
    flags.add_seeds(parser, "seeds of the untrained networks, beside those of the checkpoints")
    parser.set_defaults(seeds=[1, 2, 3])
    flags.add_key(parser)
    add_size_flag(parser)
    flags.add_workers(parser)
    add_max_pixels_flag(parser)
    add_reading_flags(parser)
    add_labels_flag(parser)
    device.add_flags(parser)
    flags.add_verbose(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
