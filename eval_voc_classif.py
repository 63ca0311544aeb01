"""PASCAL VOC 2007 classification (the paper's Table 3): train a new classifier on a network, or
fine-tune the whole network; mean average precision over the 20 classes.

`evaluation.voc.in_words` describes the protocol. For reference, the released AlexNet reaches 72.0
mAP when the classifier and batch norm's scales train, and 70.4 with frozen scales.
"""

import argparse
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import system.interrupt

import numpy as np
import torch
from torch import Tensor

from checkpoints.checkpoint import digest_of, model_of, read_checkpoint
from checkpoints.folder import folder_of
from data.decode import limit_pixels
from data.levels import warn_of_lost_levels
from data.loading import (
    ImageDataset,
    add_max_pixels_flag,
    load_in_order,
)
from data.reading import add_reading_flags, chosen_reading
from data.transforms import object_crops, ten_crops
from data.unreadable import RaiseUnreadable
from data.voc import CLASSES, VocSplit, add_vocdir_flag, find_voc
from evaluation.finetuning import begin, class_scores, fine_tune, trained_parameters
from evaluation.multilabel import average_precisions, check_classes
from evaluation.voc import CROPS, TESTED_ON, Settings, add_settings, in_words, parse, settings_of
from features.forward import forward_pass, raise_on_infinite
from models import ConvNet, check_size
from models.frozen import check_unchanged
from system import cli, device, flags
from system.device import Compute, select_compute
from system.errors import InputError
from system.files import make_experiment_folder, remove_leftovers_of
from system.progress import progress
from system.results import save_results


def evaluate(
    model: ConvNet,
    train: VocSplit,
    test: VocSplit,
    settings: Settings,
    seeds: Sequence[int] = (31,),
    *,
    compute: Compute,
    workers: int = 4,
    folder: Path | None = None,
    verbose: bool = False,
) -> dict[str, Any]:
    """Fine-tune a copy of a network for each seed.

    Args:
        train, test: the split to train on, and the split to test on.
        folder: for the state of the runs, from which an interrupted call resumes.

    Returns:
        The names of the `trained` parameters. For `train` and `test` the `mAP` and by class the
        `AP` (fractions of 1), means over the seeds, with the standard deviations `mAP_std` and
        `AP_std` (None for one seed). The same for each of the `runs`, with its mean `loss` at each
        learning rate.

    Raises:
        InputError: the network has no classifier, an image cannot be decoded, no image shows a
            class, the loss is not finite, or the folder has another run's state.
    """
    check_classes(train, "trained on")
    check_classes(test, "tested on")
    trained = trained_parameters(model, not settings.fc6_8, settings.train_batchnorm)
    runs = [
        _run(model, train, test, settings, seed, compute, workers, folder, verbose)
        for seed in seeds
    ]
    return {
        "trained": trained,
        "train": _summary([run["train"] for run in runs]),
        "test": _summary([run["test"] for run in runs]),
        "runs": runs,
    }


def _run(
    model: ConvNet,
    train: VocSplit,
    test: VocSplit,
    settings: Settings,
    seed: int,
    compute: Compute,
    workers: int,
    folder: Path | None,
    verbose: bool,
) -> dict[str, Any]:
    """Fine-tune with one seed, and test; resumes from the folder's file."""
    identity = {**settings.key, "seed": seed, "precision": compute.precision}
    identity |= train.images.reading.key
    identity["weights of SHA-256"] = digest_of(model)[:12]
    identity["images and labels of SHA-256"] = f"{train.digest[:12]}, {test.digest[:12]}"
    path = None if folder is None else folder / f"seed_{seed}.pth.tar"
    run = begin(model, settings, seed, compute)
    if path is not None:
        remove_leftovers_of(path)
    if path is not None and path.exists():
        run.load(path, identity)
        if verbose and run.results is None:
            sys.stdout.write(f"resuming from iteration {run.iteration:,}, from {path}\n")
    if run.results is not None:
        return run.results

    def save() -> None:
        if path is not None:
            run.save(path, identity)

    left = settings.nit - run.iteration
    with progress(f"training, seed {seed}", left, "iterations", verbose) as advance:
        fine_tune(run, train, settings, seed, compute, workers, save, advance)
    trained = {name for name, p in run.network.named_parameters() if p.requires_grad}
    frozen = {name: t for name, t in model.state_dict().items() if name not in trained}
    check_unchanged(run.network, frozen)
    save()
    results: dict[str, Any] = {"seed": seed, "loss": run.losses(settings)}
    for name, split in (("train", train), ("test", test)):
        with progress(f"scores of {name}", len(split.images), "images", verbose) as advance:
            scores = score_images(run.network, split, settings, seed, compute, workers, advance)
        results[name] = average_precisions(scores, split.targets)
    run.results = results
    save()
    return results


@torch.inference_mode()
def score_images(
    network: ConvNet,
    voc: VocSplit,
    settings: Settings,
    seed: int,
    compute: Compute,
    workers: int = 4,
    advance: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """The network's logits `(N, 20) float32`, summed over ten crops of each image.

    Raises:
        InputError: an image cannot be decoded, or its scores are not finite.
    """
    size, least, most = settings.size, settings.min_scale, settings.max_scale
    random = settings.eval_random_crops
    crops = object_crops(size, least, most, CROPS, settings.aspect) if random else ten_crops(size)
    dataset = ImageDataset(voc.images, crops, seed)
    # epoch 0 is training, with other crops
    loader = load_in_order(dataset, settings.batch, workers, compute.device, epoch=1)

    def forward(x: Tensor) -> Tensor:
        return class_scores(network, x).unflatten(0, (-1, CROPS)).sum(dim=1)

    network.eval()
    scores = np.empty((len(voc.images), len(CLASSES)), np.float32)
    for index, found, _ in forward_pass(
        loader, forward, network.std, compute, RaiseUnreadable(voc.images), advance, torch.float32,
        raise_on_infinite(voc.images),
    ):  # fmt: skip
        scores[index] = found
    return scores


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the runs, and standard deviations where there are several."""

    def deviation(values: list[float]) -> float | None:
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    means = [run["mAP"] for run in runs]
    by_class = {name: [run["AP"][name] for run in runs] for name in CLASSES}
    return {
        "mAP": float(np.mean(means)),
        "mAP_std": deviation(means),
        "AP": {name: float(np.mean(values)) for name, values in by_class.items()},
        "AP_std": {name: deviation(values) for name, values in by_class.items()},
    }


def main(args: argparse.Namespace) -> None:
    compute = select_compute(args.device, args.precision)
    settings = settings_of(args)
    if len(set(args.seeds)) < len(args.seeds):
        raise InputError(f"--seeds {' '.join(map(str, args.seeds))}: one is given twice")
    limit_pixels(args.max_pixels)
    checkpoint = read_checkpoint(args.model, args.network_key)
    model = model_of(checkpoint, args.model)
    if settings.sobel2rgb:
        model.merge_sobel()
    reading = chosen_reading(args, checkpoint.get("settings", {}), args.model)
    train, test = (find_voc(args.vocdir, s, reading) for s in (args.split, TESTED_ON[args.split]))
    warn_of_lost_levels(train.images)
    check_size(model.arch, args.size)
    sys.stdout.write(describe_training(model, settings) + "\n")
    part = "fc6_8" if args.fc6_8 else "all"
    part = part if args.protocol == "paper" else f"{args.protocol}_{part}"
    folder = args.exp or folder_of(args.model) / f"voc_{part}_{args.split}"
    make_experiment_folder(folder)
    results = evaluate(
        model, train, test, settings, args.seeds,
        compute=compute, workers=args.workers, folder=folder, verbose=True,
    )  # fmt: skip
    used = {"exp": folder, "device": str(compute.device), "precision": compute.precision}
    used |= reading.settings
    out = folder / "voc_classif.json"
    save_results(out, in_words(settings, args.split), {**vars(args), **used}, results)
    sys.stdout.write(table(results, args.split) + f"\nwritten to {out}\n")


def describe_training(model: ConvNet, settings: Settings) -> str:
    """The trained and the frozen parameters, as lines of text."""
    trained = trained_parameters(model, not settings.fc6_8, settings.train_batchnorm)
    below = [n for n, _ in model.named_parameters() if not n.startswith("top_layer.")]
    frozen = [*(n for n in below if n not in trained), "batch norm's statistics"]
    lines = f"trained: {', '.join(trained)}", f"frozen: {', '.join(frozen)}"
    return "\n".join(textwrap.fill(line, 100, subsequent_indent="  ") for line in lines)


def table(results: dict[str, Any], split: str) -> str:
    """Average precisions in percent as lines of text."""
    lines = [f"{'AP in percent':16}{split:>14}{TESTED_ON[split]:>14}"]
    columns = results["train"], results["test"]
    for name in CLASSES:
        cells = [_cell(column["AP"][name], column["AP_std"][name]) for column in columns]
        lines.append(f"{name:16}{cells[0]:>14}{cells[1]:>14}")
    cells = [_cell(column["mAP"], column["mAP_std"]) for column in columns]
    return "\n".join([*lines, f"{'mean':16}{cells[0]:>14}{cells[1]:>14}"])


def _cell(mean: float, deviation: float | None) -> str:
    spread = "" if deviation is None else f" ± {100 * deviation:.1f}"
    return f"{100 * mean:.1f}{spread}"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The original's flags, then ours."""
    parser = cli.Parser(
        description="Train a network's classifier on VOC 2007, or the whole network.",
        example="python eval_voc_classif.py --vocdir VOCdevkit --model exp/001/checkpoint.pth.tar",
        details="docs/evaluation/voc.md",
    )
    add_vocdir_flag(parser)
    split_help = "split to train on; train is tested on val, trainval on test"
    parser.add_argument("--split", choices=list(TESTED_ON), default="train", help=split_help)
    flags.add_model(parser)
    flags.add_key(parser)
    add_settings(parser)
    seeds_help = "random seeds; several: a run for each, their mean and standard deviation"
    flags.add_seeds(parser, seeds_help)
    exp_help = "folder for the results, where a run resumes; left out: beside the checkpoint"
    flags.add_exp(parser, exp_help)
    flags.add_workers(parser)
    add_max_pixels_flag(parser)
    add_reading_flags(parser)
    device.add_flags(parser)
    return parse(parser, argv)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
