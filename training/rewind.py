"""The folder of a run that is resumed: whether it is this run's, and how it is taken back to where
the checkpoint was saved. What the run did after that is set aside."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from checkpoints.folder import NEWEST, checkpoints_of, is_sound, place_of
from cluster.pickles import EMPTY, Logger
from data.images import ImageList, describe_change
from system.errors import InputError, shorten
from system.files import explained, in_words, new_numbered_folder, remove_leftovers
from system.names import from_lines, read_text, to_lines
from training.logs import METRICS, cut_metrics, read_metrics
from training.resume import OWN_SETTINGS

log = logging.getLogger("deepcluster")

EMPTY_END = len(EMPTY) - 1  # of `clusters` before the first epoch

# Settings that change how long a run is, or what it keeps, but nothing of what it computes.
HARMLESS = {"epochs", "checkpoints", "keep"}


def check_same_run(folder: Path, images: ImageList, checkpoint: dict[str, Any]) -> None:
    """Check that a folder's logs can be continued from one of its checkpoints.

    Raises:
        InputError: they have gone another way since, are over other images, or are damaged.
    """
    end, digest = (checkpoint.get(f"clusters_{name}") for name in ("end", "digest"))
    if end is None or digest is None:
        raise InputError(
            f"--exp {folder}: its checkpoint is the original code's, whose logs cannot be "
            "continued; give another --exp"
        )
    clusters = Logger(folder / "clusters")
    if clusters.path.exists() and not clusters.ended_at(end, digest):
        raise InputError(
            f"--resume: {clusters.path} does not begin as it was when the checkpoint was "
            "saved: the run has gone another way since, or the file is damaged; "
            "give another --exp to go on without it"
        )
    _check_metrics(folder, checkpoint["epoch"])
    listing = folder / "images.txt"
    before = read_text(listing) if listing.exists() else ""
    now = images.names
    if before != to_lines(now):
        change = describe_change(from_lines(before), from_lines(to_lines(now)))
        raise InputError(
            f"--resume: the images are not those of {listing} ({change}); "
            "give another --exp to go on with these"
        )


def _check_metrics(folder: Path, epoch: int) -> None:
    done = [line["epoch"] for line in read_metrics(folder) if line["epoch"] < epoch]
    if done != list(range(epoch - len(done), epoch)):
        raise InputError(
            f"--resume: {folder / METRICS} does not have a line for each epoch before {epoch}, in "
            f"order, but {shorten(done)}; mend it, or give another --exp to go on without it"
        )


def changed_settings(before: dict[str, Any], now: dict[str, Any]) -> dict[str, str]:
    """Settings that are not what they were when the checkpoint was saved: by name, what each was
    and is."""
    return {
        name: f"{before[name]} → {value}"
        for name, value in now.items()
        if name not in OWN_SETTINGS and name in before and before[name] != value
    }


def take_back(
    folder: Path, resume: Path, checkpoint: dict[str, Any], settings: dict[str, Any]
) -> None:
    """Take a folder back to where it was when a checkpoint of its own was saved, and set aside what
    came later."""
    later = [
        *_later_checkpoints(folder, resume, checkpoint),
        *_later_assignments(folder, checkpoint, settings),
    ]
    if later:
        _set_aside_later(folder, later)
    remove_leftovers(folder)
    clusters = Logger(folder / "clusters")
    if clusters.path.exists():
        clusters.cut(checkpoint["clusters_end"])
    left = cut_metrics(folder, checkpoint["epoch"])
    if left == 0 and checkpoint["clusters_end"] > EMPTY_END:
        log.warning("%s was lost: it begins anew", folder / METRICS)


def set_aside_all(folder: Path) -> None:
    """Make room for a run that begins again, as the one here has no checkpoint."""
    remove_leftovers(folder)
    logs = _logs(folder)
    assignments = sorted(folder.glob("assignments/epoch_*.npy"))
    if assignments or len(logs) > 1:
        aside = new_numbered_folder(folder / "set_aside")
        _move(folder, [*assignments, *logs], aside, "begins again: there is no checkpoint")


def _set_aside_later(folder: Path, later: Sequence[Path]) -> None:
    """Make room for a run that goes another way from here on: without its logs, a later checkpoint
    could not be continued any more. With copies of them it can, where it is put."""
    aside = new_numbered_folder(folder / "set_aside")
    try:
        for path in _logs(folder):
            _copy(path, aside / path.name)
    except OSError:  # the disk is full; nothing was moved yet
        shutil.rmtree(aside)
        raise
    _move(folder, later, aside, "goes on from before them")


def _copy(source: Path, target: Path) -> None:
    size = in_words(source.stat().st_size)
    with explained(target, lambda: size), source.open("rb") as old, target.open("wb") as new:
        shutil.copyfileobj(old, new)


def _logs(folder: Path) -> list[Path]:
    """What a checkpoint that is set aside needs beside it to be continued."""
    names = ("clusters", METRICS, "images.txt")
    return [folder / name for name in names if (folder / name).exists()]


def _move(folder: Path, paths: Sequence[Path], aside: Path, why: str) -> None:
    for path in paths:
        target = aside / path.relative_to(folder)
        target.parent.mkdir(exist_ok=True)
        path.replace(target)
    names = ", ".join(str(path.relative_to(folder)) for path in paths)
    log.warning("set aside in %s, as the run %s: %s", aside, why, names)


def _later_checkpoints(folder: Path, resume: Path, checkpoint: dict[str, Any]) -> list[Path]:
    now = checkpoint["epoch"], checkpoint.get("step", 0)
    later = {path for path in checkpoints_of(folder) if (place_of(path) or now) > now}
    newest = folder / NEWEST
    if newest != resume and newest.exists() and not is_sound(newest):
        later.add(newest)  # with the next one that is saved it would become the one before
    return sorted(later)


def _later_assignments(
    folder: Path, checkpoint: dict[str, Any], settings: dict[str, Any]
) -> list[Path]:
    epoch, clusters = checkpoint["epoch"], checkpoint.get("clusters")
    # the network's own: within an epoch they are in use, at its begin they are found again, and
    # are the same if nothing but the length of the run has changed
    stays = clusters is not None and clusters["epoch"] == epoch
    if checkpoint.get("step", 0) == 0:
        changed = changed_settings(checkpoint.get("settings", {}), settings)
        stays = stays and changed.keys() <= HARMLESS
    first = f"epoch_{epoch + stays:04d}.npy"
    return sorted(p for p in folder.glob("assignments/epoch_*.npy") if p.name >= first)
