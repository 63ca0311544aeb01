"""A map of a data set's features in two dimensions, on one self-contained HTML page.

t-SNE places whitened and normalised features, as k-means sees them: images near each other on the
map have similar features, but distances between far groups mean little. PCA shows the two
directions in which the network's features vary most, before whitening.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # `python visu/feature_map.py` puts only visu/ on the import path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

    import system.interrupt

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from checkpoints.networks import MODEL_HELP
from cluster.clusters import Clusters
from cluster.components import AUTO, Components, add_flag, remark
from cluster.whitening import prepare
from data.images import ImageList, find_all_images
from data.labels_csv import add_labels_flag
from features import network
from features.network import open_inputs
from models.timm_names import timm_name
from system import cli, flags
from system.errors import InputError
from system.files import make_folder, write_text
from system.progress import progress
from system.seeding import derive_seed
from training.finished_run import Run, label_names, read_run
from visu.contact_sheet import thumbnail
from visu.page import fill_template, to_webp

NAME = "feature_map.html"
SIDE = 64  # of a thumbnail, in pixels
LEAST = 10  # images on a map
PERPLEXITY = 30  # of t-SNE: about how many neighbours an image has


def main(args: argparse.Namespace) -> None:
    if args.dim_pca is not None and args.method == "pca":
        raise InputError(f"--dim_pca {args.dim_pca}: whitens only for --method tsne; leave it out")
    is_run = args.source.is_dir()
    if not args.source.exists() and not timm_name(args.source):
        raise InputError(f"{args.source}: no such experiment folder or checkpoint")
    if not is_run and not args.data:
        raise InputError(f"{args.source}: give DIR as well, the images to map with this network")
    if args.labels is not None and not args.data:
        raise InputError(f"--labels {args.labels}: goes with DIR; a run has labels of its own")
    run = read_run(args.source) if is_run and not args.data else None
    if run is not None:
        run.require_images("DIR")
    images = find_all_images(args.data, args.labels) if run is None else run.images
    out = args.out or (args.source / NAME if is_run else Path(NAME))
    if out.is_dir():
        raise InputError(f"--out {out}: is a folder; give the name of an HTML file")
    make_folder(out.parent, "--out")

    chosen = sample(len(images), args.points, args.seed)
    few = images.take(chosen.tolist())
    model = args.source / "checkpoint.pth.tar" if is_run else args.source
    network = open_inputs(argparse.Namespace(**vars(args), model=model, size=None), few)
    images = dataclasses.replace(images, reading=network.images.reading)
    with progress("features", len(few), "images") as advance:
        features = network.features(advance)
    present = np.flatnonzero(features.present)
    if len(present) < LEAST:
        raise InputError(f"{len(present)} images with features: a map needs {LEAST} or more")
    found = network.own_clusters
    rows = features.rows
    if args.method == "tsne":
        rows, words = whiten(rows, found, args.dim_pca, network.usual_pca)
        if words:
            sys.stdout.write(f"{words}\n")
    xy = place(rows, args.method, args.seed)
    clusters, epoch = cluster_of_each(run, chosen[present], features.rows, found)
    about = describe(args, len(present), len(images), epoch)
    points = columns(images, chosen[present], xy, clusters, sub_clusters_each(run, found))
    page = fill_template(NAME, {"map": about | points})
    write_text(out, page)
    sys.stdout.write(f"{out}: {len(present):,} images, {len(page) / 1e6:.1f} MB\n")


def sample(images: int, points: int, seed: int) -> np.ndarray:
    """The images on the map, ascending `(P,) int64`: all, or `points` of them at random."""
    rng = np.random.default_rng(derive_seed(seed, "images of the map"))
    return np.sort(rng.permutation(images)[:points])


def place(rows: np.ndarray, method: str, seed: int) -> np.ndarray:
    """Rows `(P, d)` → their places on the map `(P, 2)`, from 0 to 1."""
    if (rows == rows[0]).all():  # t-SNE would crash
        return np.full((len(rows), 2), 0.5)
    if rows.shape[1] == 1:  # two are needed
        rows = np.pad(rows, ((0, 0), (0, 1)))
    if method == "pca":
        xy = PCA(2, random_state=seed).fit_transform(rows.astype(np.float32))
    else:
        perplexity = min(PERPLEXITY, (len(rows) - 1) / 3)
        layout = TSNE(2, init="pca", perplexity=perplexity, random_state=seed)
        xy = layout.fit_transform(rows)
    xy = xy - xy.min(axis=0)
    return xy / max(float(xy.max()), np.finfo(np.float32).tiny)


def whiten(
    rows: np.ndarray,
    clusters: Clusters | None,
    pca: Components | None,
    usual: Components = AUTO,
) -> tuple[np.ndarray, str | None]:
    """Features `(P, D)` whitened as their clusters are, or anew: `(P, d) float32`; and a remark on
    d, if there is one.

    Args:
        clusters: of these features, if there are any.
        pca: components; None takes the clusters' whitening, or without clusters `usual`.

    Raises:
        InputError: there are more components than dimensions.
    """
    if clusters is not None and pca is None:
        return clusters.whitening.apply(rows), None
    if isinstance(pca, int) and pca > rows.shape[1]:
        raise InputError(f"--dim_pca {pca}: more than the features' {rows.shape[1]} dimensions")
    pca = usual if pca is None else pca
    whitening = prepare(rows, pca)
    return whitening.apply(rows), remark(pca, whitening.components, *rows.shape)


def cluster_of_each(
    run: Run | None, chosen: np.ndarray, rows: np.ndarray, clusters: Clusters | None
) -> tuple[np.ndarray | None, int | None]:
    """The cluster of each image on the map `(P,) int64` and the epoch of these clusters, or None.

    A run's own images have the run's clusters; others have those with the nearest centroids.
    """
    if run is not None and run.epochs:
        own = clusters is not None and clusters.epoch in run.epochs
        epoch = clusters.epoch if clusters is not None and own else run.epochs[-1]
        return run.assignment(epoch)[chosen], epoch
    if clusters is None:
        return None, None
    return clusters.assign(rows)[0], clusters.epoch


def sub_clusters_each(run: Run | None, clusters: Clusters | None) -> int | None:
    """K of clusters on two levels, whose numbers are super-cluster · K + sub-cluster; else None."""
    levels = clusters if run is None else run.levels
    return None if levels is None else levels.each


def describe(
    args: argparse.Namespace, points: int, images: int, epoch: int | None
) -> dict[str, str]:
    """The title of the page and the line below it."""
    of = f" of {images:,}, chosen at random" if points < images else ""
    method = "t-SNE" if args.method == "tsne" else "PCA"
    clusters = "" if epoch is None else f", clusters of epoch {epoch}"
    near = "/".join(args.source.resolve().parts[-2:])
    return {
        "title": f"Features of {args.source if timm_name(args.source) else near}",
        "about": f"{points:,} images{of}; {method}{clusters}",
    }


def columns(
    images: ImageList,
    chosen: np.ndarray,
    xy: np.ndarray,
    clusters: np.ndarray | None,
    each: int | None,
    draw: Callable[[int], str | None] | None = None,
) -> dict[str, Any]:
    """The images for the page's script: a list for each property.

    Args:
        each: see `sub_clusters_each`.
        draw: makes the picture of an image, as WebP in base64; None reads the images.
    """
    supers = None if clusters is None or each is None else (clusters // each).tolist()
    labels, names = images.labels, label_names(images)
    if labels is not None and (labels < 0).any():
        labels, names = np.where(labels < 0, len(names), labels), [*names, "no label"]
    with progress("thumbnails", len(chosen), "images") as advance:
        pictures = []
        for image in chosen:
            pictures.append(draw(image) if draw else to_webp(thumbnail(images, image, SIDE)))
            advance(1)
    return {
        "x": [round(x, 4) for x in xy[:, 0].tolist()],
        "y": [round(y, 4) for y in xy[:, 1].tolist()],
        "name": [images.names[image] for image in chosen],
        "picture": pictures,
        "cluster": None if clusters is None else clusters.tolist(),
        "super": supers,
        "label": None if labels is None else labels[chosen].tolist(),
        "labels": names,
    }


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="A map of a network's features on one HTML page, with the images under the "
        "pointer.",
        example="python visu/feature_map.py exp/001",
        details="docs/pictures.md",
    )
    add = parser.add_argument
    source_help = f"experiment folder of a run, or {MODEL_HELP}"
    add("source", metavar="EXP|MODEL", type=Path, help=source_help)
    flags.add_key(parser)
    data_help = "images to map, as for main.py; left out: the run's own"
    add("data", metavar="DIR", type=Path, nargs="*", help=data_help)
    points_help = "images on the map, at random; each adds about 1 kB to the page"
    add("--points", type=cli.whole_number(LEAST), default=2000, help=points_help)
    method_help = "tsne keeps neighbours together; pca is faster and simpler"
    add("--method", choices=("tsne", "pca"), default="tsne", help=method_help)
    dim_help = (
        "dimensions that tsne's features are whitened to; auto: as many as suit the number of "
    )
    dim_help += "images; 0: no whitening; left out: as the run's clusters, or auto; timm's: 0"
    add_flag(parser, None, dim_help)
    flags.add_seed(parser, "random seed of the choice of images and of t-SNE", default=0)
    out_help = f"HTML file; left out: EXP/{NAME}, or {NAME} here for a MODEL"
    add("--out", metavar="FILE", type=Path, help=out_help)
    add_labels_flag(parser)
    network.add_pass_flags(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
