"""Classification of val images by their nearest neighbours among the train images, on the embedding
of a frozen network.

The short side of each image is resized to 256/224 of --size; the central crop goes through the
network in eval mode. The embedding, in half precision and L2-normalised, is the last hidden layer
before its ReLU, or the global average pool of a residual network; it is not whitened
(`tools.eval_quick` shows both views). Each of the k nearest train images by cosine similarity votes
for its class with the weight exp(similarity / 0.07), and the class with the most votes wins (after
Wu et al., CVPR 2018). Figures are top-1 accuracies, as fractions of 1. A val image that cannot be
read counts as a mistake.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

import system.interrupt

from checkpoints.folder import kept_features, results_folder
from checkpoints.networks import MODEL_HELP, open_network
from data.decode import limit_pixels
from data.images import check_alike
from data.labelled import Labelled, find_train_and_val
from data.labels_csv import add_labels_flag
from data.loading import add_max_pixels_flag
from data.reading import add_reading_flags, chosen_reading
from evaluation.embedded import rows_of_share
from evaluation.knn import NEIGHBOURS, knn_accuracy
from features.kept import Pass
from features.network import add_size_flag
from models import Network
from models.frozen import frozen
from parallel import script
from parallel.collectives import gather_rows, rank, together, world_size
from system import cli, device, flags
from system.device import select_compute
from system.files import make_experiment_folder
from system.kept import Store
from system.results import save_results

RESULTS = "knn.json"
QUERIES = 10_000  # at a time; their similarities to a block of train images take about 700 MB


def evaluate(
    model: Network, train: Labelled, val: Labelled, by: Pass, neighbours: Sequence[int] = NEIGHBOURS
) -> dict[int, float]:
    """Top-1 accuracy on val, a fraction of 1, by the number of neighbours (see `knn_accuracy`).

    Raises:
        InputError: too many images cannot be read.
    """
    with frozen(model):
        rows, labels = rows_of_share(model, by, train, "train", "compare with")
        queries, truth = rows_of_share(model, by, val, "val", "classify")
    queries, truth = gather_rows(queries), gather_rows(truth)
    right: Counter[int] = Counter()
    for start in range(0, len(queries), QUERIES):
        part = slice(start, start + QUERIES)
        found = knn_accuracy(
            rows, labels, queries[part], truth[part], neighbours, device=by.compute.device
        )
        for count, accuracy in found.items():
            right[count] += round(accuracy * len(truth[part]))
    return {count: hits / len(val.images) for count, hits in right.items()}


def main(args: argparse.Namespace) -> None:
    """Check all input, then evaluate."""
    with together():
        compute = select_compute(args.device, args.precision)
        opened = open_network(args.model, args.network_key, args.size)
        networks = {"trained": opened.model}
        limit_pixels(args.max_pixels)
        reading = chosen_reading(args, opened.settings, args.model)
        train, val = find_train_and_val(args.data, reading, args.labels)
        exp = args.exp or results_folder(args.model, opened.checkpoint, "knn")
        make_experiment_folder(exp)
    check_alike(train.images)
    check_alike(val.images)
    if args.untrained:
        networks["untrained"] = opened.untrained(args.seed)
    store = Store(kept_features(args.model, args.exp))
    by = Pass(opened.size, compute, args.batch, args.workers, store, args.verbose and rank() == 0)
    neighbours = sorted(set(args.k))
    results = {}
    for name, network in networks.items():
        found = evaluate(network, train, val, by, neighbours)
        results[name] = {str(count): accuracy for count, accuracy in found.items()}
    if rank() == 0:
        used = {"device": str(compute.device), "precision": compute.precision, "exp": exp}
        used |= {**opened.about, "size": opened.size, "k": [*found], "processes": world_size()}
        used |= reading.settings
        used |= {"classes": len(train.classes), "train": len(train.images), "val": len(val.images)}
        save_results(exp / RESULTS, __doc__ or "", {**vars(args), **used}, results)
        sys.stdout.write(f"{table(results)}\nwritten to {exp / RESULTS}\n")


def table(results: dict[str, dict[str, float]]) -> str:
    """A line for each network, in percent."""
    counts = next(iter(results.values()))
    lines = [f"{'network':12}" + "".join(f"{f'k={count}':>8}" for count in counts)]
    for name, found in results.items():
        lines.append(f"{name:12}" + "".join(f"{100 * found[count]:8.2f}" for count in counts))
    return "\n".join(lines)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Classify val images by their nearest neighbours among the train images.",
        example="python eval_knn.py --data /imagenet --model exp/001/checkpoint.pth.tar",
        details="docs/evaluation/knn.md",
    )
    add = parser.add_argument
    flags.add_data(parser)
    flags.add_model(parser, MODEL_HELP)
    flags.add_key(parser)
    k_help = "numbers of neighbours; above the number of images, all of them vote"
    add("--k", nargs="+", type=cli.whole_number(1), default=NEIGHBOURS, help=k_help)
    flags.add_untrained(parser)
    flags.add_seed(parser, "of the untrained network, if the checkpoint has none")
    exp_help = "folder for the results; left out: beside the checkpoint, named by its epoch"
    flags.add_exp(parser, exp_help)
    add_size_flag(parser)
    flags.add_batch(parser, 256, "images at a time, in each process")
    flags.add_workers(parser, help=flags.READERS_OF_EACH)
    flags.add_verbose(parser)
    add_max_pixels_flag(parser)
    add_reading_flags(parser)
    add_labels_flag(parser)
    device.add_flags(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(script.run(main, parse_args))
