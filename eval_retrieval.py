"""Image retrieval with R-MAC on Oxford5k, Paris6k and their revisited versions.

`PROTOCOL` describes what `evaluate` does, and goes into `retrieval.json`.
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import system.interrupt

import numpy as np
import torch

from checkpoints.checkpoint import load_model
from data.decode import limit_pixels
from data.levels import warn_of_lost_levels
from data.loading import add_max_pixels_flag
from data.reading import Reading, add_range_flag, range_of
from data.retrieval import CLASSIC, Benchmark, RetrievalData, find_retrieval, image_names
from evaluation.retrieval import Stages
from evaluation.retrieval_ranking import (
    average_precision,
    expand_database,
    expand_queries,
    precision_at,
    rank,
)
from evaluation.rmac import get_rmac_region_coordinates, rmac
from models import ConvNet
from models.frozen import frozen
from models.pretrained import pretrained_vgg16
from system import cli, device, flags
from system.device import Compute, select_compute
from system.errors import InputError
from system.results import save_results

__all__ = ["average_precision", "evaluate", "get_rmac_region_coordinates", "rmac"]

STAGES = ("extract_train", "train_pca", "db_features", "q_features", "eval")
MULTIRES = (550, 800, 1050)
TOLERANCE = 1e-4  # between our AP and the binary's
WHOLE = {"Oxford5k": 5063, "Paris6k": 6392, "ROxford5k": 4993, "RParis6k": 6322}  # database images

PROTOCOL = """
Images are resized to the given long side (bilinear, antialiased, aspect kept); a query is the part
of its resized image inside its box, scaled alike. The conv map is the one after the last ReLU,
before the last max-pool, in eval mode. R-MAC: square regions at scales 1 to L; each region's maxima
over the channels, L2-normalised, PCA-whitened, L2-normalised, summed over the regions,
L2-normalised. The whitening is fitted on the regions of all images of the other data set (Oxford
for Paris and the reverse). With several long sides, the whitening is fitted on the regions of all
of them, and an image's vectors are averaged and L2-normalised. Regional vectors are kept in half
precision. Scores are dot products; ties are ranked in the database's order. Database-side expansion
(dbe) comes first: each image's vector becomes the mean of its own and its K nearest others',
L2-normalised. Then average query expansion (aqe): a query becomes the mean of itself and the K
images ranked first for it, L2-normalised, and is ranked again. Oxford5k, Paris6k: positives are
good and ok, junk is skipped, the query's own image stays in the database; 20 corrupt images of
Paris are left out (and never found if the ground truth lists them). AP follows the trapezoid rule:
the recall step times the mean of the precisions before and after it, from recall 0 and precision 1.
ROxford5k, RParis6k: the database is imlist; positives are easy in Easy (hard and junk ignored),
easy and hard in Medium (junk ignored), hard in Hard (easy and junk ignored); queries without
positives are left out; AP by the same rule; mP@k is the mean fraction of positives among the first
min(k, rank of the last positive). mAP is the mean over queries. All from 0 to 1.
"""


def evaluate(
    model: ConvNet,
    data: RetrievalData,
    temp_dir: Path,
    *,
    S: int = 1024,  # noqa: N803
    L: int = 3,  # noqa: N803
    n_pca: int = 512,
    multires: bool = False,
    aqe: int = 0,
    dbe: int = 0,
    stage: str | None = None,
    compute: Compute | None = None,
    workers: int = 4,
    eval_binary: Path | None = None,
) -> dict[str, Any]:
    """Rank a data set's images for its queries.

    Args:
        temp_dir: keeps the output of each stage, to be reused while its settings stay the same.
        S: long side of the images in pixels.
        L: scales of R-MAC.
        n_pca: components of the whitening.
        multires: use the three long sides of `MULTIRES` instead of S.
        aqe, dbe: how many vectors to average queries and database vectors with; 0 for none.
        stage: run only this stage; those before it must have run.
        eval_binary: program whose AP of each ranking must agree with ours.

    Returns:
        For each benchmark `mAP`, the number of database `images`, the `AP` of each query, and for
        ROxford5k and RParis6k also `mP@1`, `mP@5` and `mP@10`. Empty if only an earlier stage runs.

    Raises:
        InputError: an image cannot be read, a stage is missing, or the binary disagrees.
    """
    least = min(len(benchmark.database) for benchmark in data.benchmarks)
    for flag, count in (("aqe", aqe), ("dbe", dbe)):
        if count >= least:
            raise InputError(f"--{flag} {count}: give fewer than the database's {least} images")
    compute = compute or select_compute()
    model.to(compute.device).to(memory_format=torch.channels_last)
    with frozen(model):
        sizes = MULTIRES if multires else (S,)
        stages = Stages(temp_dir, model, data, sizes, L, n_pca, compute, workers, stage)
        if stage not in (None, "eval"):
            stages.get(stage)
            return {}
        database, queries = (stages.get(name)["vectors"] for name in ("db_features", "q_features"))
    row_of = {name: row for row, name in enumerate(image_names(data.images))}
    results = {}
    for benchmark in data.benchmarks:
        rows = [row_of[name] for name in benchmark.database]
        asked = [stages.query_rows[query.image, query.box] for query in benchmark.queries]
        order = ranking(queries[asked], database[rows], aqe, dbe)
        results[benchmark.name] = judge(benchmark, order, eval_binary)
    return results


def ranking(queries: np.ndarray, database: np.ndarray, aqe: int, dbe: int) -> np.ndarray:
    """Expand, then rank: `(Q, D)` queries and `(N, D)` database → the database's rows
    `(Q, N) int64`, best first."""
    if dbe:
        database = expand_database(database, dbe)
    if aqe:
        queries = expand_queries(queries, database, aqe)
    return rank(queries, database)


def judge(benchmark: Benchmark, order: np.ndarray, eval_binary: Path | None) -> dict[str, Any]:
    """The results of one benchmark, given the rankings `(Q, N)`."""
    precisions: list[float] = []
    at: dict[int, list[float]] = {1: [], 5: [], 10: []}
    for query, rows, good, junk in zip(
        benchmark.queries, order, benchmark.good, benchmark.junk, strict=True
    ):
        names = [benchmark.database[row] for row in rows]
        precisions.append(average_precision(names, good, junk))
        if benchmark.lab is not None and eval_binary is not None:
            check_precision(eval_binary, benchmark.lab / query.name, names, precisions[-1])
        for k, found in at.items():
            found.append(precision_at(k, names, good, junk))
    results: dict[str, Any] = {"mAP": float(np.mean(precisions))}
    if benchmark.name not in CLASSIC.values():
        results |= {f"mP@{k}": float(np.mean(found)) for k, found in at.items()}
    by_query = zip((query.name for query in benchmark.queries), precisions, strict=True)
    return {**results, "images": len(benchmark.database), "AP": dict(by_query)}


def check_precision(binary: Path, truth: Path, names: list[str], ours: float) -> None:
    """Compare our AP of a ranking with that of the Oxford buildings' program.

    Args:
        truth: path of the query's ground-truth files without `_good.txt` and so on.

    Raises:
        InputError: the program cannot be run, prints no number, or disagrees.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(names) + "\n")
        file.flush()
        command = [str(binary.absolute()), str(truth.absolute()), file.name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise InputError(f"--eval_binary {binary}: cannot run it: {error.strerror}") from error
    said = " ".join((done.stdout + done.stderr).split())[:200]
    try:
        theirs = float(done.stdout.split()[-1])
    except (ValueError, IndexError):
        theirs = math.nan
    if done.returncode != 0 or math.isnan(theirs):
        reason = f"status {done.returncode}, {said!r}"
        raise InputError(f"--eval_binary {binary}: no AP of {truth.name}: {reason}")
    if abs(theirs - ours) > TOLERANCE:
        both = f"AP of {truth.name} is {theirs:.6f}, ours is {ours:.6f}"
        raise InputError(f"--eval_binary {binary}: its {both}")


def main(args: argparse.Namespace) -> None:
    compute = select_compute(args.device, args.precision)
    torch.backends.cudnn.benchmark = False  # it would time all convolutions for each image size
    limit_pixels(args.max_pixels)
    reading = Reading(range=range_of(args.range))
    data = find_retrieval(args.dataset, args.dataset_name, args.train_dataset, reading)
    warn_of_lost_levels(data.images)
    if args.eval_binary is not None and all(b.lab is None for b in data.benchmarks):
        raise InputError(f"--eval_binary: needs lab/ in {data.images.root}")
    if args.eval_binary is not None and not os.access(args.eval_binary, os.X_OK):
        raise InputError(f"--eval_binary {args.eval_binary}: not an executable file")
    model = (
        pretrained_vgg16()
        if str(args.model) == "pretrained"
        else load_model(args.model, args.network_key)
    )
    results = evaluate(
        model, data, args.temp_dir, S=args.S, L=args.L, n_pca=args.n_pca, multires=args.multires,
        aqe=args.aqe, dbe=args.dbe, stage=args.stage, compute=compute, workers=args.workers,
        eval_binary=args.eval_binary,
    )  # fmt: skip
    if results:
        out = args.temp_dir / "retrieval.json"
        settings = {**vars(args), "precision": compute.precision, "device": str(compute.device)}
        save_results(out, PROTOCOL, settings, results)
        sys.stdout.write(f"{table(results)}\nwritten to {out}\n")


def table(results: dict[str, dict[str, Any]]) -> str:
    """APs of queries and means as lines of text: a table for each data set, a column for each of
    its setups."""
    families: dict[str, list[str]] = {}
    for name in results:
        families.setdefault(name.split()[0], []).append(name)
    lines = []
    for family, names in families.items():
        columns = [results[name] for name in names]
        setups = [name.removeprefix(family).strip() or "AP" for name in names]
        count, whole = columns[0]["images"], WHOLE[family]
        note = "" if count == whole else f" (the whole of it has {whole:,})"
        lines += ["", f"{family}, {count:,} images{note}", _line("query", setups)]
        for query in dict.fromkeys(query for column in columns for query in column["AP"]):
            lines.append(_line(query, [column["AP"].get(query) for column in columns]))
        for measure in (m for m in columns[0] if m.startswith("m")):
            lines.append(_line(measure, [column[measure] for column in columns]))
    return "\n".join(lines[1:])


def _line(name: str, cells: Sequence[str | float | None]) -> str:
    texts = ("–" if c is None else c if isinstance(c, str) else f"{c:.4f}" for c in cells)
    return f"{name:32}" + "".join(f"{text:>10}" for text in texts)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Oxford5k, Paris6k and their revisited versions with R-MAC.",
        example="python eval_retrieval.py --dataset /data/retrieval --dataset_name Oxford "
        "--model exp/001/checkpoint.pth.tar --temp_dir exp/retrieval/Oxford",
        details="docs/evaluation/retrieval.md",
    )
    add, at_least = parser.add_argument, cli.whole_number
    flags.add_model(parser, "checkpoint, or pretrained: torchvision's VGG-16")
    flags.add_key(parser)
    add("--dataset", type=Path, required=True, help="folder of the data set, or of both")
    add("--dataset_name", choices=("Oxford", "Paris"), required=True, help="data set to rank")
    other_help = "folder of the other data set's images, for the whitening; left out: in --dataset"
    add("--train_dataset", type=Path, help=other_help)
    add(
        "--temp_dir",
        type=Path,
        required=True,
        help="folder for the stages' outputs and the results",
    )
    add("--S", type=at_least(1), default=1024, help="long side of the images in pixels")
    add("--L", type=at_least(1), default=3, help="scales of R-MAC")
    add("--n_pca", type=at_least(1), default=512, help="components of the whitening")
    multires_help = f"long sides {', '.join(map(str, MULTIRES))} instead of --S, averaged"
    add("--multires", action="store_true", help=multires_help)
    add("--aqe", type=at_least(0), default=0, metavar="K", help="expand queries by the K best")
    add("--dbe", type=at_least(0), default=0, metavar="K", help="expand images by the K nearest")
    add("--stage", choices=STAGES, help="run only this stage; left out: all that are not stored")
    binary_help = "the Oxford buildings' compute_ap, to check every AP"
    add("--eval_binary", type=Path, help=binary_help)
    flags.add_workers(parser)
    add_max_pixels_flag(parser)
    add_range_flag(parser)
    device.add_flags(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
