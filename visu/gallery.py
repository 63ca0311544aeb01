"""A run's clusters for a page: which to picture, their pictures, and an index to search in."""

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import ImageOps

from data.decode import UnreadableImageError, read_image
from data.images import ImageList
from system.errors import InputError
from system.seeding import derive_seed
from training.finished_run import ClusterView, Run, clusters_at
from visu.page import to_webp

SIDE = 80  # of a picture, in pixels
THREADS = 8  # that read images, most of the time waiting for a disk

# Up to here a page knows every image by name.
MOST_IMAGES = 20_000
MOST_CHARACTERS = 1_500_000  # of all names


def make_gallery(
    run: Run, epoch: int, most: int, pictures: int, also: Sequence[str] = ()
) -> dict[str, Any]:
    """What the page needs to show and search the clusters of an epoch, as JSON takes it.

    Args:
        most: clusters with pictures, beside those of `also`.
        pictures: of each of them.
        also: numbers of clusters, or images by their name in `images.txt`, whose clusters and which
            themselves are pictured in any case.

    Raises:
        InputError: `also` has something that the run has not.
    """
    views = clusters_at(run, epoch)
    asked = _find(run, epoch, views, also)
    chosen, how = choose_clusters(views, most)
    taken = {view.number for view in chosen}
    chosen += [view for view in views if view.number in set(asked) - taken]
    drawn = [_draw(view.members, pictures, asked.get(view.number, [])) for view in chosen]
    shown = np.unique(np.concatenate(drawn or [np.empty(0, np.int64)]))
    draw = functools.partial(encode, run.images)
    with ThreadPoolExecutor(THREADS) as threads:
        encoded = dict(zip(shown.tolist(), threads.map(draw, shown.tolist()), strict=True))
    known, complete = _searchable(run, shown)
    position = {image: place for place, image in enumerate(known.tolist())}
    assignment = run.assignment(epoch)
    return {
        "clusters": _columns(views),
        "images": {
            "name": [run.images.names[image] for image in known],
            "cluster": assignment[known].tolist(),
        },
        "complete": complete,
        "pictures": {
            view.number: [[position[image], encoded[image]] for image in images.tolist()]
            for view, images in zip(chosen, drawn, strict=True)
        },
        "how": how,
        "readable": sum(data is not None for data in encoded.values()),
    }


def choose_clusters(views: Sequence[ClusterView], most: int) -> tuple[list[ClusterView], str]:
    """At most so many clusters, and in words which: all, or a third each of the largest, of the
    purest (without labels the steadiest) of at least median size, and of the others at random."""
    if len(views) <= most:
        return list(views), f"all {len(views):,} clusters that are not empty"
    by_size = sorted(views, key=lambda view: -view.size)
    median = by_size[len(views) // 2].size
    largest, others = by_size[: -(-most // 3)], by_size[-(-most // 3) :]
    fair = [view for view in others if view.size >= median and _share(view) is not None]
    best = sorted(fair, key=lambda view: -(_share(view) or 0))[: most // 3]
    taken = {view.number for view in largest + best}
    left = [view for view in views if view.number not in taken]
    rng = np.random.default_rng(derive_seed(0, "clusters of a page"))
    drawn = [left[i] for i in np.sort(rng.choice(len(left), most - len(taken), replace=False))]
    good = "purest" if views[0].purity is not None else "steadiest"
    counts = {"of the largest": largest, f"of the {good}": best, "drawn at random": drawn}
    told = ", ".join(f"{len(some):,} {name}" for name, some in counts.items() if some)
    return largest + best + drawn, f"{most:,} of {len(views):,} clusters ({told})"


def _share(view: ClusterView) -> float | None:
    """What tells a good cluster: its purity where there are labels, else how much of it stayed."""
    return view.stayed if view.purity is None else view.purity


def encode(images: ImageList, index: int) -> str | None:
    """The middle of an image as a small WebP file in base64; None where it cannot be read."""
    try:
        with images.open(index) as file:
            return to_webp(ImageOps.fit(read_image(file), (SIDE, SIDE)))
    except UnreadableImageError:
        return None


def _find(
    run: Run, epoch: int, views: Sequence[ClusterView], also: Sequence[str]
) -> dict[int, list[int]]:
    """By cluster number, the images of it that were asked for."""
    found: dict[int, list[int]] = {}
    numbers = {view.number for view in views}
    assignment = run.assignment(epoch)
    for text in also:
        if text.isdecimal() and int(text) in numbers:
            found.setdefault(int(text), [])
        elif text in run.images.names:
            image = run.images.names.index(text)
            if assignment[image] < 0:
                raise InputError(f"--also {text}: this image was left out of the clusters")
            found.setdefault(int(assignment[image]), []).append(image)
        else:
            raise InputError(
                f"--also {text}: neither the number of a cluster that is not empty nor the name of "
                f"an image as in {run.folder / 'images.txt'}"
            )
    return found


def _draw(members: np.ndarray, count: int, first: Sequence[int]) -> np.ndarray:
    """So many of a cluster's images at random, with some in any case, which come first."""
    others = np.setdiff1d(members, np.array(first, np.int64))
    rng = np.random.default_rng(derive_seed(0, "images of a page", int(members[0])))
    size = min(max(count - len(first), 0), len(others))
    return np.concatenate([np.array(first, np.int64), rng.choice(others, size, replace=False)])


def _searchable(run: Run, shown: np.ndarray) -> tuple[np.ndarray, bool]:
    """The images that the page knows by name, and whether they are all."""
    few = len(run.images) <= MOST_IMAGES
    complete = few and sum(map(len, run.images.names)) <= MOST_CHARACTERS
    return (np.arange(len(run.images)) if complete else shown), complete


def _columns(views: Sequence[ClusterView]) -> dict[str, list[Any]]:
    """The clusters' facts, a list for each kind: ten thousand clusters take less room so."""

    def rounded(share: float | None) -> float | None:
        return None if share is None else round(share, 4)

    return {
        "number": [view.number for view in views],
        "size": [view.size for view in views],
        "label": [view.label for view in views],
        "purity": [rounded(view.purity) for view in views],
        "stayed": [rounded(view.stayed) for view in views],
        "before": [view.before for view in views],
    }
