"""Logistic regression on the activations of frozen conv layers: the protocols of the paper (section
4.2, Table 1), of the model zoos (after Goyal et al., ICCV 2019), of SwAV (Caron et al., NeurIPS
2020) and of DeeperCluster (Caron et al., ICCV 2019), by the names of --protocol. The protocol
simple is that of `evaluation/linear_simple.py`.

The network is frozen, in eval mode. A layer's activations after the ReLU are average-pooled
(AlexNet: to 9600, 9216, 9600, 9600 and 9216 dimensions; ResNet-50, where layer 1 is the stem and 2
to 5 are the stages: to 9216, 9216, 8192, 9216 and 8192; the stages of VGG-16: to 9216, 8192, 9216,
8192 and 8192; other networks: to the square grid with 9,000 to 10,000 dimensions, or as close as
possible; avgpool: the last layer to one value for each channel). On them a linear classifier, with
initial weights N(0, 0.01) and biases 0, is trained with SGD, momentum, weight decay and
cross-entropy. Val images are resized to 256 on the short side, and the central 224 is classified;
with ten crops, the softmax is averaged. The loss is that of the central crop. The last and the best
epoch are reported. Sizes are for --size 224, and scale with it; other numbers below are the flags'
defaults.

paper: the rate is lr / sqrt(1 + lr * wd * t) after t iterations, lr 0.01, wd 1e-4, batch 256, 90
epochs. The short side of training images is resized to 256; they are cropped to the central 256,
then at random to 224, and flipped at random. The paper's tables have the best epoch.

modelzoo: before each classifier, batch norm without scale and shift, with each channel's statistics
over the pooled map and the batch of all processes. Nesterov's momentum; rate 0.01, divided by 10
after 30 and 60 of 90 epochs; weight decay 1e-4; batch 256. Training images, as for ImageNet, are
random resized crops of 224, flipped at random, with brightness, contrast and saturation changed by
up to 0.4, and shifted along the principal components of ImageNet's colours by N(0, 0.1) times the
eigenvalue, in whole grey levels.

modelzoo-places205: as modelzoo, but the rate is divided by 10 after 7, 14 and 21 of 28 epochs, and
training images are resized to 256 on the short side, cropped at random to 224 and flipped at
random.

modelzoo-inat18: as modelzoo, but the rate is divided by 10 after 24, 48 and 72 of 84 epochs.

modelzoo-avgpool: as modelzoo, but on avgpool alone, without batch norm, with plain momentum; rate
30, divided by 10 after 60 and 80 of 100 epochs; no weight decay. Training images are random resized
crops of 224, flipped at random.

swav: on avgpool alone, without batch norm. Rate 0.3 for batch 256, proportional to the batch; from
epoch to epoch it falls to 0 by half a cosine, over 100 epochs. Weight decay 1e-6. Training images
are random resized crops of 224, flipped at random. The published tables have the best epoch.

deepercluster: for the 13 conv layers of VGG-16. The rate falls with every iteration as in the
paper's protocol; at the start it is 0.005 for layer 1, 0.01 for 2, 0.03 for 3 to 6, 0.02 for 7,
0.03 for 8 to 10 and 0.02 for 11 to 13. Weight decay 1e-5, 100 epochs. Training images are random
resized crops of 224, flipped at random.

deepercluster-places205: as deepercluster, but the rate at the start is 0.003 for layer 1, 0.005 for
2, 0.01 for 3 to 9, 0.03 for 10, 0.01 for 11 and 12, and 0.02 for 13.

deepercluster-voc: as deepercluster, but on PASCAL VOC 2007, whose images show several of 20
classes: trained on trainval, tested on test (val above). Layer 13 alone, rate 0.02 at the start,
batch 128, 60 epochs. Loss: binary cross-entropy, summed over the classes that are not marked
difficult in the image, divided by the number of images. An image's score for a class is the logit
of the central crop, as the release scores its linear probes (ten random crops are for its
fine-tuning); with ten crops, their mean logit. AP: mean over the images that show the class of the
precision down to each one's rank, among all images where it is not marked difficult; ties count
against the network. mAP: mean over the classes; it decides on the best epoch.

simple: see evaluation/linear_simple.py.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import system.interrupt

import torch

from checkpoints.folder import kept_features, results_folder
from checkpoints.networks import MODEL_HELP, open_network
from data.decode import limit_pixels
from data.images import check_alike
from data.labelled import Labelled, find_train_and_val
from data.labels_csv import add_labels_flag
from data.levels import warn_of_lost_levels
from data.loading import add_max_pixels_flag
from data.reading import Reading, add_reading_flags, chosen_reading
from data.voc import find_voc
from evaluation import linear as probe
from evaluation import linear_simple
from evaluation.linear_recipes import RECIPES, add_flags
from evaluation.linear_recipes import check_flags as check_training
from evaluation.linear_results import History, in_words, summary, table
from evaluation.linear_run import Sets, Settings, key_of, run_epochs
from evaluation.linear_simple import SIMPLE, WITHOUT, check_simple
from evaluation.multilabel import check_classes
from features.kept import Pass
from models import Network
from models.frozen import frozen
from models.layers import AVGPOOL, Layer, add_conv_flag, layers_or_avgpool, name_of
from parallel import script
from parallel.collectives import rank, together, world_size
from system import cli, device, flags
from system.device import Compute, select_compute
from system.errors import InputError
from system.files import make_experiment_folder, remove_leftovers_of
from system.kept import Store
from system.results import save_results

RESULTS = "linear.json"
PROTOCOLS = [*RECIPES, SIMPLE]


def evaluate(
    model: Network,
    layers: Sequence[Layer],
    train: Labelled,
    val: Labelled,
    compute: Compute,
    settings: Settings,
    *,
    saved: Path | None = None,
    verbose: bool = False,
) -> History:
    """Train a classifier on each given layer, all at once.

    Args:
        layers: conv layers, 1 for the first, and `AVGPOOL`.
        saved: file from which an interrupted call resumes; made if missing.
        verbose: show progress and each epoch's results.

    Returns:
        For each epoch, by layer, val's `loss`, its `top1` and `top5`, or with several labels of an
        image `mAP` and `AP` by class (fractions of 1), and the `train_loss`.

    Raises:
        InputError: a loss is not finite.
    """
    if saved is not None and rank() == 0:
        remove_leftovers_of(saved)
    model.to(compute.device).to(memory_format=torch.channels_last)
    with frozen(model):
        heads = probe.Heads(
            model, layers, len(train.classes), settings.size, settings.seed,
            settings.recipe.normalised,
        )  # fmt: skip
        heads.to(compute.device)
        key = key_of(model, layers, train, val, compute, settings)
        script.say(describe_data(train, val, heads))
        sets = Sets(train, val, compute, settings, verbose and rank() == 0, model.crop)
        return run_epochs(model, heads, sets, key, saved, script.say)[: settings.epochs]


def main(args: argparse.Namespace) -> None:
    """Check all input, then evaluate."""
    simple = args.protocol == SIMPLE
    with together():
        compute = select_compute(args.device, args.precision)
        check_flags(args)
        opened = open_network(args.model, args.network_key, args.size)
        model, size = opened.model, opened.size
        layers = [] if simple else layers_or_avgpool(model, args.conv)
        limit_pixels(args.max_pixels)
        reading = chosen_reading(args, opened.settings, args.model)
        train, val = find_data(args.data, args.protocol, reading, args.labels)
        if not simple:
            given = {field: getattr(args, field) for field in Settings.__annotations__}
            settings = Settings(**given)
            settings.check_layers(model, layers)
        kind = "linear" if args.protocol == "paper" else f"linear_{args.protocol}"
        exp = args.exp or results_folder(args.model, opened.checkpoint, kind)
        make_experiment_folder(exp)
    check_alike(train.images)
    check_alike(val.images)
    networks = {"trained": model}
    if args.untrained:
        networks["untrained"] = opened.untrained(args.seed)
    used = {"device": str(compute.device), "precision": compute.precision, "exp": exp, "size": size}
    used |= {"processes": world_size(), **opened.about, **reading.settings}
    used |= {"classes": len(train.classes), "train": len(train.images), "val": len(val.images)}
    results = {}
    if simple:
        store, shown = Store(kept_features(args.model, args.exp)), args.verbose and rank() == 0
        by = Pass(size, compute, args.batch_size, args.workers, store, shown)
        for name, network in networks.items():
            results[name] = linear_simple.evaluate(network, train, val, by, args.seed)
    else:
        used["conv"] = layers
        used["rates"] = {name_of(layer): settings.rate_of(layer) for layer in layers}
        for name, network in networks.items():
            script.say(f"{name} network:\n")
            saved = exp / f"linear_{name}.pth.tar"
            history = evaluate(
                network, layers, train, val, compute, settings, saved=saved, verbose=args.verbose
            )
            results[name] = summary(history)
    if rank() == 0:
        described = (linear_simple if simple else sys.modules[__name__]).__doc__ or ""
        words = in_words(described, args.protocol, PROTOCOLS)
        save_results(exp / RESULTS, words, {**vars(args), **used}, results)
        lines = linear_simple.table(results) if simple else table(results)
        script.say(f"{lines}\nwritten to {exp / RESULTS}\n")


def find_data(
    data: Path, protocol: str, reading: Reading, labels: Path | None
) -> tuple[Labelled, Labelled]:
    """The images to train on and to validate on: of VOC 2007, trainval and test.

    Raises:
        InputError: they are missing or malformed.
    """
    if protocol == SIMPLE or not RECIPES[protocol].voc:
        return find_train_and_val(data, reading, labels)
    if labels is not None:
        raise InputError(f"--labels {labels}: --protocol {protocol} has those of VOC; leave it out")
    train, val = (find_voc(data, split, reading) for split in ("trainval", "test"))
    check_classes(train, "trained on")
    check_classes(val, "tested on")
    warn_of_lost_levels(train.images)
    return train.labelled(), val.labelled()


def check_flags(args: argparse.Namespace) -> None:
    """Check flags against each other.

    Raises:
        InputError: naming the flag, its value and what would be right.
    """
    check_training(args)
    if args.protocol == SIMPLE:
        check_simple(args)
        return
    recipe = RECIPES[args.protocol]
    if recipe.steps is None and not recipe.cosine and args.steps is not None:
        raise InputError(
            f"--steps {' '.join(map(str, args.steps))}: the rate of --protocol {args.protocol} "
            "falls with every iteration; give --protocol modelzoo, or no --steps"
        )


def describe_data(train: Labelled, val: Labelled, heads: probe.Heads) -> str:
    """The data sets and the classifiers' input, as lines of text."""
    lines = [
        f"{len(train.classes)} classes ({', '.join(train.classes[:3])} …), {len(train.images)} "
        f"images to train on, {len(val.images)} to validate on"
    ]
    for layer, dims in heads.dimensions.items():
        lines.append(f"{name_of(layer)}: {dims} dimensions, {heads.pools[layer]}")
    return "\n".join(lines) + "\n"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Train linear classifiers on the layers of a frozen network.",
        example="python eval_linear.py --data /imagenet --model exp/001/checkpoint.pth.tar "
        "--conv all --verbose",
        details="docs/evaluation/linear.md",
    )
    add = parser.add_argument
    flags.add_data(parser)
    flags.add_model(parser, MODEL_HELP)
    flags.add_key(parser)
    protocol_help = (
        "the paper's protocol, a model zoo's, SwAV's or DeeperCluster's (deepercluster-voc: --data "
        "is VOCdevkit/VOC2007, or a folder that contains it), or simple: logistic regression on "
        "the embeddings, at the training's --size; the defaults shown are the paper's"
    )
    add("--protocol", choices=PROTOCOLS, default="paper", help=protocol_help)
    conv_help = (
        "layers to classify: conv layers from 1 on, or all, and "
        f"{AVGPOOL}, the last one's average; several cost little more than one"
    )
    add_conv_flag(parser, "all", conv_help)
    add("--tencrops", action="store_true", help="classify val images by the mean of ten crops")
    exp_help = "folder for the results; left out: beside the checkpoint, named by its epoch"
    flags.add_exp(parser, exp_help)
    flags.add_workers(parser, Settings.workers, flags.READERS_OF_EACH)
    add_flags(parser, RECIPES["paper"], "divided by ten")
    flags.add_untrained(parser)
    add_max_pixels_flag(parser)
    add_reading_flags(parser)
    add_labels_flag(parser)
    device.add_flags(parser)
    chosen = parser.parse_args(argv)
    if chosen.protocol == SIMPLE:
        parser.set_defaults(size=None, **dict.fromkeys(WITHOUT))
    else:
        parser.set_defaults(**RECIPES[chosen.protocol].flags(chosen.batch_size))
    args = parser.parse_args(argv)
    if args.steps is not None:
        args.steps = tuple(sorted(args.steps))
    return args


if __name__ == "__main__":
    sys.exit(script.run(main, parse_args))
