"""The clusters of a folder of pictures on one HTML page, and their map on another.

The first is the template `clusters_page.html`; the second is that of `feature_map.py`.
"""

import base64
import io
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cluster.choosing import Choice
from cluster.tables import Assignment
from data.images import ImageList
from features.duplicates import Duplicate
from system.files import write_text
from training.finished_run import view_clusters
from visu.choice import draw_choice
from visu.feature_map import NAME as MAP
from visu.feature_map import columns
from visu.gallery import Gallery, Picture, fill_gallery
from visu.page import fill_template
from visu.thumbnails import ThumbnailFiles

PAGE = "clusters_page.html"
CLUSTERS, IMAGES = 100, 10  # clusters with pictures, and pictures of each
MOST_GROUPS = 100  # of duplicates, with pictures
MOST_MEMBERS = 20  # of a group
MOST_OUTLIERS = 60


def write_clusters_page(
    path: Path,
    images: ImageList,
    assignment: Assignment,
    thumbnails: ThumbnailFiles,
    *,
    present: np.ndarray,
    duplicates: Sequence[Duplicate],
    ranks: np.ndarray,
    choice: Choice | None,
    advice: str,
    tree: Figure | None,
    status: str,
    overview: Sequence[tuple[str, str]],
    settings: Mapping[str, Any],
) -> None:
    """Write the page.

    Args:
        images: all N images.
        assignment: of the M images that can be read.
        present: `(N,) bool`, whether an image can be read.
        duplicates: numbers of images are those in the assignment.
        ranks: `(M, 2) int64` of `outlier_ranks`.
        advice: what to do where the choice does not suit.
        status: a sentence on the images and the network.
        overview: numbers, each with its meaning.
    """
    readable = np.flatnonzero(present)

    def picture(row: int) -> Picture:
        return Picture(assignment.paths[row], thumbnails.encoded(int(readable[row])))

    found = np.full(len(images), -1, np.int64)
    found[readable] = assignment.clusters
    views = view_clusters(found, images, assignment.each)
    gallery = fill_gallery(views, images, found < 0, thumbnails.encoded, CLUSTERS, IMAGES)
    shown = min(MOST_OUTLIERS, -(-len(ranks) // 20))
    content = {
        "name": "/".join(path.parent.resolve().parts[-2:]),
        "status": status,
        "overview": overview,
        "gallery": gallery,
        "chosen": describe_choice(gallery),
        "advice": advice[:1].upper() + advice[1:],
        "choice": choice and {**vars(choice), "picture": to_png(draw_choice(choice))},
        "tree": tree and to_png(tree),
        "duplicates": {
            "status": describe_duplicates(duplicates),
            "groups": [
                show_group(number, list(members), picture)
                for number, members in groupby(duplicates, lambda each: each.group)
                if number < MOST_GROUPS
            ],
        },
        "outliers": {
            "status": f"The {shown} images that are least like others: "
            "far from the centroid of their cluster and from their nearest neighbours. "
            "outliers.csv has all images with both ranks.",
            "pictures": [picture(row) for row in most_unlike(ranks)[:shown].tolist()],
        },
        "settings": [(n, in_words(v)) for n, v in settings.items() if v not in (None, False)],
        "written": time.strftime("%Y-%m-%d %H:%M"),
    }
    write_text(path, fill_template(PAGE, content))


def show_group(
    number: int, members: Sequence[Duplicate], picture: Callable[[int], Picture]
) -> dict[str, Any]:
    """A group of duplicates for the page.

    Args:
        picture: of an image, by its row.
    """
    shown = members[:MOST_MEMBERS]
    return {
        "number": number,
        "size": len(members),
        "members": [{"kind": each.kind, "picture": picture(each.index)} for each in shown],
    }


def in_words(setting: Any) -> str:
    """A setting as text."""
    if isinstance(setting, Mapping):
        return ", ".join(f"{name} {value}" for name, value in setting.items())
    return str(setting)


def most_unlike(ranks: np.ndarray) -> np.ndarray:
    """The rows of `outlier_ranks` by the sum of both ranks, the farthest first, `(M,) int64`."""
    return np.argsort(ranks.sum(axis=1), kind="stable")


def describe_choice(gallery: Gallery) -> str:
    """Which clusters are shown, and which images of them."""
    names = "" if gallery.complete else " The search knows only the images that are shown."
    return f"Shown: {gallery.how}, up to {IMAGES} images of each, at random.{names}"


def describe_duplicates(duplicates: Sequence[Duplicate]) -> str:
    """The numbers of groups and of copies."""
    groups = len({each.group for each in duplicates})
    if groups == 0:
        return "None were found."
    copies = sum(each.kind == "exact copy" for each in duplicates)
    shown = f"; the {MOST_GROUPS} largest are shown" if groups > MOST_GROUPS else ""
    return (
        f"{groups:,} groups of {len(duplicates):,} images ({copies:,} exact copies){shown}. The "
        "first image of each is the best, by its pixels and then its bytes; duplicates.csv has all."
    )


def write_map(
    path: Path,
    images: ImageList,
    assignment: Assignment,
    thumbnails: ThumbnailFiles,
    chosen: np.ndarray,
    rows: np.ndarray,
    xy: np.ndarray,
) -> None:
    """Write the map.

    Args:
        images: all N images.
        rows: the images on the map, their rows in the assignment, `(P,) int64`.
        chosen: the same images, by their numbers in `images`.
        xy: `(P, 2)`, their places from 0 to 1.
    """
    of = (
        f" of {len(assignment.paths):,}, chosen at random"
        if len(rows) < len(assignment.paths)
        else ""
    )
    content = {
        "title": f"Map of {'/'.join(path.parent.resolve().parts[-2:])}",
        "about": f"{len(rows):,} images{of}; t-SNE of the features that were clustered",
    }
    points = columns(
        images, chosen, xy, assignment.clusters[rows], assignment.each, thumbnails.encoded
    )
    write_text(path, fill_template(MAP, {"map": content | points}))


def to_png(figure: Figure) -> str:
    """A figure as PNG in base64."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return base64.b64encode(file.getvalue()).decode()
