"""The folder that `cluster_images.py` writes: tables, pages, centroids, results."""

import argparse
import codecs
import csv
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from checkpoints.checkpoint import digest_of
from checkpoints.clusters import save_clusters
from cluster.choosing import Choice
from cluster.clusters import Clusters
from cluster.pickles import write_assignment
from cluster.quality import (
    AGREEMENT,
    describe_labels,
    describe_sizes,
    describe_supers,
    describe_unlabelled,
    label_metrics,
    size_metrics,
    super_metrics,
)
from cluster.tables import Assignment, Columns, write_folders, write_table
from data.images import ImageList
from data.moving import FLAG, check_move_folder, move_files
from features.duplicates import BEST, COPY, Duplicate, write_duplicates
from features.network import Applied
from system.errors import InputError
from system.files import atomic_write
from system.progress import stage
from system.results import save_results
from training.finished_run import label_names
from visu.clusters_page import most_unlike, write_clusters_page, write_map
from visu.merge_tree import draw_merge_tree
from visu.thumbnails import ThumbnailFiles

PROTOCOL = "cluster_images.py: see its --help"


@dataclass(frozen=True)
class Found:
    """What was found in the images.

    Attributes:
        images: the M images that can be read.
        present: `(N,) bool`, whether an image can be read.
        counts: `(k,) int64`, the images of each cluster; with --merge before it was joined.
        choice: of k, if that was automatic.
        ranks: `(M, 2) int64`, as of `outlier_ranks`.
        chosen: the rows of the images on the map's page, `(P,) int64`.
        xy: `(M, 2)`, places on the map.
        thumbnails: by the numbers of all N images.
        measures: without labels, by name.
    """

    images: ImageList
    present: np.ndarray
    assignment: Assignment
    clusters: Clusters
    counts: np.ndarray
    choice: Choice | None
    duplicates: list[Duplicate]
    ranks: np.ndarray
    chosen: np.ndarray
    xy: np.ndarray
    thumbnails: ThumbnailFiles
    measures: dict[str, Any]


def check_place(args: argparse.Namespace, images: ImageList) -> None:
    """Check that no image counts twice, that the folder's own pictures would not count the next
    time, and that links can be made if they are asked for.

    Raises:
        InputError: naming the flag or the folder.
    """
    for one, other in itertools.permutations(args.data, 2):
        if one.is_dir() and one.resolve().is_relative_to(other.resolve()):
            raise InputError(f"{one}: its images are in {other}, too; give one of both")
    if args.features is not None and (args.features / "features").is_dir():
        raise InputError(f"--features {args.features}: is an --out; give {args.features}/features")
    for flag in ("out", "features"):
        folder: Path | None = getattr(args, flag)
        for source in args.data if folder else ():
            if folder and source.is_dir() and source.resolve() in (folder / "x").resolve().parents:
                raise InputError(
                    f"--{flag} {folder}: is inside {source}, where its thumbnails would count as "
                    "images; give a folder elsewhere"
                )
    if args.folders:
        images.require_files("--folders")
    if args.move_duplicates is not None:
        images.require_files(FLAG)
        check_move_folder(args.move_duplicates, args.data)


def write_all(
    args: argparse.Namespace, inputs: Applied, found: Found, seconds: dict[str, float]
) -> None:
    """Write the folder, and a summary to stdout.

    Args:
        seconds: of each stage.
    """
    assignment, labels, supers = found.assignment, found.images.labels, None
    k = len(found.clusters.centroids) if args.merge is None else int(np.count_nonzero(found.counts))
    metrics = {**size_metrics(assignment.clusters, k), **label_metrics(assignment.clusters, labels)}
    if assignment.each is not None:
        supers = super_metrics(assignment.clusters, assignment.each, args.merge, labels)
    about = {**inputs.about, "size": inputs.size, "precision": inputs.compute.precision}
    settings = {**vars(args), **about, "device": str(inputs.compute.device)}
    settings |= {"data": " ".join(map(str, args.data)), "k": k}
    with stage("tables and pages", seconds):
        write_tables(args, found)
        digest = digest_of(inputs.model)
        save_clusters(args.out / "clusters.pth", found.clusters, digest, inputs.size)
        write_pages(args, inputs, found, metrics, settings)
    results = {
        "images": len(found.present), "unreadable": int((~found.present).sum()), **metrics,
        **found.measures, "super_clusters": supers, "duplicates": duplicate_counts(found),
        "choice": found.choice and {"k": found.choice.k, "reason": found.choice.reason},
        "seconds": seconds,
    }  # fmt: skip
    save_results(args.out / "clusters.json", PROTOCOL, settings, results)
    moved = move_duplicates(args, found)
    said = [
        describe_network(inputs, len(found.images)),
        f"{found.choice.k} clusters: {found.choice.reason}" if found.choice else "",
        advice(args, found),
        describe_sizes(metrics),
        describe_labels(metrics),
        describe_supers(supers) if supers else "",
        describe_unlabelled({name: found.measures[name] for name in ("silhouette", "stability")}),
        "duplicates: " + describe_duplicates(duplicate_counts(found)),
        moved,
        "seconds: " + ", ".join(f"{name} {taken:.1f}" for name, taken in seconds.items()),
        f"written to {args.out}; open {args.out / 'report.html'} and {args.out / 'map.html'} in a "
        "browser",
    ]
    sys.stdout.write("\n".join(filter(None, said)) + "\n")


def write_pages(
    args: argparse.Namespace,
    inputs: Applied,
    found: Found,
    metrics: dict[str, Any],
    settings: dict[str, Any],
) -> None:
    """Write the report and the map."""
    write_clusters_page(
        args.out / "report.html", inputs.images, found.assignment, found.thumbnails,
        present=found.present, duplicates=found.duplicates, ranks=found.ranks, choice=found.choice,
        advice=advice(args, found), tree=draw_tree(found, args.merge),
        status=describe_network(inputs, len(found.images)), overview=overview(found, metrics),
        settings=settings,
    )  # fmt: skip
    chosen = np.flatnonzero(found.present)[found.chosen]
    write_map(
        args.out / "map.html", inputs.images, found.assignment, found.thumbnails, chosen,
        found.chosen, found.xy[found.chosen],
    )  # fmt: skip


def advice(args: argparse.Namespace, found: Found) -> str:
    """What to do where the chosen number of clusters does not suit; empty if it was given."""
    if found.choice is None:
        return ""
    kept = args.features or args.out / "features"
    return (
        "no measure knows which groups you look for: for more or fewer, give a number as --k, and "
        f"another --out; with --features {kept} that takes no new pass through the network"
    )


def write_tables(args: argparse.Namespace, found: Found) -> None:
    """Write the tables, and the links and the pickle that are asked for."""
    out, assignment, images = args.out, found.assignment, found.images
    more = {} if images.labels is None else {"label": label_column(images)}
    write_table(out / "clusters.csv", assignment, more)
    numbers = np.flatnonzero(found.present).tolist()
    drawn: Columns = {
        "x": found.xy[:, 0].astype(np.float32),
        "y": found.xy[:, 1].astype(np.float32),
        "thumbnail": [str(found.thumbnails.path(number)) for number in numbers],
    }
    write_table(out / "clusters.parquet", assignment, {**more, **drawn})
    write_duplicates(out / "duplicates.csv", images, found.duplicates)
    write_outliers(out / "outliers.csv", found)
    if args.pickle:
        pairs = zip(assignment.paths, assignment.clusters.tolist(), strict=True)
        write_assignment(out / "clusters.pickle", pairs)
    if args.folders and not (out / "folders").exists():
        write_folders(out / "folders", assignment)


def label_column(images: ImageList) -> list[str | None]:
    """The label of each image, None where there is none."""
    names = label_names(images)
    assert images.labels is not None
    return [names[label] if label >= 0 else None for label in images.labels.tolist()]


def write_outliers(path: Path, found: Found) -> None:
    """Write a line for each image, the most unlike first."""
    with atomic_write(path) as file:
        writer = csv.writer(codecs.getwriter("utf-8")(file, "surrogateescape"), lineterminator="\n")
        writer.writerow(["path", "cluster", "rank_to_centroid", "rank_to_neighbours"])
        for row in most_unlike(found.ranks).tolist():
            place = found.assignment.paths[row], int(found.assignment.clusters[row])
            writer.writerow([*place, *found.ranks[row].tolist()])


def draw_tree(found: Found, groups: int | None) -> Figure | None:
    """The picture of the joined clusters; None without --merge."""
    if groups is None:
        return None
    return draw_merge_tree(found.clusters.centroids, found.counts, groups)


def duplicate_counts(found: Found) -> dict[str, int]:
    """The numbers of groups, of images in them, and of exact copies."""
    kinds = [each.kind for each in found.duplicates]
    groups = len({each.group for each in found.duplicates})
    return {"groups": groups, "images": len(kinds), "copies": kinds.count(COPY)}


def describe_duplicates(counts: dict[str, int]) -> str:
    """The numbers of `duplicate_counts` in words."""
    if not counts["groups"]:
        return "none"
    groups = "1 group" if counts["groups"] == 1 else f"{counts['groups']:,} groups"
    return f"{groups} of {counts['images']:,} images, {counts['copies']:,} of them exact copies"


def move_duplicates(args: argparse.Namespace, found: Found) -> str:
    """Move all but the best of each group of duplicates, if asked to, and say so. A link to the
    best, or the file that the best one links to, stays; a file in a linked folder moves once."""
    if args.move_duplicates is None:
        return ""
    paths = {each: Path(found.assignment.paths[each.index]) for each in found.duplicates}
    best = {path.resolve() for each, path in paths.items() if each.kind == BEST}
    worse = [path for each, path in paths.items() if each.kind != BEST]
    once = {path.parent.resolve() / path.name: path for path in worse}
    moving = [str(path) for path in once.values() if path.resolve() not in best]
    if not moving:
        return "no duplicates to move"
    move_files(moving, args.move_duplicates)
    back = f"python -m tools.move_back {args.move_duplicates}"
    return f"moved {len(moving):,} duplicates to {args.move_duplicates}; to move them back: {back}"


def describe_network(inputs: Applied, readable: int) -> str:
    """The images, and the network with its weights and their licence, in a sentence."""
    about, left_out = inputs.about, len(inputs.images) - readable
    weights = f", weights {about['weights']}" if "weights" in about else ""
    licence = f" (licence: {about['licence']})" if "licence" in about else ""
    without = f", {left_out:,} left out as unreadable" if left_out else ""
    return f"{readable:,} images{without}; {about['arch']}{weights}{licence}, {inputs.size} pixels"


def overview(found: Found, metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """The numbers at the top of the page, each with its meaning."""
    size, counts = metrics["cluster_size"], duplicate_counts(found)
    sizes = f"{size['smallest']} to {size['largest']}"
    labels = {words: metrics[name] for name, words in AGREEMENT.items()}
    alone = {name: found.measures[name] for name in ("silhouette", "stability")}
    return [
        (f"{len(found.images):,}", "images"),
        (f"{metrics['nonempty_clusters']:,}", f"clusters of {sizes} images"),
        *((f"{v:.3f}", words) for words, v in {**labels, **alone}.items() if v is not None),
        (f"{counts['images']:,}", "images in groups of duplicates"),
    ]
