"""Fine-tuning of a whole network on labelled images, as DeeperCluster (Caron et al., ICCV 2019) was
evaluated on ImageNet.

The linear layers of the classifier get new weights N(0, 0.01) and biases 0.1; a new top layer has
PyTorch's initial weights. All layers train, batch norm included, its statistics over the images of
each process. With --sobel2rgb, the Sobel filters and the first convolution become one convolution
of RGB, which trains, too. SGD with momentum, weight decay and cross-entropy: rate 0.1, divided by
10 after 30, 60 and 90 of 100 epochs, weight decay 1e-4, batch 256. Training images are random
resized crops of 224, flipped at random. Val images are resized to 256 on the short side, and the
central 224 is classified. The last and the best epoch are reported. Sizes are for --size 224, and
scale with it; other numbers are the flags' defaults.
"""

import argparse
import copy
import sys
from collections.abc import Sequence
from pathlib import Path

import system.interrupt

import torch

from checkpoints.checkpoint import (
    model_of,
    network_entries,
    read_checkpoint,
    save_checkpoint,
    untrained_of,
)
from checkpoints.folder import results_folder
from data.decode import limit_pixels
from data.images import check_alike
from data.labelled import Labelled, find_train_and_val
from data.loading import add_max_pixels_flag
from data.reading import add_reading_flags, chosen_reading
from evaluation.finetuning import renew_classifier
from evaluation.linear_recipes import FINE_TUNING, add_flags, check_flags
from evaluation.linear_results import History, summary, table
from evaluation.linear_run import FINE_TUNED, Sets, Settings, key_of, run_epochs
from evaluation.whole import NETWORK, Whole
from models import ConvNet, check_size
from parallel import script
from parallel.collectives import rank, together, world_size
from system import cli, device, flags
from system.device import Compute, select_compute
from system.errors import InputError
from system.files import make_experiment_folder, remove_leftovers_of
from system.results import save_results

RESULTS = "finetune.json"


def evaluate(
    model: ConvNet,
    train: Labelled,
    val: Labelled,
    compute: Compute,
    settings: Settings,
    *,
    saved: Path | None = None,
    verbose: bool = False,
) -> tuple[ConvNet, History]:
    """Fine-tune a copy of a network.

    Args:
        saved: file from which an interrupted call resumes; made if missing.
        verbose: show progress and each epoch's results.

    Returns:
        The fine-tuned network, and for each epoch by `NETWORK` val's `top1` and `top5` (fractions
        of 1) and `loss`, and the `train_loss`.

    Raises:
        InputError: the loss is not finite.
    """
    key = key_of(model, [NETWORK], train, val, compute, settings)
    network = copy.deepcopy(model).cpu()  # so that the new weights are the same for every device
    renew_classifier(network, len(train.classes), settings.seed, with_top=False)
    network.to(compute.device).to(memory_format=torch.channels_last)
    whole = Whole(network, settings.size, compute)
    sets = Sets(train, val, compute, settings, verbose and rank() == 0)
    return network, run_epochs(network, whole, sets, key, saved, script.say)


def main(args: argparse.Namespace) -> None:
    """Check all input, then fine-tune."""
    with together():
        compute = select_compute(args.device, args.precision)
        check_flags(args)
        if compute.precision == "fp16":
            raise InputError("--precision fp16: has no loss scale here; give bf16 or fp32")
        checkpoint = read_checkpoint(args.model, args.network_key)
        networks = {"trained": model_of(checkpoint, args.model)}
        if args.untrained:
            networks["untrained"] = untrained_of(checkpoint, args.seed)
        for network in networks.values():
            if args.sobel2rgb:
                network.merge_sobel()
        check_size(networks["trained"].arch, args.size)
        limit_pixels(args.max_pixels)
        reading = chosen_reading(args, checkpoint.get("settings", {}), args.model)
        train, val = find_train_and_val(args.data, reading)
        exp = args.exp or results_folder(args.model, checkpoint, "finetune")
        make_experiment_folder(exp)
    check_alike(train.images)
    check_alike(val.images)
    given = {name: getattr(args, name) for name in Settings.__annotations__ if name in args}
    settings = Settings(protocol=FINE_TUNED, **given)
    script.say(
        f"{len(train.classes)} classes, {len(train.images)} images to train on, "
        f"{len(val.images)} to validate on\n"
    )
    histories = {}
    for name, network in networks.items():
        saved = exp / f"finetune_{name}.pth.tar"
        if rank() == 0:
            remove_leftovers_of(saved)
        script.say(f"{name} network:\n")
        tuned, histories[name] = evaluate(
            network, train, val, compute, settings, saved=saved, verbose=args.verbose
        )
        if rank() == 0:
            entries = {"settings": {"size": args.size, **reading.settings}}
            save_checkpoint(exp / f"network_{name}.pth.tar", network_entries(tuned) | entries)
    results = {name: summary(history) for name, history in histories.items()}
    if rank() == 0:
        used = {"device": str(compute.device), "precision": compute.precision, "exp": exp}
        used |= {"arch": checkpoint["arch"], "processes": world_size(), **reading.settings}
        used |= {"classes": len(train.classes), "train": len(train.images), "val": len(val.images)}
        save_results(exp / RESULTS, __doc__ or "", {**vars(args), **used}, results)
    script.say(f"{table(results)}\nwritten to {exp / RESULTS}\n")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Fine-tune a whole network on labelled images.",
        example="python eval_finetune.py --data /imagenet --model ours.pth --sobel2rgb --verbose",
        details="docs/evaluation/finetune.md",
    )
    flags.add_data(parser)
    flags.add_model(parser)
    flags.add_key(parser)
    flags.add_sobel2rgb(parser)
    exp_help = "folder for the results; left out: beside the checkpoint, named by its epoch"
    flags.add_exp(parser, exp_help)
    flags.add_workers(parser, Settings.workers, flags.READERS_OF_EACH)
    add_flags(parser, FINE_TUNING)
    flags.add_untrained(parser)
    add_max_pixels_flag(parser)
    add_reading_flags(parser)
    device.add_flags(parser)
    args = parser.parse_args(argv)
    args.steps = tuple(sorted(args.steps))
    return args


if __name__ == "__main__":
    sys.exit(script.run(main, parse_args))
