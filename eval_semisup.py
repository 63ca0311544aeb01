"""Fine-tuning of a whole network on all labelled images or some of them, by the names of
--protocol: as SwAV (Caron et al., NeurIPS 2020) was evaluated with 1 and 10 % of ImageNet's labels,
as VISSL does it, and as DeeperCluster (Caron et al., ICCV 2019) was evaluated with all.

The images to train on are all those of train, or with --percent a share of each class, drawn with
the seed and rounded, but at least one image, or with --subset those that a file lists. The network
gets a new top layer on its embedding, with PyTorch's initial weights. All layers train, with SGD,
momentum, cross-entropy and batch 256, batch norm included. With --sobel2rgb, the Sobel filters and
the first convolution become one convolution of RGB, which trains, too; else the Sobel filters stay.
Training images are random resized crops of 224, flipped at random. Val images are resized to 256 on
the short side, and the central 224 is classified. The last and the best epoch are reported. Sizes
are for --size 224, and scale with it; other numbers are the flags' defaults.

swav: the top layer has a learning rate of its own. With 1 % of the labels (rounded) the rate is
0.02, and 5 for the top layer; with 10 % it is 0.01, and 0.2 for the top layer. Other percentages
take the rates of the nearer one, as a ratio: of 10 % from 3.2 % on. Both are multiplied by 0.2
after 12 and 16 of 20 epochs. No weight decay. Batch norm has the statistics of the images of all
GPUs; on CPUs, of those of each process.

vissl: rate 0.05 for batch 256, proportional to the batch, divided by 10 after 30 of 70 epochs.
Nesterov's momentum; no weight decay. With 1 % of the labels (rounded) the last images of an epoch
that are less than a batch are left out, if they are not all. Batch norm has the statistics of the
images of each process; that is our choice, as VISSL's was not at hand.

deepercluster: the hidden layers of the network's classifier get new weights N(0, 0.01) and biases
0.1. Rate 0.1, divided by 10 after 30, 60 and 90 of 100 epochs; weight decay 1e-4. Batch norm has
the statistics of the images of each process.
"""

import argparse
import copy
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import system.interrupt

import torch

from checkpoints.checkpoint import network_entries, save_checkpoint
from checkpoints.folder import results_folder
from checkpoints.networks import MODEL_HELP, Opened, open_network
from data.decode import limit_pixels
from data.images import check_alike
from data.labelled import Labelled, find_train_and_val
from data.labels_csv import add_labels_flag
from data.loading import add_max_pixels_flag
from data.reading import add_reading_flags, chosen_reading
from data.subset import add_subset_flags, chosen_subset
from evaluation.finetuning import new_top_layer, renew_classifier
from evaluation.linear_recipes import add_flags, check_flags
from evaluation.linear_results import History, in_words, summary, table
from evaluation.linear_run import Sets, key_of, run_epochs
from evaluation.semisup import PROTOCOLS, FineTuning, settings_of
from evaluation.whole import NETWORK, Whole
from models import Network
from parallel import script
from parallel.collectives import rank, synchronised, together, world_size
from system import cli, device, flags
from system.device import Compute, select_compute
from system.errors import InputError
from system.files import make_experiment_folder, remove_leftovers_of
from system.results import save_results

RESULTS = "semisup.json"


def evaluate(
    model: Network,
    train: Labelled,
    val: Labelled,
    compute: Compute,
    settings: FineTuning,
    *,
    saved: Path | None = None,
    verbose: bool = False,
) -> tuple[Network, History]:
    """Fine-tune a copy of a network.

    Args:
        saved: file from which an interrupted call resumes; made if missing.
        verbose: show progress and each epoch's results.

    Returns:
        The fine-tuned network, and for each epoch by `NETWORK` val's `top1` and `top5` (fractions
        of 1) and `loss`, and the `train_loss`.

    Raises:
        InputError: the loss is not finite, or the file has more epochs.
    """
    key = key_of(model, [NETWORK], train, val, compute, settings) | {"images": len(train.images)}
    network = copy.deepcopy(model).cpu()  # so that the new weights are the same for every device
    if settings.recipe.new_hidden:
        renew_classifier(network, len(train.classes), settings.seed, with_top=False)
    else:
        new_top_layer(network, len(train.classes), settings.seed)
    network.to(compute.device).to(memory_format=torch.channels_last)
    if settings.sync_bn == "pytorch":
        network = synchronised(network, compute.device)
    whole = Whole(network, settings.size, compute)
    sets = Sets(train, val, compute, settings, verbose and rank() == 0, model.crop)
    history = run_epochs(network, whole, sets, key, saved, script.say)
    if len(history) > settings.epochs:
        raise InputError(
            f"--epochs {settings.epochs}: {saved} has {len(history)} epochs already; give "
            f"{len(history)} or more, or another --exp"
        )
    return network, history


def main(args: argparse.Namespace) -> None:
    """Check all input, then fine-tune."""
    with together():
        compute = select_compute(args.device, args.precision)
        check_flags(args)
        if compute.precision == "fp16":
            raise InputError("--precision fp16: has no loss scale here; give bf16 or fp32")
        if args.batch_size < (least := 2 * world_size()) and world_size() > 1:
            raise InputError(
                f"--batch_size {args.batch_size}: too small for {world_size()} processes; give "
                f"{least} or more (2 each)"
            )
        opened = open_network(args.model, args.network_key, args.size)
        networks = networks_of(opened, args)
        limit_pixels(args.max_pixels)
        reading = chosen_reading(args, opened.settings, args.model)
        of_all, val = find_train_and_val(args.data, reading, args.labels)
        train, percent = chosen_subset(args, of_all)
        settings, note = settings_of(args, percent)
        exp = args.exp or results_folder(args.model, opened.checkpoint, kind_of(args, percent))
        make_experiment_folder(exp)
    check_alike(train.images)
    check_alike(val.images)
    counts = f"{len(train.images)} of {len(of_all.images)} images to train on"
    script.say(f"{len(train.classes)} classes, {counts}, {len(val.images)} to validate on\n")
    script.say(f"note: {note}\n" if note else "")
    histories = {}
    for name, network in networks.items():
        saved = exp / f"semisup_{name}.pth.tar"
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
        used |= {**opened.about, "processes": world_size(), **reading.settings}
        used |= {"classes": len(train.classes), "train": len(train.images), "val": len(val.images)}
        used |= dataclasses.asdict(settings) | {"percent": percent}
        words = in_words(__doc__ or "", args.protocol, PROTOCOLS)
        save_results(exp / RESULTS, words, {**vars(args), **used}, results)
    script.say(f"{table(results)}\nwritten to {exp / RESULTS}\n")


def networks_of(opened: Opened, args: argparse.Namespace) -> dict[str, Network]:
    """The networks to fine-tune, by name.

    Raises:
        InputError: `--sobel2rgb` for a network without Sobel filters.
    """
    networks = {"trained": opened.model}
    if args.untrained:
        networks["untrained"] = opened.untrained(args.seed)
    for network in networks.values():
        if args.sobel2rgb:
            network.merge_sobel()
    return networks


def kind_of(args: argparse.Namespace, percent: float) -> str:
    """The protocol and the labels, for the name of the results' folder."""
    labels = f"{percent:g}percent" if args.subset is None else f"list_{args.subset.stem}"
    return f"semisup_{args.protocol}_{labels}"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Fine-tune a whole network on all labelled images or some of them.",
        example="python eval_semisup.py --data /imagenet --model exp/001/checkpoint.pth.tar "
        "--percent 1 --verbose",
        details="docs/evaluation/semisup.md",
    )
    add = parser.add_argument
    flags.add_data(parser)
    flags.add_model(parser, MODEL_HELP)
    flags.add_key(parser)
    protocol_help = "SwAV's protocol, VISSL's or DeeperCluster's; the defaults shown are SwAV's"
    add("--protocol", choices=list(PROTOCOLS), default="swav", help=protocol_help)
    add_subset_flags(parser)
    flags.add_sobel2rgb(parser)
    exp_help = "folder for the results; left out: beside the checkpoint, named by its epoch"
    flags.add_exp(parser, exp_help)
    flags.add_workers(parser, FineTuning.workers, flags.READERS_OF_EACH)
    recipe = PROTOCOLS["swav"]
    add_flags(parser, recipe, "multiplied by --gamma")
    top_help = "learning rate of the new top layer at the start; left out: the protocol's, or --lr"
    add("--lr_last_layer", type=cli.positive_number, help=top_help)
    gamma_help = "factor of the learning rates after each of --steps"
    add("--gamma", type=cli.positive_number, default=recipe.gamma, help=gamma_help)
    flags.add_sync_bn(parser, recipe.sync_bn)
    flags.add_untrained(parser)
    add_max_pixels_flag(parser)
    add_reading_flags(parser)
    add_labels_flag(parser)
    device.add_flags(parser)
    chosen = parser.parse_args(argv)
    parser.set_defaults(**PROTOCOLS[chosen.protocol].flags(chosen.batch_size))
    args = parser.parse_args(argv)
    args.steps = tuple(sorted(args.steps))
    return args


if __name__ == "__main__":
    sys.exit(script.run(main, parse_args))
