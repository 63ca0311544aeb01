"""Linear SVMs and low-shot SVMs on VOC 2007, on the frozen conv layers of a network.

The protocol is that of the model zoos. Every image of trainval and test is resized to 256 pixels on
its short side, then to exactly 224 × 224. A row is the activation of a conv layer after its ReLU,
average-pooled as for the linear probe (AlexNet: 9600, 9216, 9600, 9600 and 9216 dimensions; others
near that; these sizes are for --size 224), in float32, divided by its L2 norm. Each of the 20
classes has a linear SVM of scikit-learn (LinearSVC: squared hinge loss, L2 penalty, dual, tolerance
1e-4, 2000 iterations, weight 2 for positives). Difficult images are negatives in training, and are
left out of the test. AP is the area under the monotone envelope of the precision-recall curve, mAP
its mean over the classes, as fractions of 1.

SVM: each class has the cost with the highest AP in 3-fold cross-validation on trainval (stratified
folds, the images in their order); it is trained on trainval and tested on test.

Low-shot: for each class, k positives and 19,000 negatives of trainval (all if there are fewer) are
drawn for each k and sample. For each cost: mean, min, max and standard deviation (of the
population) of the mAP on test, over the samples. "best_on_test" is the cost, the same for all
classes, with the highest mean; it is chosen on the test set, as the zoos do. "chosen_on_trainval"
does not use the test set: SVMs are trained on each sample without a third of its negatives, and
tested on that third and the positives outside the sample; the cost has the highest mean AP over
classes and samples (except samples with all positives).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import system.interrupt

import numpy as np
import torch

from checkpoints.checkpoint import digest_of
from checkpoints.folder import beside
from checkpoints.networks import MODEL_HELP, open_network
from data.decode import limit_pixels
from data.levels import warn_of_lost_levels
from data.loading import add_max_pixels_flag
from data.reading import add_reading_flags, chosen_reading
from data.voc import CLASSES, VocSplit, add_vocdir_flag, find_voc
from evaluation.svm import COSTS, FOLDS, SHOTS, Plan, Rows, compact, judge
from evaluation.svm_jobs import Pieces
from evaluation.svm_rows import kept_rows
from models import Network
from models.frozen import frozen
from models.layers import add_conv_flag, layers_of
from system import cli, device, flags
from system.cores import allowed_cores
from system.device import Compute, select_compute
from system.errors import InputError
from system.files import make_experiment_folder
from system.kept import Store
from system.results import save_results


def evaluate(
    model: Network,
    trainval: VocSplit,
    test: VocSplit,
    *,
    layers: Sequence[int],
    compute: Compute,
    costs: Sequence[float] = COSTS,
    shots: Sequence[int] = SHOTS,
    samples: int = 5,
    seed: int = 31,
    size: int = 224,
    workers: int = 4,
    jobs: int = 1,
    folder: Path | None = None,
    verbose: bool = False,
) -> dict[str, Any]:
    """Judge conv layers by the protocol above.

    Args:
        layers: 1 for the first.
        shots: the numbers k of positives; empty for no low-shot part.
        size: side of the input in pixels.
        workers, jobs: processes that read images, and that train SVMs.
        folder: keeps results and rows, which are used again with the same settings.

    Returns `layers` by name, and the `best_layer` by the mAP of its SVMs.

    Raises:
        InputError: a class has too few images, or an image cannot be read.
    """
    splits = {"trainval": trainval, "test": test}
    check_classes(splits)
    plan = Plan(sorted(set(costs)), sorted(set(shots)), samples, seed)
    key = describe(model, splits, size, compute)
    pieces = Pieces(folder and folder / "pieces", key, jobs, verbose)
    store = Store(folder and folder / "features")
    parts = {layer: pieces.below(f"conv{layer}", layer=layer) for layer in sorted(set(layers))}
    kept = {layer: part.kept("all", vars(plan)) for layer, part in parts.items()}
    found = {layer: result for layer, (result, _) in kept.items()}
    left = [layer for layer, (_, why) in kept.items() if why]
    rows: dict[str, dict[int, np.ndarray]] = {}
    if left:
        model.to(compute.device).to(memory_format=torch.channels_last)
        with frozen(model):
            for name, split in splits.items():
                rows[name] = kept_rows(
                    store, key, model, split.images, left, name, compute, size, workers, verbose
                )
    for layer in left:
        train, tested = (rows[name].pop(layer) for name in splits)
        dims = train.shape[1]
        train, tested = compact(train, tested)
        data = Rows(CLASSES, train, trainval.targets, tested, test.targets)
        result = {"dims": dims, **judge(data, parts[layer], plan)}
        parts[layer].keep("all", vars(plan), result)
        found[layer] = result
    named = {f"conv{layer}": result for layer, result in found.items()}
    best = max(named, key=lambda name: named[name]["svm"]["map"])
    return {"layers": named, "best_layer": best}


def check_classes(splits: dict[str, VocSplit]) -> None:
    """Check that each class has enough images for training, cross-validation and test.

    Raises:
        InputError: naming the class and its number of images.
    """
    for split, least in (("trainval", FOLDS), ("test", 1)):
        for name, targets in zip(CLASSES, splits[split].targets.T, strict=True):
            for value, kind in ((1, "images with it"), (-1, "images without it")):
                if (count := int((targets == value).sum())) < least:
                    raise InputError(f"{name}: {count} {kind} in {split}, fewer than {least}")


def describe(
    model: Network, splits: dict[str, VocSplit], size: int, compute: Compute
) -> dict[str, Any]:
    """The settings that the rows depend on, weights and annotations as digests."""
    annotations = {f"{name}'s annotations": split.digest for name, split in splits.items()}
    return {
        "weights": digest_of(model), **annotations, "size": size, "precision": compute.precision,
        **splits["trainval"].images.reading.key,
    }  # fmt: skip


def main(args: argparse.Namespace) -> None:
    compute = select_compute(args.device, args.precision)
    limit_pixels(args.max_pixels)
    opened = open_network(args.model, args.network_key, args.size)
    reading = chosen_reading(args, opened.settings, args.model)
    splits = {name: find_voc(args.vocdir, name, reading) for name in ("trainval", "test")}
    warn_of_lost_levels(splits["trainval"].images)
    layers = layers_of(opened.model, args.conv)
    folder = args.exp or beside(args.model) / "svm"
    make_experiment_folder(folder)
    jobs = allowed_cores() if args.jobs is None else args.jobs
    results = evaluate(
        opened.model, splits["trainval"], splits["test"], layers=layers, compute=compute,
        costs=args.costs, shots=args.k, samples=args.samples, seed=args.seed, size=args.size,
        workers=args.workers, jobs=jobs, folder=folder, verbose=args.verbose,
    )  # fmt: skip
    computed = {"device": str(compute.device), "precision": compute.precision}
    computed |= {**opened.about, **reading.settings}
    settings = {**vars(args), **computed, "conv": layers, "exp": folder, "jobs": jobs}
    save_results(folder / "svm.json", __doc__ or "", settings, results)
    sys.stdout.write(f"{table(results)}\nwritten to {folder / 'svm.json'}\n")


def table(results: dict[str, Any]) -> str:
    """Results as lines of text, in percent."""
    layers, best = results["layers"], results["best_layer"]
    shots = list(layers[best]["low_shot"])
    heads = "".join(f"{f'k={k}':>7}" for k in shots)
    cost = "low-shot's cost" if shots else ""
    lines = ["mAP on VOC 2007 test, in percent", f"{'layer':8}{'SVM':>7}  {cost:18}{heads}"]

    def row(name: str, layer: str, svm: str, choice: str) -> str:
        chosen = [layers[layer]["low_shot"][k][choice] for k in shots]
        means = "".join("      –" if c is None else f"{100 * c['mean']:7.1f}" for c in chosen)
        words = choice.replace("_", " ") if shots else ""
        return f"{name:8}{svm:>7}  {words:18}{means}".rstrip()

    for name, layer in [*((layer, layer) for layer in layers), ("best", best)]:
        svm = f"{100 * layers[layer]['svm']['map']:.1f}"
        lines.append(row(name, layer, svm, "best_on_test"))
        if shots:
            lines.append(row("", layer, "", "chosen_on_trainval"))
    return "\n".join([*lines, f"best: {best}, by the SVM"])


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Linear SVMs and low-shot SVMs on VOC 2007, on frozen conv layers.",
        example="python eval_svm.py --vocdir VOCdevkit --model exp/001/checkpoint.pth.tar",
        details="docs/evaluation/svm.md",
    )
    add = parser.add_argument
    add_vocdir_flag(parser)
    flags.add_model(parser, MODEL_HELP)
    flags.add_key(parser)
    add_conv_flag(parser, "all")
    costs_help = "costs C of the SVMs to choose from"
    add("--costs", nargs="+", type=cli.positive_number, default=COSTS, help=costs_help)
    k_help = "positives per class in low-shot training; --k without numbers skips it"
    add("--k", nargs="*", type=cli.whole_number(1), default=SHOTS, help=k_help)
    add("--samples", type=cli.whole_number(1), default=5, help="low-shot samples for each k")
    flags.add_seed(parser)
    exp_help = "folder for the results, where a run resumes; left out: svm/ beside the model"
    flags.add_exp(parser, exp_help)
    flags.add_workers(parser)
    jobs_help = "processes that train SVMs, half a GB each; left out: one for each core"
    add("--jobs", type=cli.whole_number(1), help=jobs_help)
    flags.add_size(parser)
    add_max_pixels_flag(parser)
    add_reading_flags(parser)
    device.add_flags(parser)
    flags.add_verbose(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
