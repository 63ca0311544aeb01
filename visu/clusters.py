"""Contact sheets of a run's largest, tightest and random clusters, with how they moved since the
epoch before. The images shown are a random sample of each cluster.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # `python visu/clusters.py` puts only visu/ on the import path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

    import system.interrupt

import numpy as np

from cluster.quality import (
    describe_labels,
    describe_supers,
    group_by_cluster,
    label_metrics,
    nmi,
    super_metrics,
)
from data.decode import limit_pixels
from features import network
from features.network import open_inputs
from system import cli, flags
from system.errors import InputError
from system.files import atomic_write, make_folder, write_text
from system.progress import progress
from system.seeding import derive_seed
from training.finished_run import ClusterView, Run, clusters_at, read_run
from visu.contact_sheet import Strip, Thumbnails, check_sheet, contact_sheet
from visu.page import percent

LEAST = 5  # members of a tight cluster: with one image, any cluster would be tight
SIDE = 96  # of a picture, in pixels
COLUMNS = 10


def main(args: argparse.Namespace) -> None:
    limit_pixels(args.max_pixels)
    run = read_run(args.exp, args.data, args)
    run.require_images()
    epoch = run.chosen_epoch(args.epoch)
    views = clusters_at(run, epoch)
    if not views:
        raise InputError(f"{args.exp}: no image has a cluster in epoch {epoch}")
    out = args.out or args.exp / f"clusters_epoch_{epoch:04d}"
    make_folder(out, "--out")
    check_sheet([min(view.size, args.images) for view in largest(views, args.count)], COLUMNS, SIDE)
    distances, why_not = mean_distances(args, run, epoch)
    sys.stdout.write(overview(run, epoch, views) + "\n")
    kinds = {
        "largest": largest(views, args.count),
        "tightest": tightest(views, args.count, distances),
        "random": at_random(views, args.count, args.seed),
    }
    if why_not:
        sys.stdout.write(f"no distances, and no sheet of the tightest: {why_not}\n")
        del kinds["tightest"]
        (out / "tightest.jpg").unlink(missing_ok=True)  # from an earlier call
    for kind, chosen in kinds.items():
        strips = [
            strip(run, epoch, view, distances, args.images, args.seed)
            for view in by_super_cluster(chosen)
        ]
        path = out / f"{kind}.jpg"
        with atomic_write(path) as file:
            contact_sheet(strips, COLUMNS, SIDE).save(file, "JPEG", quality=90)
        sys.stdout.write(f"{path}\n")
    table = [row(view, distances) for view in views]
    write_text(out / "clusters.json", json.dumps(table, indent=1) + "\n")
    sys.stdout.write(f"{out / 'clusters.json'}\n")


def mean_distances(
    args: argparse.Namespace, run: Run, epoch: int
) -> tuple[dict[int, float], str | None]:
    """The mean distance of whitened features to their centroid, by cluster; or an empty dict and
    the reason.

    This takes a pass with the network whose features were clustered. Only the checkpoint of a
    finished run has it; until then, the network has been trained on these clusters since.
    """
    path = args.exp / "checkpoint.pth.tar"
    if args.no_distances:
        return {}, "--no-distances is given"
    if not path.exists():
        return {}, f"{path} is missing"
    as_in_training = argparse.Namespace(**vars(args), model=path, network_key=None, size=None)
    network = open_inputs(as_in_training, run.images)
    clusters = network.own_clusters
    if clusters is None:
        return {}, f"{path} has the network of its clusters only at the end of the run"
    if clusters.epoch != epoch:
        return {}, f"{path} has the network of epoch {clusters.epoch}, not of {epoch}"
    if network.checkpoint.get("images_digest", run.images.digest) != run.images.digest:
        return {}, f"{path} was trained on other images than {run.folder / 'images.txt'}"
    with progress("features", len(run.images), "images") as advance:
        features = network.features(advance)
    x = clusters.whitening.apply(features.rows, network.compute.device)
    return centroid_distances(x, run.assignment(epoch)[features.present], clusters.centroids), None


def centroid_distances(
    x: np.ndarray, assignment: np.ndarray, centroids: np.ndarray
) -> dict[int, float]:
    """The mean Euclidean distance of each cluster's rows to its centroid, by cluster; without those
    that have no rows.

    Args:
        x: `(M, d)`.
        assignment: `(M,)`, the cluster of each row.
        centroids: `(k, d)`.
    """
    members = group_by_cluster(assignment, len(centroids))
    return {
        number: float(np.linalg.norm(x[own] - centroids[number], axis=1).mean())
        for number, own in enumerate(members)
        if own
    }


def largest(views: Sequence[ClusterView], count: int) -> list[ClusterView]:
    """The largest `count` clusters, the largest first."""
    return sorted(views, key=lambda view: -view.size)[:count]


def tightest(
    views: Sequence[ClusterView], count: int, distances: dict[int, float]
) -> list[ClusterView]:
    """The `count` clusters of at least `LEAST` members with the smallest mean distances."""
    known = [view for view in views if view.size >= LEAST and view.number in distances]
    return sorted(known, key=lambda view: distances[view.number])[:count]


def at_random(views: Sequence[ClusterView], count: int, seed: int) -> list[ClusterView]:
    """Up to `count` clusters at random, by number."""
    rng = np.random.default_rng(derive_seed(seed, "clusters shown"))
    chosen = rng.permutation(len(views))[:count]
    return [views[i] for i in np.sort(chosen)]


def by_super_cluster(views: Sequence[ClusterView]) -> list[ClusterView]:
    """The same clusters by super-cluster, if they have two levels; otherwise in their order."""
    return sorted(views, key=lambda view: view.super or 0)


def strip(
    run: Run, epoch: int, view: ClusterView, distances: dict[int, float], images: int, seed: int
) -> Strip:
    """A cluster's caption and a random sample of its images."""
    rng = np.random.default_rng(derive_seed(seed, "images shown", view.number))
    chosen = np.sort(rng.permutation(view.members)[:images])
    pictures = Thumbnails(run.images, chosen.tolist(), SIDE)
    return Strip(caption(run, epoch, view, distances), pictures)


def caption(run: Run, epoch: int, view: ClusterView, distances: dict[int, float]) -> str:
    """A cluster's size, purity, mean distance and share that was together, as far as known."""
    above = "" if view.super is None else f"super-cluster {view.super}, "
    said = [f"{above}cluster {view.number}: {view.size:,} image{'s' if view.size > 1 else ''}"]
    if view.purity is not None:
        said.append(f"purity {percent(view.purity)} ({view.label})")
    if view.number in distances:
        said.append(f"mean distance {distances[view.number]:.3f}")
    if view.stayed is not None:
        there = f"in epoch {run.epoch_before(epoch)} (cluster {view.before})"
        said.append(f"{percent(view.stayed)} were together {there}")
    return ", ".join(said)


def row(view: ClusterView, distances: dict[int, float]) -> dict[str, Any]:
    """A cluster in `clusters.json`."""
    return {
        "cluster": view.number,
        **({} if view.super is None else {"super_cluster": view.super}),
        "size": view.size,
        "purity": view.purity,
        "label": view.label,
        "mean_distance": distances.get(view.number),
        "together_before": view.stayed,
        "cluster_before": view.before,
    }


def overview(run: Run, epoch: int, views: Sequence[ClusterView]) -> str:
    """A line on the clusters of an epoch."""
    assignment, before = run.assignment(epoch), run.epoch_before(epoch)
    sizes = [view.size for view in views]
    said = [
        f"epoch {epoch}: {sum(sizes):,} images in {len(views):,} clusters of {min(sizes):,} to "
        f"{max(sizes):,}"
    ]
    if before is not None:
        said.append(f"NMI to epoch {before} {nmi(assignment, run.assignment(before)):.3f}")
    said.append(describe_labels(label_metrics(assignment, run.images.labels)))
    if run.levels is not None:
        said.append(describe_supers(super_metrics(assignment, *run.levels, run.images.labels)))
    return ", ".join(filter(None, said))


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Write contact sheets of a run's clusters, and print how they moved.",
        example="python visu/clusters.py exp/001 --count 20",
        details="docs/pictures.md",
    )
    add = parser.add_argument
    add("exp", metavar="EXP", type=Path, help="experiment folder of a run")
    flags.add_epoch(parser)
    add("--count", type=cli.whole_number(1), default=10, help="clusters on each sheet")
    add("--images", type=cli.whole_number(1), default=20, help="images of a cluster")
    add("--out", type=Path, help="folder for the sheets; left out: clusters_epoch_NNNN in EXP")
    flags.add_run_data(parser)
    flags.add_seed(parser, "random seed of the choice of clusters and images", default=0)
    distances_help = "skip the pass over the images that mean distances need"
    add("--no-distances", action="store_true", help=distances_help)
    network.add_pass_flags(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
