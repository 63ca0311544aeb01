"""A run read back from its experiment folder, finished or not, and its clusters at an epoch."""

import argparse
import contextlib
import json
import os
import reprlib
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cluster.quality import group_by_cluster
from data.decode import UnreadableImageError
from data.images import ImageList, give_labels, images_of_listing
from data.listing import packed_again
from data.packed.containers import find_containers, why_nothing
from data.reading import chosen_reading
from system.errors import InputError, shorten
from system.names import from_lines, read_text
from training.assignments import assigned_epochs, assignment_path, read_assignment
from training.logs import learned_rotations_only, read_metrics

KINDS: dict[str, type] = {"data": str, "epochs": int, "labels": str, "nmb_cluster": int}  # or None
LOOKED_AT = 100  # images, of which one must exist
ROTATIONS_ONLY = (
    ": its epochs learn only rotations (--k 1); the finished network gets clusters, and assign.py "
    "--recluster K finds some with any checkpoint"
)


class Levels(NamedTuple):
    """How clusters on two levels are numbered: super-cluster · `each` + sub-cluster.

    Attributes:
        each: number of sub-clusters of each super-cluster.
        supers: number of super-clusters.
    """

    each: int
    supers: int


@dataclass(frozen=True)
class Run:
    """A run, as read from its experiment folder.

    Attributes:
        folder: the experiment folder.
        images: in the run's order; `require_images` checks that they still exist.
        settings: the run's arguments; empty without `config.json`.
        metrics: a dict for each finished epoch, see docs/runs.md.
    """

    folder: Path
    images: ImageList
    settings: dict[str, Any]
    metrics: list[dict[str, Any]]

    @cached_property
    def epochs(self) -> list[int]:
        """The epochs that have clusters, ascending; the last one of a finished run is the finished
        network's. An epoch that learned only rotations has none."""
        without = {line["epoch"] for line in self.metrics if learned_rotations_only(line)}
        return [epoch for epoch in assigned_epochs(self.folder) if epoch not in without]

    @property
    def why_no_clusters(self) -> str:
        """Why epochs have no clusters, at the end of a sentence; empty if they have some."""
        return ROTATIONS_ONLY if any(map(learned_rotations_only, self.metrics)) else ""

    def chosen_epoch(self, epoch: int | None) -> int:
        """The epoch of `--epoch`, or else the last one with clusters.

        Raises:
            InputError: the run has no clusters of this epoch.
        """
        if not self.epochs:
            raise InputError(f"{self.folder}: no clusters yet{self.why_no_clusters}")
        if epoch is not None and epoch not in self.epochs:
            have = f"{self._numbers}{self.why_no_clusters}"
            raise InputError(f"--epoch {epoch}: {self.folder} has clusters of {have}")
        return self.epochs[-1] if epoch is None else epoch

    @property
    def _numbers(self) -> str:
        first, last = self.epochs[0], self.epochs[-1]
        return f"{first}" if first == last else f"{first} to {last}"

    @property
    def levels(self) -> Levels | None:
        """The levels of the run's clusters; None if there is one, or no epoch is done yet."""
        last = self.metrics[-1] if self.metrics else {}
        if (supers := last.get("super_clusters")) is None:
            return None
        return Levels(last["clusters"] // supers["clusters"], supers["clusters"])

    def assignment(self, epoch: int) -> np.ndarray:
        """The clusters `(N,) int64` that an epoch begins with, −1 for an image that was left out.

        Raises:
            InputError: the epoch has none, or not for these images.
        """
        path = assignment_path(self.folder, epoch)
        if epoch not in self.epochs:
            have = self._numbers if self.epochs else "none yet"
            raise InputError(f"{path}: no clusters of epoch {epoch}, only of: {have}")
        return read_assignment(path, len(self.images))

    def epoch_before(self, epoch: int) -> int | None:
        """The last epoch before this one that has an assignment."""
        return max((e for e in self.epochs if e < epoch), default=None)

    def require_images(self, flag: str = "--data") -> None:
        """Check that the images exist, by opening a few.

        Args:
            flag: the flag that gives their new place.

        Raises:
            InputError: they are gone.
        """
        if _some_open(self.images):
            return
        raise InputError(
            f"{self.folder}: its images are gone (looked for "
            f"{self.images.where(0)} and others); give the folder or list as {flag}"
        )


@dataclass(frozen=True)
class ClusterView:
    """A cluster at an epoch.

    Attributes:
        number: of the cluster; numbers change from epoch to epoch.
        members: `(size,) int64` image indices, ascending.
        purity: share of the members in their most frequent folder; None if the run has one folder.
        label: that folder.
        stayed: share of the members that were together in cluster `before` of the epoch before;
            both None without an epoch before.
        super: its super-cluster, if clusters have two levels.
    """

    number: int
    members: np.ndarray
    purity: float | None
    label: str | None
    stayed: float | None
    before: int | None
    super: int | None = None

    @property
    def size(self) -> int:
        """Number of members."""
        return len(self.members)


def read_run(exp: Path, data: Path | None = None, args: argparse.Namespace | None = None) -> Run:
    """Read an experiment folder.

    Args:
        data: the run's images, as `DIR`, if they have moved. By default they are looked
            for where the settings say, from the current folder and from each folder above `exp`.
        args: flags of reading images, as in `chosen_reading`; by default, those of the settings.

    Raises:
        InputError: the folder isn't a run's, or `data` doesn't exist.
    """
    listing = exp / "images.txt"
    if not listing.is_file():
        raise InputError(f"{exp}: not the experiment folder of a run: it has no images.txt")
    if data is not None and not data.exists() and find_containers(data) is None:
        raise InputError(f"--data {data}: {why_nothing(data)}")
    settings = _read_settings(exp)
    text = read_text(listing)
    if not text.endswith("\n"):
        raise InputError(f"{listing}: names no image")
    places = [data] if data is not None else _places(exp, settings)
    images = packed_again(text, places) or _find_listed(from_lines(text), places)
    args = args or argparse.Namespace(exif=None, range=None, channels=None)
    images = replace(images, reading=chosen_reading(args, settings, exp / "config.json"))
    return Run(exp, _labelled(images, exp, settings), settings, read_metrics(exp))


def clusters_at(run: Run, epoch: int) -> list[ClusterView]:
    """The non-empty clusters of an epoch, by number.

    Raises:
        InputError: the epoch has no assignment.
    """
    earlier = run.epoch_before(epoch)
    before = None if earlier is None else run.assignment(earlier)
    each = None if run.levels is None else run.levels.each
    return view_clusters(run.assignment(epoch), run.images, each, before)


def view_clusters(
    assignment: np.ndarray, images: ImageList, each: int | None, before: np.ndarray | None = None
) -> list[ClusterView]:
    """The non-empty clusters of an assignment, by number.

    Args:
        assignment: `(N,) int64`, −1 for an image that was left out.
        each: K of clusters on two levels, as in `Levels`; else None.
        before: an earlier assignment, if there is one.
    """
    names, views = label_names(images), []
    for number, members in enumerate(group_by_cluster(assignment, assignment.max(initial=-1) + 1)):
        if members:
            rows = np.array(members)
            label, purity = _most_frequent(images.labels, rows)
            cluster, stayed = _most_frequent(before, rows)
            name = None if label is None else names[label]
            above = None if each is None else number // each
            views.append(ClusterView(number, rows, purity, name, stayed, cluster, above))
    return views


def label_names(images: ImageList) -> list[str]:
    """The name of each label in `images.labels`: as --labels gives it, or its folder, relative to
    the folder above all of them."""
    if images.given is not None:
        return images.classes
    folders = [os.path.abspath(folder) for folder in images.classes]  # noqa: PTH100
    above = os.path.commonpath(folders)
    return [os.path.relpath(folder, above) for folder in folders]


def _most_frequent(
    values: np.ndarray | None, rows: np.ndarray
) -> tuple[int, float] | tuple[None, None]:
    """The most frequent value ≥ 0 in some rows (the smallest if tied), and the share of all these
    rows that have it."""
    if values is None or not (known := values[rows][values[rows] >= 0]).size:
        return None, None
    found, counts = np.unique(known, return_counts=True)
    return int(found[counts.argmax()]), float(counts.max() / len(rows))


def _read_settings(exp: Path) -> dict[str, Any]:
    path = exp / "config.json"
    if not path.exists():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8")).get("settings", {})
        wrong = [n for n, kind in KINDS.items() if not isinstance(settings.get(n), kind | None)]
        if wrong:
            raise ValueError(f"its {wrong[0]} is {reprlib.repr(settings[wrong[0]])}")
        return dict(settings)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        reason = shorten(error)
        raise InputError(f"{path}: not the configuration of a run: {reason}") from error


def _places(exp: Path, settings: dict[str, Any]) -> list[Path]:
    """Where the data may be; the first is what the settings say."""
    data = Path(settings.get("data") or "")
    return [data, *(above / data for above in exp.resolve().parents)]


def _labelled(images: ImageList, exp: Path, settings: dict[str, Any]) -> ImageList:
    """The images with the labels of the run's `--labels`, as far as the file still has them."""
    if (file := settings.get("labels")) is None:
        return images
    for place in (Path(file), *(above / file for above in exp.resolve().parents)):
        if os.path.isfile(place):  # noqa: PTH113 (any text)
            return give_labels(place, images, exact=False)[0]
    sys.stderr.write(f"note: {exp}: its --labels {file} are gone; folders are taken for labels\n")
    return images


def _find_listed(names: list[str], places: list[Path]) -> ImageList:
    """The images of a listing in the first place that has some, or else that exists."""
    # os.path.exists also takes a text that can't be a name
    there = [place for place in places if os.path.exists(place)] or places[:1]  # noqa: PTH110
    few = names[:: max(len(names) // LOOKED_AT, 1)]
    found = (place for place in there if _some_open(images_of_listing(place, few)))
    return images_of_listing(next(found, there[0]), names)


def _some_open(images: ImageList) -> bool:
    """Whether one of a few images can be opened."""
    for index in range(0, len(images), max(len(images) // LOOKED_AT, 1)):
        with contextlib.suppress(UnreadableImageError), images.open(index):
            return True
    return False
