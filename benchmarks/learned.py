"""What settings of main.py learn, over seeds, beside the untrained network and raw pixels.

Takes labelled images (`train/` and `val/`, a folder for each label in both) and a text file with
the settings, `NAME: FLAGS of main.py` on each line. Each is trained with each seed and measured as
by `tools.eval_quick` (evaluation/learned.py). Two networks are compared by the differences of their
figures, seed by seed: better is a mean above twice its standard error, with four of five
differences above zero. Neighbours and NMI count in the view that is better for the network.

Each finished network is a line of `--out`/results.jsonl and is not trained again; a run that was
cut is resumed.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

import main
from benchmarks.json_lines import append_line, read_lines
from checkpoints.checkpoint import load_model, read_checkpoint
from data.images import ImageList
from data.labelled import find_train_and_val
from evaluation.embedded import embed_by, embed_pixels, judge
from evaluation.verdict import (
    COUNT,
    NAMES,
    keys_of,
    over_seeds,
    spread,
    to_markdown,
    to_plain,
)
from features.kept import Pass
from methods.fitting import clusters_for
from models import untrained
from system import flags as common
from system.device import select_compute
from system.errors import InputError
from training.resume import is_finished

UNTRAINED, PIXELS, CPU = "untrained", "pixels", "cpu_seconds"
# Shorter than `NAMES`, whose numbers of labels and clusters the rows may differ in
HEADS = {
    "nmi": "NMI", "acc": "ACC", "ari": "ARI", "ami": "AMI", "purity": "purity",
    "nmi_k": "NMI, the run's k",
}  # fmt: skip

Figures = dict[str, dict[str, float]]  # of `to_plain`
Results = dict[tuple[str, int], Figures]  # by setting and seed


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print a Markdown table of the settings; the same as a dict."""
    settings = read_settings(args.settings)
    first = next(iter(settings.values()))
    check_same_network(args, settings)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "results.jsonl"
    done = read_results(path)
    images = [split.images for split in find_train_and_val(args.data)]
    results: Results = {}
    for seed in args.seeds:
        for name in (PIXELS, UNTRAINED, *settings):
            flags = settings.get(name, first)
            key = json.dumps([str(args.data.resolve()), name, flags, seed])
            exp = args.out / f"{name}_{seed}".replace(" ", "_").replace("/", "_")
            if key not in done:
                done[key] = measure(args, images, name, flags, seed, exp)
                append_line(path, [json.loads(key), done[key]])
            shutil.rmtree(exp, ignore_errors=True)
            results[name, seed] = done[key]
    sys.stdout.write(table(results, list(settings), args.seeds, args.measures) + "\n")
    return {"results": [[*key, found] for key, found in results.items()]}


def read_results(path: Path) -> dict[str, Figures]:
    """The figures of finished networks by their key: data, name, flags and seed, as JSON.

    Raises:
        InputError: the file is damaged.
    """
    return {json.dumps(key): found for key, found in read_lines(path, 2)}


def run_args_of(args: argparse.Namespace, flags: str, *more: str) -> argparse.Namespace:
    """The arguments of main.py for a setting."""
    return main.parse_args([str(args.data / "train"), *flags.split(), *more])


def check_same_network(args: argparse.Namespace, settings: dict[str, str]) -> None:
    """Check that the settings train one kind of network, which the untrained one stands for.

    Raises:
        InputError: they differ in --arch, --sobel or --size.
    """
    kinds = {
        name: (given.arch, given.sobel, given.size)
        for name, flags in settings.items()
        for given in [run_args_of(args, flags)]
    }
    if len(set(kinds.values())) > 1:
        raise InputError(
            f"{args.settings}: its settings differ in --arch, --sobel or --size; give one file for "
            "each kind of network"
        )


def measure(
    args: argparse.Namespace, images: list[ImageList], name: str, flags: str, seed: int, exp: Path
) -> Figures:
    """Train with these flags, unless it is the untrained network or raw pixels; and measure on the
    images of train and val.

    Raises:
        InputError: a signal stopped the training, which can be resumed.
    """
    own = ["--seed", str(seed), "--exp", str(exp), "--resume", "auto", "--no-report"]
    run_args = run_args_of(args, flags, *own)
    compute = select_compute(run_args.device, run_args.precision)
    by = Pass(run_args.size, compute, workers=run_args.workers)
    spent = 0.0
    if name == PIXELS:
        embed = embed_pixels(by)
    elif name == UNTRAINED:
        plain = run_args.method == "deepercluster"
        network = untrained(run_args.arch, run_args.sobel, 2, seed, plain_linear=plain)
        embed = embed_by(network, by)
    else:
        spent = train_on(run_args)
        checkpoint = exp / "checkpoint.pth.tar"
        if not is_finished(read_checkpoint(checkpoint), run_args.epochs):
            raise InputError(f"{exp}: the run was stopped; the same command resumes it")
        embed = embed_by(load_model(checkpoint), by)
    train, val = images
    main.METHODS[run_args.method].fit_settings(run_args, len(train))  # its k, if it isn't given
    k = run_args.nmb_cluster
    if k == 1:  # a run that learns only rotations
        k = clusters_for(len(train))
    found, _ = judge(embed, train, val, k, seed)
    return {**to_plain(found), CPU: {"mean": spent}}


def train_on(run_args: argparse.Namespace) -> float:
    """Train, or go on with a training that was stopped. Returns its CPU seconds in all calls; those
    of a call that was killed are not known, and so left out."""
    path = run_args.exp / CPU
    spent = float(path.read_text()) if path.exists() else 0.0
    before = cpu_seconds()
    main.main(run_args)
    spent += cpu_seconds() - before
    path.write_text(str(spent))
    return spent


def cpu_seconds() -> float:
    """CPU time of this process and its finished workers."""
    return sum(os.times()[:4])


def table(
    results: Results, settings: list[str], seeds: list[int], measured_by: Collection[str] = COUNT
) -> str:
    """Mean and standard deviation over the seeds, and the verdict against the untrained network.

    Args:
        measured_by: keys of `evaluation.verdict.NAMES`.
    """
    heads = [f"{HEADS.get(name, NAMES[name])}, against untrained" for name in measured_by]
    lines = [["", *heads, "CPU s"]]
    for name in (PIXELS, UNTRAINED, *settings):
        cells = []
        for measured in measured_by:
            own, base = (
                np.array([best_mean(results[each, seed], measured) for seed in seeds])
                for each in (name, UNTRAINED)
            )
            known = f", {over_seeds(own - base)}" if len(seeds) > 1 and name in settings else ""
            cells.append(f"{spread(own)}{known}")
        spent = [results[name, seed].get(CPU, {"mean": 0.0})["mean"] for seed in seeds]
        lines.append([name, *cells, f"{np.mean(spent):.0f}" if max(spent) > 0 else "–"])
    return to_markdown(lines)


def best_mean(found: Figures, measured: str) -> float:
    """A figure of one network, in the view in which it is higher.

    Raises:
        InputError: an earlier version measured the network, without this.
    """
    keys = keys_of(measured)
    if not found.keys() >= set(keys):
        raise InputError(
            f"--measures {measured}: results.jsonl of --out has lines of an earlier version "
            "without it; give another --out"
        )
    return max(found[key]["mean"] for key in keys)


def read_settings(path: Path) -> dict[str, str]:
    """The flags of each setting by its name.

    Raises:
        InputError: the file can't be read, or a line is not `NAME: FLAGS`.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot read the settings: {error}") from error
    pairs = [line.partition(":") for line in lines]
    if not lines or not all(flags.strip() for _, _, flags in pairs):
        raise InputError(f"{path}: give a line for each setting, NAME: FLAGS of main.py")
    return {name.strip(): flags.strip() for name, _, flags in pairs}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The images, the settings, the seeds and the folder."""
    add = parser.add_argument
    add("data", metavar="DATA", type=Path, help="folder with train/ and val/, a folder per label")
    settings_help = "text file with a line for each setting, NAME: FLAGS of main.py"
    add("settings", metavar="SETTINGS.txt", type=Path, help=settings_help)
    common.add_seeds(parser, "seeds of each setting")
    parser.set_defaults(seeds=[1, 2, 3, 4, 5])
    measures_help = "columns of the table, of evaluation/verdict.py"
    add("--measures", nargs="+", choices=list(NAMES), default=list(COUNT), help=measures_help)
    out_help = "folder for the results and the run under way; the same command goes on there"
    add("--out", type=Path, required=True, help=out_help)
