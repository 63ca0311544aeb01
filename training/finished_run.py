"""A run's clusters at an epoch: members, sizes, purity, and how they moved since the one before.

Reads what the experiment folder holds, of a run that is over, under way, or was cut.
"""

import contextlib
import json
import os
import reprlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cluster.quality import group_by_cluster
from data.decode import UnreadableImageError
from data.images import ImageList, images_of_listing
from system.errors import InputError, shorten
from system.names import from_lines, read_text
from training.assignments import assigned_epochs, assignment_path, read_assignment
from training.logs import read_metrics

KINDS: dict[str, type] = {"data": str, "epochs": int, "nmb_cluster": int}  # or None, where needed
LOOKED_AT = 100  # images, of which one has to be there


@dataclass(frozen=True)
class Run:
    """What an experiment folder tells of its run.

    Attributes:
        folder: the experiment folder.
        images: in the run's order; whether they are still there, `require_images` says.
        settings: the run's arguments; empty where there is no `config.json`.
        metrics: a dict for each epoch that is done, see docs/runs.md.
    """

    folder: Path
    images: ImageList
    settings: dict[str, Any]
    metrics: list[dict[str, Any]]

    @cached_property
    def epochs(self) -> list[int]:
        """Those whose assignment is there, ascending; the last one of a finished run is the
        finished network's."""
        return assigned_epochs(self.folder)

    def assignment(self, epoch: int) -> np.ndarray:
        """The clusters `(N,) int64` that an epoch begins with, −1 for an image that is left out.

        Raises:
            InputError: there are none of that epoch, or not of these images.
        """
        path = assignment_path(self.folder, epoch)
        if epoch not in self.epochs:
            have = f"{self.epochs[0]} to {self.epochs[-1]}" if self.epochs else "none yet"
            raise InputError(f"{path}: no clusters of epoch {epoch}; there are those of: {have}")
        return read_assignment(path, len(self.images))

    def epoch_before(self, epoch: int) -> int | None:
        """The last epoch before this one whose assignment is there."""
        return max((e for e in self.epochs if e < epoch), default=None)

    def require_images(self, flag: str = "--data") -> None:
        """Check that the images can be opened, without looking at all of them.

        Args:
            flag: the one that says where they are now.

        Raises:
            InputError: they are not where they were.
        """
        step = max(len(self.images) // LOOKED_AT, 1)
        for index in range(0, len(self.images), step):
            with contextlib.suppress(UnreadableImageError), self.images.open(index):
                return
        raise InputError(
            f"{self.folder}: its images are not there any more (looked for "
            f"{self.images.where(0)} and others); give the folder or list as {flag}"
        )


@dataclass(frozen=True)
class ClusterView:
    """A cluster at an epoch.

    Attributes:
        number: the cluster's; from epoch to epoch the numbers mean nothing.
        members: `(size,) int64` image indices, ascending.
        purity: share of the members in the folder that most of them are in; None where all images
            of the run are in one folder.
        label: that folder.
        stayed: share of the members that were together in the epoch before, in its cluster
            `before`; both None where there is no epoch before.
    """

    number: int
    members: np.ndarray
    purity: float | None
    label: str | None
    stayed: float | None
    before: int | None

    @property
    def size(self) -> int:
        """Number of members."""
        return len(self.members)


def read_run(exp: Path, data: Path | None = None) -> Run:
    """Read an experiment folder.

    Args:
        data: the run's images, as `main.py` takes them, where they are not found any more: the
            settings have the folder or list as seen from where the run was started. Looked for
            there, it is also looked for from each folder above `exp`.

    Raises:
        InputError: the folder is none of a run, or `data` is not there.
    """
    listing = exp / "images.txt"
    if not listing.is_file():
        raise InputError(f"{exp}: not the experiment folder of a run: it has no images.txt")
    if data is not None and not data.exists():
        raise InputError(f"--data {data}: no such folder or list file")
    settings = _read_settings(exp)
    names = from_lines(read_text(listing))
    images = images_of_listing(data or _find_data(exp, settings), names)
    if not len(images):
        raise InputError(f"{listing}: names no image")
    return Run(exp, images, settings, read_metrics(exp))


def clusters_at(run: Run, epoch: int) -> list[ClusterView]:
    """The clusters of an epoch that are not empty, by number.

    Raises:
        InputError: its assignment is not there.
    """
    assignment = run.assignment(epoch)
    earlier = run.epoch_before(epoch)
    before = None if earlier is None else run.assignment(earlier)
    names = label_names(run.images)
    views = []
    for number, members in enumerate(group_by_cluster(assignment, assignment.max(initial=-1) + 1)):
        if members:
            rows = np.array(members)
            label, purity = _most_frequent(run.images.labels, rows)
            cluster, stayed = _most_frequent(before, rows)
            name = None if label is None else names[label]
            views.append(ClusterView(number, rows, purity, name, stayed, cluster))
    return views


def label_names(images: ImageList) -> list[str]:
    """The folder of each of the numbers in `images.labels`, as short as tells them apart."""
    folders = [os.path.abspath(folder) for folder in sorted(set(images.folders))]  # noqa: PTH100
    above = os.path.commonpath(folders)
    return [os.path.relpath(folder, above) for folder in folders]


def _most_frequent(
    values: np.ndarray | None, rows: np.ndarray
) -> tuple[int, float] | tuple[None, None]:
    """Of the values ≥ 0 in some rows the most frequent one (the smallest of several), and the share
    of all the rows that have it."""
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


def _find_data(exp: Path, settings: dict[str, Any]) -> Path:
    data = Path(settings.get("data") or "")
    places = [data, *(above / data for above in exp.resolve().parents)]
    # of a text that can be no name, too
    return next((place for place in places if os.path.exists(place)), data)  # noqa: PTH110
