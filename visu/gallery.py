"""A run's clusters for a page: which ones have pictures, the pictures, and the names to search."""

import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType

import numpy as np
from PIL import ImageOps

from data.decode import UnreadableImageError
from data.images import ImageList
from system.errors import InputError
from system.seeding import derive_seed
from training.finished_run import ClusterView, Run, clusters_at
from visu.page import to_webp

SIDE = 80  # of a picture, in pixels
THREADS = 8  # reading images is mostly waiting for the disk

# A page lists the names of all images up to these limits.
MOST_IMAGES = 20_000
MOST_CHARACTERS = 1_500_000  # of all names


@dataclass(frozen=True)
class Picture:
    """An image's name, and the image as WebP in base64; None if it can't be read."""

    name: str
    webp: str | None


@dataclass(frozen=True)
class Card:
    """A cluster that is not empty.

    Attributes:
        number, size, label, purity, stayed, before, super: see `ClusterView`.
        pictures: some of its images; empty for a cluster that only the search shows.
        names: of its images; if the gallery is not complete, only of those with pictures.
    """

    number: int
    size: int
    label: str | None
    purity: float | None
    stayed: float | None
    before: int | None
    super: int | None
    pictures: list[Picture]
    names: list[str]


@dataclass(frozen=True)
class Gallery:
    """The clusters of an epoch.

    Attributes:
        cards: by super-cluster if there are any, the largest first.
        how: which clusters have pictures, in words.
        complete: whether it has every image's name.
        left_out: names of the images without a cluster; empty if the gallery is not complete.
    """

    cards: list[Card]
    how: str
    complete: bool
    left_out: list[str]

    @property
    def pictures(self) -> list[Picture]:
        """The pictures of all clusters."""
        return [picture for card in self.cards for picture in card.pictures]

    @property
    def groups(self) -> list[tuple[int | None, list[Card]]]:
        """The cards of each super-cluster; all in one group, None, if there are none."""
        return [(above, list(cards)) for above, cards in groupby(self.cards, lambda c: c.super)]


def make_gallery(
    run: Run, epoch: int, most: int, pictures: int, also: Sequence[str] = ()
) -> Gallery:
    """All that a page needs to show and search the clusters of an epoch.

    Args:
        most: clusters with pictures, besides those of `also`.
        pictures: for each of these clusters.
        also: further clusters by their numbers, and images by their names in `images.txt`; these
            clusters, and these images with their clusters, always have pictures.

    Raises:
        InputError: the run lacks something that `also` names.
    """
    views = clusters_at(run, epoch)
    asked = _find(run, epoch, views, also)
    left_out, encode_one = run.assignment(epoch) < 0, functools.partial(encode, run.images)
    return fill_gallery(views, run.images, left_out, encode_one, most, pictures, asked)


def fill_gallery(
    views: Sequence[ClusterView],
    images: ImageList,
    left_out: np.ndarray,
    encode_one: Callable[[int], str | None],
    most: int,
    pictures: int,
    asked: Mapping[int, list[int]] = MappingProxyType({}),
) -> Gallery:
    """The gallery of some clusters.

    Args:
        left_out: `(N,) bool`, whether an image has no cluster.
        encode_one: makes the picture of an image, as `encode`.
        most, pictures: as in `make_gallery`.
        asked: images that have pictures in any case, by the numbers of their clusters.
    """
    chosen, how = choose_clusters(views, most)
    numbers = {view.number for view in chosen} | set(asked)
    drawn = {
        view.number: _draw(view.members, pictures, asked.get(view.number, [])).tolist()
        for view in views
        if view.number in numbers
    }
    names, complete = images.names, _few_names(images)
    shown_images = [image for some in drawn.values() for image in some]
    with ThreadPoolExecutor(THREADS) as threads:
        encoded = dict(zip(shown_images, threads.map(encode_one, shown_images), strict=True))
    cards = []
    for view in sorted(views, key=lambda view: (view.super or 0, -view.size)):
        shown = drawn.get(view.number, [])
        cards.append(
            Card(
                view.number, view.size, view.label, view.purity, view.stayed, view.before,
                view.super,
                pictures=[Picture(names[image], encoded[image]) for image in shown],
                names=[names[image] for image in (view.members.tolist() if complete else shown)],
            )
        )  # fmt: skip
    without = np.flatnonzero(left_out).tolist() if complete else []
    return Gallery(cards, how, complete, [names[image] for image in without])


def choose_clusters(views: Sequence[ClusterView], most: int) -> tuple[list[ClusterView], str]:
    """Choose the clusters with pictures, and say which they are.

    If there are more than `most`, a third each are the largest, the purest (without labels the
    steadiest) of at least median size, and others at random.
    """
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
    how = ", ".join(f"{len(some):,} {name}" for name, some in counts.items() if some)
    return largest + best + drawn, f"{most:,} of {len(views):,} clusters ({how})"


def _share(view: ClusterView) -> float | None:
    """How good a cluster is: its purity, or without labels the share that stayed together."""
    return view.stayed if view.purity is None else view.purity


def encode(images: ImageList, index: int) -> str | None:
    """The central square of an image as WebP in base64; None if it can't be read."""
    try:
        return to_webp(ImageOps.fit(images.read_image(index), (SIDE, SIDE)))
    except UnreadableImageError:
        return None


def _find(
    run: Run, epoch: int, views: Sequence[ClusterView], also: Sequence[str]
) -> dict[int, list[int]]:
    """The images that `also` names, by the numbers of their clusters."""
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
    """The images in `first`, and others of the cluster at random up to `count` in all."""
    others = np.setdiff1d(members, np.array(first, np.int64))
    rng = np.random.default_rng(derive_seed(0, "images of a page", int(members[0])))
    size = min(max(count - len(first), 0), len(others))
    return np.concatenate([np.array(first, np.int64), rng.choice(others, size, replace=False)])


def _few_names(images: ImageList) -> bool:
    """Whether a page has room for the names of all images."""
    return len(images) <= MOST_IMAGES and sum(map(len, images.names)) <= MOST_CHARACTERS
