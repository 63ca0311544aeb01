"""Clusters of a folder of pictures by a frozen network, and a folder with all that is found.

Each picture goes through the network once, in its own view; the embedding is L2-normalised, or with
--dim_pca whitened, and clustered by k-means or PIC. No network is trained. The folder of --out has

clusters.csv (path, cluster, distance to the centroid, label where there is one); clusters.parquet
(the same, and the place on the map and the thumbnail); report.html (the clusters, duplicates and
outliers); map.html (all pictures in two dimensions, by t-SNE); duplicates.csv (exact copies, and
near duplicates within --near, the best of each group first); outliers.csv (ranks of the distances
to the centroid and to the nearest neighbours, the most unlike first); clusters.pth (the centroids,
for assign.py --clusters); clusters.json (settings, measures, seconds); thumbnails/ and features/.

After an interruption the same command goes on. It stops with an error if the folder has other
settings.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import system.interrupt

import numpy as np

from checkpoints.networks import MODEL_HELP
from cluster import components
from cluster.choosing import SEEDS, Choice, choose_k, numbers_to_try
from cluster.clusters import Clusters
from cluster.components import AUTO, Components
from cluster.joined import join_clusters
from cluster.outliers import outlier_ranks
from cluster.quality import unlabelled_metrics
from cluster.tables import Assignment
from cluster.whitening import prepare
from clustering import add_clustering_flags, check_clustering, cluster_steps, make_clustering
from data.batch import Batch
from data.labels_csv import add_labels_flag
from data.loading import load_in_order
from data.moving import FLAG
from features import network
from features.continued import check_readable, continued_rows, key_of
from features.duplicates import Duplicate, find_duplicates, largest_group
from features.network import Applied, open_inputs
from models.timm_names import DEFAULT, DEFAULT_SIZE
from system import cli, flags
from system.errors import InputError
from system.extras import check_installed
from system.files import make_folder
from system.kept import begin
from system.locks import sole_user
from system.progress import progress, stage
from tools.picture_folder import Found, check_place, write_all
from visu.placing import place_all
from visu.thumbnails import ThumbnailFiles

NEAR = 0.05  # cosine distance of near duplicates
SUSPICIOUS_SHARE, FEWEST, LARGE = 0.1, 5, 20  # images in a group of duplicates that is noted
ALIKE_SHARE = 0.05  # of all images: larger groups than this and than LARGE are not moved
LOCK = ".cluster_images.lock"
# Flags that clusters, duplicates and the map do not depend on, or through the features alone
FREE = {
    "data", "out", "features", "model", "network_key", "size", "batch", "workers", "decode",
    "max_pixels", "exif", "range", "channels", "device", "precision", "labels", "folders", "pickle",
    "move_duplicates",
}  # fmt: skip


def main(args: argparse.Namespace) -> None:
    """Check everything that can be checked, then cluster."""
    check_installed("clusters.parquet", "pyarrow", extra="images")
    if args.model is None:
        args.model, args.size = Path(DEFAULT), args.size or DEFAULT_SIZE
    inputs = open_inputs(args)
    check_numbers(args, inputs)
    check_place(args, inputs.images)
    check_readable(inputs)
    if args.features is not None:
        make_folder(args.features, "--features")
    make_folder(args.out, "--out")
    with sole_user(args.out / LOCK, f"--out {args.out}: another process writes there"):
        kept = args.features or args.out / "features"
        key = key_of(inputs) | {n: value for n, value in vars(args).items() if n not in FREE}
        key["k"] = key.pop("nmb_cluster")
        record, seconds = args.out / "settings.json", dict[str, float]()
        advice = (
            f"give another --out; for the same images, network and size, --features {kept} uses "
            "the features again"
        )
        if record.exists():
            begin(record, key, advice)
        found = find(args, inputs, kept, seconds)
        begin(record, key, advice)  # only now: after an error in `find`, other settings may do
        write_all(args, inputs, found, seconds)


def check_numbers(args: argparse.Namespace, inputs: Applied) -> None:
    """Check the numbers that flags give against each other, and against that of the images.

    Raises:
        InputError: naming the flag, its value and what would be right.
    """
    images, dim = len(inputs.images), inputs.model.embedding_dim
    if isinstance(args.dim_pca, int) and args.dim_pca > dim:
        raise InputError(f"--dim_pca {args.dim_pca}: more than the features' {dim} dimensions")
    if args.clustering == "PIC" and args.nmb_cluster != AUTO:
        raise InputError(
            f"--k {args.nmb_cluster}: PIC finds the number of clusters itself; leave --k out, or "
            "give --merge"
        )
    if chooses(args):
        most = numbers_to_try(images, "images")[-1]
        below = f"{most}, the most that --k auto tries for {images:,} images"
    else:
        check_clustering(args, images, "images")
        most, below = args.nmb_cluster, f"the {args.nmb_cluster} of --k"
    if args.clustering == "Kmeans" and args.merge is not None and args.merge >= most:
        raise InputError(f"--merge {args.merge}: give fewer than {below}")


def chooses(args: argparse.Namespace) -> bool:
    """Whether k is chosen here."""
    return args.clustering == "Kmeans" and args.nmb_cluster == AUTO


def find(args: argparse.Namespace, inputs: Applied, kept: Path, seconds: dict[str, float]) -> Found:
    """Features, clusters, duplicates, outliers and places on the map.

    Args:
        kept: the folder of the features.
        seconds: is filled with the seconds of each stage.
    """
    thumbnails, device = ThumbnailFiles(kept / "thumbnails"), inputs.compute.device

    def load(order: np.ndarray) -> Iterable[Batch]:
        return thumbnails.of(load_in_order(inputs.dataset, args.batch, args.workers, device, order))

    with stage("features", seconds):
        advice = "give another --features" if args.features else "give another --out"
        rows, present = continued_rows(kept, inputs, args.batch, load, advice)
    images = inputs.images.take(np.flatnonzero(present))
    choice = None
    if chooses(args):
        with stage("number of clusters", seconds):
            choice = choose(args, inputs, rows)
    with stage("clusters", seconds):
        clusters, loss = cluster(args, inputs, rows, choice)
        numbers, distances = clusters.assign(rows, device)
        counts = np.bincount(numbers, minlength=len(clusters.centroids))
        if args.merge is not None:
            clusters, counts = join_clusters(clusters, counts, args.merge)
            numbers, distances = clusters.assign(rows, device)
    x = clusters.whitening.apply(rows, device)
    with stage("duplicates", seconds):
        duplicates = find_duplicates(images, x, args.near)
        check_groups(args, duplicates, len(images))
    with stage("outliers", seconds), progress("outliers", len(x), "images") as advance:
        ranks = outlier_ranks(x, numbers, clusters.centroids, advance)
    with stage("map", seconds):
        chosen, xy = place_all(x, args.points, args.seed)
    assignment = Assignment(images.names, numbers, distances, clusters.each)
    with stage("measures", seconds):
        k = None if args.clustering == "PIC" or args.merge is not None else len(clusters.centroids)
        measures = {"loss": loss, **unlabelled_metrics(x, numbers, k)}
    return Found(
        images, present, assignment, clusters, counts, choice, duplicates, ranks, chosen, xy,
        thumbnails, measures,
    )  # fmt: skip


def choose(args: argparse.Namespace, inputs: Applied, rows: np.ndarray) -> Choice:
    """The choice of k for rows `(M, D) float16`.

    Raises:
        InputError: there are too few images that can be read.
    """
    tried, device = numbers_to_try(len(rows), "images that can be read"), inputs.compute.device
    x = prepare(rows, components_of(args, inputs), device).apply(rows, device)
    with progress("how many clusters", len(SEEDS) * len(tried), "clusterings") as advance:
        return choose_k(x, device=device, advance=advance)


def components_of(args: argparse.Namespace, inputs: Applied) -> Components:
    """The dimensions to whiten to."""
    return inputs.usual_pca if args.dim_pca is None else args.dim_pca


def cluster(
    args: argparse.Namespace, inputs: Applied, rows: np.ndarray, choice: Choice | None
) -> tuple[Clusters, float | None]:
    """The clusters of rows `(M, D) float16`, and the loss where there is one.

    Raises:
        InputError: there are too few images that can be read.
    """
    if len(rows) < 2:
        raise InputError(f"{len(rows)} image can be read, and clusters need two or more")
    flags_of = argparse.Namespace(**vars(args))
    flags_of.nmb_cluster = args.nmb_cluster if choice is None else choice.k
    check_clustering(flags_of, len(rows), "images that can be read")
    pca = components_of(args, inputs)
    clustering = make_clustering(flags_of, args.seed, inputs.compute.device, pca)
    total, unit = cluster_steps(flags_of, len(rows), "images")
    with progress("clustering", total, unit) as advance:
        loss = clustering.cluster(rows, advance=advance)
    if remark := clustering.remark():
        cli.note(remark)
    return Clusters.of(clustering, 0), loss if clustering.has_loss else None


def check_groups(args: argparse.Namespace, duplicates: Sequence[Duplicate], images: int) -> None:
    """Note that a group of duplicates is suspiciously large: an untrained network finds all images
    alike.

    Raises:
        InputError: it is too large for one, and would be moved.
    """
    largest = largest_group(duplicates)
    problem = (
        f"--near {args.near:g}: one group has {largest:,} of {images:,} images; this network finds "
        "them alike, give a smaller distance if they are not"
    )
    if args.move_duplicates is not None and largest > max(ALIKE_SHARE * images, LARGE):
        raise InputError(f"{problem}; nothing was moved")
    if largest >= min(max(SUSPICIOUS_SHARE * images, FEWEST), LARGE):
        cli.note(problem)


def number_or_auto(text: str) -> int | str:
    """The type of `--k`."""
    if text == AUTO:
        return text
    try:
        return cli.whole_number(2)(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or auto") from error


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Cluster pictures by a frozen network, with a report, a map, duplicates and "
        "outliers.",
        example="python cluster_images.py photos --out clusters",
        details="docs/own-images.md",
    )
    add = parser.add_argument
    add("data", metavar="DIR", type=Path, nargs="+", help=network.DATA_HELP)
    out_help = "folder for the results; after an interruption the same command goes on there"
    add("--out", type=Path, required=True, metavar="FOLDER", help=out_help)
    model_help = f"{MODEL_HELP}; left out: {DEFAULT} with {DEFAULT_SIZE} pixels"
    flags.add_model(parser, model_help, required=False)
    flags.add_key(parser)
    add_clustering_flags(parser)
    k_help = "number of clusters; auto: chosen by silhouette and stability"
    cli.change_flag(parser, "--k", type=number_or_auto, help=k_help)
    parser.set_defaults(nmb_cluster=AUTO, kmeans_init="kmeans++")
    dim_help = "dimensions to whiten to; auto: as many as suit the number of images; 0: none; left "
    components.add_flag(parser, None, dim_help + "out: auto, and 0 for timm's networks")
    merge_help = "join the clusters to K super-clusters, by Ward's method"
    add("--merge", metavar="K", type=cli.whole_number(1), help=merge_help)
    near_help = "cosine distance up to which images are near duplicates"
    add("--near", metavar="DISTANCE", type=cli.fraction, default=NEAR, help=near_help)
    points_help = "images on the map's page, at random; t-SNE places them, and the others by them"
    add_labels_flag(parser)
    move_help = "move duplicates there, all but the best of a group; tools.move_back undoes it"
    add(FLAG, metavar="DIR", type=Path, help=move_help)
    add("--points", type=cli.whole_number(10), default=2000, help=points_help)
    add("--folders", action="store_true", help="also make folders of links, one for each cluster")
    pickle_help = "also write clusters.pickle, in the format of the released assignments"
    add("--pickle", action="store_true", help=pickle_help)
    features_help = "folder of the features; left out: in --out. Other clusters can use it again"
    add("--features", type=Path, metavar="FOLDER", help=features_help)
    flags.add_seed(parser, "of the first centroids, of the map, and of its choice of images")
    network.add_size_flag(parser)
    network.add_pass_flags(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
