"""The folder of a resumed run: check that it belongs to the checkpoint, then cut its logs there."""

import logging
from collections.abc import Iterator, Sized
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.folder import NEWEST, checkpoints_of, is_sound, place_of
from cluster.pickles import Logger, read_clusters
from cluster.quality import group_by_cluster
from data.images import ImageList
from data.listing import describe_change, lines_of, to_listing
from system.errors import InputError, shorten
from system.files import remove_leftovers
from system.names import read_text
from training.assignments import (
    MOST_LISTED,
    assigned_epochs,
    assignment_path,
    prototypes_path,
    read_assignment,
)
from training.logs import METRICS, cut_metrics, read_metrics

log = logging.getLogger("deepcluster")


def check_same_run(folder: Path, images: ImageList, checkpoint: dict[str, Any]) -> None:
    """Check that a folder's logs can be continued from one of its checkpoints.

    Raises:
        InputError: the logs belong to another run or to other images, or are damaged.
    """
    if "step" not in checkpoint:
        raise InputError(
            f"--exp {folder}: the checkpoint was saved by the original code, whose logs can't be "
            "continued; give another --exp"
        )
    listing = folder / "images.txt"
    before = read_text(listing) if listing.exists() else ""
    now = to_listing(images)
    if before != now:
        change = describe_change(lines_of(before), lines_of(now))
        raise InputError(
            f"--resume: the images are not those of {listing} ({change}); "
            "give another --exp to continue with these"
        )
    _check_logs(folder, len(images), checkpoint)


def _check_logs(folder: Path, images: int, checkpoint: dict[str, Any]) -> None:
    """Check that each epoch before the checkpoint has its metrics and its assignment (`clusters` is
    rebuilt from these), and that the last assignment is the checkpoint's."""
    epoch = checkpoint["epoch"]
    logged = [line["epoch"] for line in read_metrics(folder) if line["epoch"] < epoch]
    assigned = _assigned_before(folder, epoch)
    first = max(epoch - max(len(logged), len(assigned)), 0)
    expected = list(range(first, epoch))
    for path, epochs in ((folder / METRICS, logged), (folder / "assignments", assigned)):
        if epochs != expected:
            raise InputError(
                f"--resume: {path} has the epochs {shorten(epochs)} and should have "
                f"{shorten(expected)}; repair it, or give another --exp"
            )
    for number in expected:
        path = assignment_path(folder, number)
        assignment = read_assignment(path, images)
    last = checkpoint.get("assignment" if checkpoint["step"] == 0 else "previous")
    if expected and last is not None and not np.array_equal(assignment, last.numpy()):
        raise InputError(
            f"--resume: {path} differs from the checkpoint's assignment: the folder holds another "
            "run's results; give another --exp"
        )


def check_may_begin_again(folder: Path) -> None:
    """Check that a folder without checkpoints never had any: it holds one epoch at most.

    Raises:
        InputError: there are more epochs, so the checkpoints were removed; or a log is damaged.
    """
    clusters = folder / "clusters"
    logs: dict[str, Sized] = {
        "assignments": assigned_epochs(folder),
        METRICS: read_metrics(folder),
        "clusters": read_clusters(clusters) if clusters.exists() else [],
    }
    for name, epochs in logs.items():
        if len(epochs) > 1:
            raise InputError(
                f"--exp {folder}: {name} has {len(epochs)} epochs of a run, and there is no "
                "checkpoint to resume from; give another --exp, or put a checkpoint back"
            )


def take_back(folder: Path, images: int, resume: Path, checkpoint: dict[str, Any]) -> None:
    """Cut a folder's logs at a checkpoint, and remove later checkpoints and assignments. A run that
    is killed meanwhile can be resumed from the same checkpoint.

    Args:
        images: their number.
        resume: the checkpoint's file, in this folder.
    """
    epoch, step = checkpoint["epoch"], checkpoint["step"]
    # checkpoints first: `--resume auto` then finds this one, and cuts the rest again
    later = _later_checkpoints(folder, resume, (epoch, step))
    later += [assignment_path(folder, n) for n in assigned_epochs(folder) if n > epoch]
    for path in later:
        path.unlink()
    if later:
        names = ", ".join(str(path.relative_to(folder)) for path in later)
        log.warning("back to epoch %d, step %d (%s); removed: %s", epoch, step, resume.name, names)
    prototypes_path(folder).unlink(missing_ok=True)  # of a network that now trains on
    remove_leftovers(folder)
    if images <= MOST_LISTED:
        Logger(folder / "clusters").rewrite(_clusters(folder, images, epoch))
    else:
        (folder / "clusters").unlink(missing_ok=True)  # of an older version
    cut_metrics(folder, epoch)


def remove_logs(folder: Path) -> None:
    """Remove the logs of a run that starts over."""
    remove_leftovers(folder)
    assignments = [assignment_path(folder, epoch) for epoch in assigned_epochs(folder)]
    for path in (*assignments, prototypes_path(folder), folder / "clusters", folder / METRICS):
        path.unlink(missing_ok=True)


def _clusters(folder: Path, images: int, end: int) -> Iterator[list[list[int]]]:
    """The items of `clusters` before an epoch. The metrics have the number of clusters, the empty
    ones included."""
    counts = {line["epoch"]: int(line.get("clusters") or 0) for line in read_metrics(folder)}
    for epoch in _assigned_before(folder, end):
        assignment = read_assignment(assignment_path(folder, epoch), images)
        yield group_by_cluster(assignment, max(counts[epoch], assignment.max() + 1))


def _assigned_before(folder: Path, end: int) -> list[int]:
    return [epoch for epoch in assigned_epochs(folder) if epoch < end]


def _later_checkpoints(folder: Path, resume: Path, place: tuple[int, int]) -> list[Path]:
    """The checkpoints after a place of the run, the latest first; also the newest if it is damaged,
    because the next save would replace the sound one before it by this one."""
    return [
        path
        for path in checkpoints_of(folder)
        if path != resume
        and ((place_of(path) or place) > place or (path.name == NEWEST and not is_sound(path)))
    ]
