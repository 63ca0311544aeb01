"""The folder of a run that is resumed: a check that it is this run's, and the way back to the
checkpoint. Results from after the checkpoint are removed; the run makes them again."""

import logging
from collections.abc import Iterator, Sized
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.folder import NEWEST, checkpoints_of, is_sound, place_of
from cluster.pickles import Logger, read_clusters
from cluster.quality import group_by_cluster
from data.images import ImageList, describe_change
from system.errors import InputError, shorten
from system.files import remove_leftovers
from system.names import from_lines, read_text, to_lines
from training.assignments import assigned_epochs, assignment_path, read_assignment
from training.logs import METRICS, cut_metrics, read_metrics

log = logging.getLogger("deepcluster")


def check_same_run(folder: Path, images: ImageList, checkpoint: dict[str, Any]) -> None:
    """Check that a folder's logs can be continued from one of its checkpoints.

    Raises:
        InputError: the logs are another run's, or over other images, or damaged.
    """
    if "step" not in checkpoint:
        raise InputError(
            f"--exp {folder}: its checkpoint is the original code's, whose logs cannot be "
            "continued; give another --exp"
        )
    listing = folder / "images.txt"
    before = read_text(listing) if listing.exists() else ""
    now = images.names
    if before != to_lines(now):
        change = describe_change(from_lines(before), from_lines(to_lines(now)))
        raise InputError(
            f"--resume: the images are not those of {listing} ({change}); "
            "give another --exp to go on with these"
        )
    _check_metrics(folder, checkpoint["epoch"])
    _check_assignments(folder, len(images), checkpoint)


def _check_metrics(folder: Path, epoch: int) -> None:
    done = _logged_epochs(folder, epoch)
    if done != list(range(epoch - len(done), epoch)):
        raise InputError(
            f"--resume: {folder / METRICS} does not have a line for each epoch before {epoch}, in "
            f"order, but {shorten(done)}; mend it, or give another --exp to go on without it"
        )


def _check_assignments(folder: Path, images: int, checkpoint: dict[str, Any]) -> None:
    """Check that `clusters` can be made again: each epoch in the logs has its assignment, and the
    last one is the checkpoint's."""
    epoch = checkpoint["epoch"]
    found = _assigned_before(folder, epoch)
    first = min([*found, *_logged_epochs(folder, epoch)], default=epoch)
    for number in range(first, epoch):
        path = assignment_path(folder, number)
        if number not in found:
            raise InputError(
                f"--resume: {path} is missing; put it back, or give another --exp to go on "
                "without it"
            )
        assignment = read_assignment(path, images)
    last = checkpoint.get("assignment" if checkpoint["step"] == 0 else "previous")
    if first < epoch and last is not None and not np.array_equal(assignment, last.numpy()):
        raise InputError(
            f"--resume: {path} is not as it was when the checkpoint was saved: the folder holds "
            "another run's results; give another --exp to go on without them"
        )


def check_may_begin_again(folder: Path) -> None:
    """Check that a folder without checkpoints holds no more than a run leaves that was cut before
    its first: one epoch.

    Raises:
        InputError: there is more, or a log is damaged.
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
                "checkpoint to go on from; give another --exp, or put a checkpoint back"
            )


def take_back(folder: Path, images: int, resume: Path, checkpoint: dict[str, Any]) -> None:
    """Take a folder back to where it was when a checkpoint of its own was saved. A run that is
    killed on the way can be resumed.

    Args:
        images: their number.
        resume: the checkpoint's file.
    """
    epoch = checkpoint["epoch"]
    later = _later_checkpoints(folder, resume, checkpoint) + _later_assignments(folder, checkpoint)
    for path in later:
        path.unlink()
    if later:
        names = ", ".join(str(path.relative_to(folder)) for path in later)
        place = f"epoch {epoch}, step {checkpoint['step']}"
        log.warning("taken back to %s, the place of %s; removed: %s", place, resume.name, names)
    remove_leftovers(folder)
    epochs = _assigned_before(folder, epoch)
    Logger(folder / "clusters").rewrite(_clusters(folder, images, epochs))
    left = cut_metrics(folder, epoch)
    if left == 0 and epochs:
        log.warning("%s was lost: it begins anew", folder / METRICS)


def remove_logs(folder: Path) -> None:
    """Make room for a run that begins again."""
    remove_leftovers(folder)
    assignments = [assignment_path(folder, epoch) for epoch in assigned_epochs(folder)]
    for path in (*assignments, folder / "clusters", folder / METRICS):
        path.unlink(missing_ok=True)


def _clusters(folder: Path, images: int, epochs: list[int]) -> Iterator[list[list[int]]]:
    """The items of `clusters`. How many clusters there were, empty ones included, only the metrics
    know."""
    counts = {line["epoch"]: int(line.get("clusters") or 0) for line in read_metrics(folder)}
    for epoch in epochs:
        assignment = read_assignment(assignment_path(folder, epoch), images)
        yield group_by_cluster(assignment, max(counts.get(epoch, 0), assignment.max() + 1))


def _logged_epochs(folder: Path, end: int) -> list[int]:
    return [line["epoch"] for line in read_metrics(folder) if line["epoch"] < end]


def _assigned_before(folder: Path, end: int) -> list[int]:
    return [epoch for epoch in assigned_epochs(folder) if epoch < end]


def _later_checkpoints(folder: Path, resume: Path, checkpoint: dict[str, Any]) -> list[Path]:
    """From the last one on: while one is left, `--resume auto` finds the logs that belong to it."""
    now = checkpoint["epoch"], checkpoint["step"]
    later = [path for path in checkpoints_of(folder) if (place_of(path) or now) > now]
    newest = folder / NEWEST
    if newest not in (resume, *later) and newest.exists() and not is_sound(newest):
        later.append(newest)  # with the next one that is saved it would become the one before
    return later


def _later_assignments(folder: Path, checkpoint: dict[str, Any]) -> list[Path]:
    """From the last one on. The checkpoint's own clusters stay: they may be the finished
    network's."""
    epoch, clusters = checkpoint["epoch"], checkpoint.get("clusters")
    first = epoch + (clusters is not None and clusters["epoch"] == epoch)
    later = [number for number in assigned_epochs(folder) if number >= first]
    return [assignment_path(folder, number) for number in reversed(later)]
