"""Logistic regression on the activations of frozen conv layers (paper, section 4.2, Table 1).

Protocol. The network is in eval mode and does not change. A layer's activations after the ReLU are
average-pooled (AlexNet: to 9600, 9216, 9600, 9600 and 9216 dimensions; other networks: to the
square grid that comes nearest to 9,000 to 10,000), and a linear classifier, which begins with
weights N(0, 0.01) and biases 0, is trained on them with SGD, momentum, weight decay and the
cross-entropy, at the rate lr / sqrt(1 + lr * wd * t) after t iterations. Training
images have their short side resized to 256 and are cropped to the central 256, then at random to
224, and flipped at random. Val images are resized to 256; their central 224 is classified, or with
ten crops the mean of the softmax. The loss is the central crop's. The last and the best epoch are
reported; the paper's tables have the best. The sizes are those of --size 224, and scale with it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import cli
import device
import probe
from checkpoint import model_of, read_checkpoint
from data.labelled import Labelled, find_train_and_val
from device import Compute, select_compute
from distributed import process_group, rank, together, world_size
from errors import InputError
from experiment import folder_of
from files import make_experiment_folder, remove_leftovers_of
from models import ConvNet, check_size, untrained
from models.frozen import frozen
from models.pooling import layers_of
from probe_run import History, Sets, Settings, go_on, key_of, run_epoch, save
from results import save_results

RESULTS = "linear.json"


def evaluate(
    model: ConvNet,
    layers: Sequence[int],
    train: Labelled,
    val: Labelled,
    compute: Compute,
    settings: Settings,
    *,
    saved: Path | None = None,
    verbose: bool = False,
) -> History:
    """Train a classifier on each of some conv layers, all at once.

    Args:
        layers: 1 for the first.
        saved: a file that keeps what an interrupted call has done, for the same call to go on from.
        verbose: show progress and what each epoch came to.

    Returns:
        For each epoch, by layer, val's `top1` and `top5` (fractions of 1) and `loss`, and the
        `train_loss`.

    Raises:
        InputError: a loss is not finite.
    """
    model.to(compute.device).to(memory_format=torch.channels_last)
    with frozen(model):
        heads = probe.Heads(model, layers, len(train.classes), settings.size, settings.seed)
        heads.to(compute.device)
        optimizer = torch.optim.SGD(
            heads.parameters(),
            settings.lr,
            settings.momentum,
            weight_decay=10**settings.wd,
            fused=True,
        )
        key = key_of(model, layers, train, val, compute, settings)
        history = go_on(saved, key, heads, optimizer)
        if rank() == 0:
            sys.stdout.write(describe_data(train, val, heads))
            if history:
                sys.stdout.write(f"going on after epoch {len(history) - 1}, from {saved}\n")
        sets = Sets(train, val, compute, settings, verbose and rank() == 0)
        while len(history) < settings.epochs:
            history.append(run_epoch(len(history), model, heads, optimizer, sets))
            if saved is not None and rank() == 0:
                save(saved, key, heads, optimizer, history)
            if verbose and rank() == 0:
                sys.stdout.write(describe(history))
                sys.stdout.flush()
    return history[: settings.epochs]


def main(args: argparse.Namespace) -> None:
    with process_group(args.device):
        run(args)


def run(args: argparse.Namespace) -> None:
    """Check everything that can be checked, then evaluate."""
    with together():
        compute = select_compute(args.device, args.precision)
        if args.wd > 0:
            raise InputError(f"--wd {args.wd:g}: is a power of ten; give -4 for 1e-4")
        checkpoint = read_checkpoint(args.model)
        model = model_of(checkpoint, args.model)
        layers = layers_of(model, args.conv)
        check_size(model.arch, args.size)
        train, val = find_train_and_val(args.data)
        settings = Settings(**{field: getattr(args, field) for field in Settings.__annotations__})
        exp = args.exp or default_folder(args.model, checkpoint)
        make_experiment_folder(exp)
    networks = {"trained": model}
    if args.untrained:
        seed = checkpoint.get("settings", {}).get("seed", args.seed)
        networks["untrained"] = untrained(model.arch, model.sobel is not None, 2, seed)
    histories = {}
    for name, network in networks.items():
        saved = exp / f"linear_{name}.pth.tar"
        if rank() == 0:
            remove_leftovers_of(saved)
            sys.stdout.write(f"{name} network:\n")
        histories[name] = evaluate(
            network, layers, train, val, compute, settings, saved=saved, verbose=args.verbose
        )
    if rank() == 0:
        used = {"device": str(compute.device), "precision": compute.precision, "exp": exp}
        used |= {"arch": model.arch, "conv": layers, "processes": world_size()}
        used |= {"classes": len(train.classes), "train": len(train.images), "val": len(val.images)}
        results = {name: summary(history) for name, history in histories.items()}
        save_results(exp / RESULTS, __doc__ or "", {**vars(args), **used}, results)
        sys.stdout.write(f"{table(results)}\nwritten to {exp / RESULTS}\n")


def default_folder(path: Path, checkpoint: dict[str, Any]) -> Path:
    """Where the results of a checkpoint go: beside it, one folder for each epoch of a network."""
    name = path.name.split(".")[0]
    of = f"epoch_{checkpoint.get('epoch')}" if name == "checkpoint" else name
    return folder_of(path) / f"linear_{of}"


def describe_data(train: Labelled, val: Labelled, heads: probe.Heads) -> str:
    """What is looked at, and what the classifiers see of it, in lines."""
    lines = [
        f"{len(train.classes)} classes ({', '.join(train.classes[:3])} …), {len(train.images)} "
        f"images to train on, {len(val.images)} to validate on"
    ]
    for layer, dims in heads.dimensions.items():
        lines.append(f"conv{layer}: {dims} dimensions, {heads.pools[layer]}")
    return "\n".join(lines) + "\n"


def summary(history: History) -> dict[str, Any]:
    """By layer: the last epoch, the best one, and all of them."""
    best = probe.best_epochs(history)
    return {
        f"conv{layer}": {
            "last": history[-1][layer],
            "best": {"epoch": best[layer], **history[best[layer]][layer]},
            "epochs": [epoch[layer] for epoch in history],
        }
        for layer in history[0]
    }


def describe(history: History) -> str:
    """The last epoch, a line for each layer."""
    return "".join(
        f"epoch {len(history) - 1}, conv{layer}: train loss {found['train_loss']:.4f}, "
        f"val loss {found['loss']:.4f}, top-1 {found['top1']:.2%}, top-5 {found['top5']:.2%}\n"
        for layer, found in history[-1].items()
    )


def table(results: dict[str, dict[str, Any]]) -> str:
    """A line for each layer and network, in percent."""
    lines = [
        f"{'layer':8}{'network':12}{'best top-1':>11}{'top-5':>8}{'epoch':>7}{'last top-1':>12}"
    ]
    for layer in next(iter(results.values())):
        for name, by_layer in results.items():
            best, last = by_layer[layer]["best"], by_layer[layer]["last"]
            lines.append(
                f"{layer:8}{name:12}{100 * best['top1']:11.2f}{100 * best['top5']:8.2f}"
                f"{best['epoch']:7}{100 * last['top1']:12.2f}"
            )
    return "\n".join(lines)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Train linear classifiers on the conv layers of a frozen network.",
        epilog="Example: python eval_linear.py --data /imagenet --model exp/001/checkpoint.pth.tar "
        "--conv all --verbose",
    )
    add = parser.add_argument
    data_help = "folder with train/ and val/, a folder for each class in both, or Tiny-ImageNet's"
    add("--data", type=Path, required=True, help=data_help)
    add("--model", type=Path, required=True, help="checkpoint of the network")
    conv_help = "conv layers to put a classifier on, from 1 on, or all; several cost little more"
    add("--conv", nargs="+", default=["all"], metavar="LAYER", help=conv_help)
    add("--tencrops", action="store_true", help="classify val images by the mean of ten crops")
    exp_help = "folder for the results; left out: one beside the checkpoint, by its epoch"
    add("--exp", type=Path, help=exp_help)
    workers_help = "processes that read images, for each process that trains"
    add("--workers", type=cli.whole_number(0), default=Settings.workers, help=workers_help)
    add("--epochs", type=cli.whole_number(1), default=Settings.epochs, help="number of epochs")
    batch_help = "mini-batch size over all devices"
    add("--batch_size", type=cli.whole_number(1), default=Settings.batch_size, help=batch_help)
    add("--lr", type=cli.positive_number, default=Settings.lr, help="learning rate at the start")
    add("--momentum", type=cli.fraction, default=Settings.momentum, help="momentum of SGD")
    wd_help = "weight decay, as a power of ten"
    add("--weight_decay", "--wd", type=cli.number, default=Settings.wd, dest="wd", help=wd_help)
    add("--seed", type=cli.whole_number(0), default=Settings.seed, help="random seed")
    add("--verbose", action="store_true", help="show progress and each epoch's accuracy")
    size_help = "side of the input in pixels; 256 and 224 in the protocol scale with it"
    add("--size", type=cli.whole_number(1), default=Settings.size, help=size_help)
    untrained_help = "also evaluate the network as it was before training, to compare"
    add("--untrained", action="store_true", help=untrained_help)
    device.add_flags(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
