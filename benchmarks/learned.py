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
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

import main
from checkpoints.checkpoint import load_model
from data.images import find_images
from evaluation.verdict import COUNT, over_seeds, to_plain
from models import untrained
from system import flags as common
from system.device import select_compute
from system.errors import InputError
from tools.eval_quick import embed_by, embed_pixels, judge

UNTRAINED, PIXELS = "untrained", "pixels"

Figures = dict[str, dict[str, float]]  # of `to_plain`
Results = dict[tuple[str, int], Figures]  # by setting and seed


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print a Markdown table of the settings; the same as a dict."""
    settings = read_settings(args.settings)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "results.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    results: Results = {(name, seed): found for name, seed, found in map(json.loads, lines)}
    for seed in args.seeds:
        for name in (PIXELS, UNTRAINED, *settings):
            if (name, seed) not in results:
                flags = settings.get(name) or next(iter(settings.values()))
                results[name, seed] = measure(args, name, flags, seed)
                with path.open("a") as file:
                    file.write(json.dumps([name, seed, results[name, seed]]) + "\n")
    sys.stdout.write(table(results, list(settings), args.seeds) + "\n")
    return {"results": [[*key, found] for key, found in results.items()]}


def measure(args: argparse.Namespace, name: str, flags: str, seed: int) -> Figures:
    """Train with these flags, unless it is the untrained network or raw pixels; and measure."""
    exp = args.out / f"{name}_{seed}".replace(" ", "_")
    own = ["--seed", str(seed), "--exp", str(exp), "--resume", "auto", "--no-report"]
    run_args = main.parse_args([str(args.data / "train"), *flags.split(), *own])
    compute = select_compute(run_args.device, run_args.precision)
    of_pass = argparse.Namespace(workers=run_args.workers, verbose=False)
    if name == PIXELS:
        embed = embed_pixels(run_args.size, of_pass)
    elif name == UNTRAINED:
        network = untrained(run_args.arch, run_args.sobel, 2, seed)
        embed = embed_by(network, run_args.size, compute, of_pass)
    else:
        main.main(run_args)
        network = load_model(exp / "checkpoint.pth.tar")
        embed = embed_by(network, run_args.size, compute, of_pass)
    train, val = (find_images(args.data / split) for split in ("train", "val"))
    found = to_plain(judge(embed, train, val, run_args.nmb_cluster, seed))
    shutil.rmtree(exp, ignore_errors=True)
    return found


def table(results: Results, settings: list[str], seeds: list[int]) -> str:
    """Mean and standard deviation over the seeds, and the verdict against the untrained network."""
    lines = [
        "| | " + " | ".join(f"{words}, against untrained" for words in COUNT.values()) + " |",
        "|---|" + "---|" * len(COUNT),
    ]
    for name in (PIXELS, UNTRAINED, *settings):
        cells = []
        for measured in COUNT:
            own, base = (
                np.array([best_mean(results[each, seed], measured) for seed in seeds])
                for each in (name, UNTRAINED)
            )
            several = len(seeds) > 1
            spread = f" ± {own.std(ddof=1):.3f}" if several else ""
            known = f", {over_seeds(own - base)}" if several and name in settings else ""
            cells.append(f"{own.mean():.3f}{spread}{known}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def best_mean(found: Figures, measured: str) -> float:
    """A figure, in the view in which it is higher."""
    return max(
        figure["mean"]
        for name, figure in found.items()
        if name in (measured, f"plain_{measured}", f"whitened_{measured}")
    )


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
    out_help = "folder for the results and the run under way; the same command goes on there"
    add("--out", type=Path, required=True, help=out_help)
