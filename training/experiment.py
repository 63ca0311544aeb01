"""The experiment folder `--exp`: everything that a run leaves behind."""

import argparse
import contextlib
import json
import logging
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.checkpoint import save_checkpoint
from checkpoints.folder import NEWEST, PREVIOUS, folder_of, remove_old
from cluster.pickles import Logger
from cluster.quality import group_by_cluster
from data.images import ImageList
from data.listing import to_listing
from data.reading import AS_STORED
from parallel.collectives import rank, world_size
from system.errors import InputError
from system.files import make_experiment_folder, new_numbered_folder, write_text
from system.locks import sole_user
from system.names import printable
from system.results import plain_settings, versions
from training.assignments import MOST_LISTED, assignment_path, prototypes_path, write_assignment
from training.logs import LOG, METRICS, Curves, log_handlers, log_metrics, read_metrics
from training.resume import AUTO, OWN_SETTINGS
from training.rewind import check_may_begin_again, check_same_run, remove_logs, take_back
from training.unreadable import Unreadable, UnreadableElsewhere

log = logging.getLogger("deepcluster")

LOCK = ".lock"
RESULTS = (NEWEST, PREVIOUS, "checkpoints", "clusters", METRICS)


class Experiment:
    """An experiment folder, opened for a new run or to continue the run in it.

    Args:
        folder: made if missing.
        images: the run's images, written to `images.txt`.
        settings: the run's arguments, written to `config.json`.
        resume: the file of the checkpoint to resume from, if any. If it is in this folder, the
            folder's logs continue from the checkpoint, and later results are removed. `AUTO` starts
            a run in a folder without checkpoints, over the logs of one that was killed before its
            first.
        checkpoint: the contents of that file.

    Raises:
        InputError: the folder holds another run's results or a run over other images, or can't be
            written.
    """

    def __init__(
        self,
        folder: Path,
        images: ImageList,
        settings: dict[str, Any],
        resume: Path | None = None,
        checkpoint: dict[str, Any] | None = None,
    ) -> None:
        self.folder, self.images, self.checkpoint = folder, images, checkpoint
        self.settings = plain_settings(settings)
        self.continues = (
            checkpoint is not None
            and resume is not None
            and folder_of(resume).resolve() == folder.resolve()
        )
        self.begins_again = resume == AUTO
        if self.continues:
            assert checkpoint is not None
            check_same_run(folder, images, checkpoint)
        elif self.begins_again:
            check_may_begin_again(folder)
        else:
            _check_no_results(folder)
        make_experiment_folder(self.folder)
        self.clusters = Logger(folder / "clusters")
        self.unreadable = Unreadable(folder, images, self.continues)
        if self.checkpoint is not None and "assignment" in self.checkpoint:
            kept = self.checkpoint["assignment"].numpy() >= 0
            self.unreadable.leave_out(set(np.flatnonzero(~kept).tolist()))
        self.resume = self.last_saved = None if self.begins_again else resume

    def __enter__(self) -> "Experiment":
        busy = f"--exp {self.folder}: another run of main.py is working there; wait, or stop it"
        with contextlib.ExitStack() as stack:
            stack.enter_context(sole_user(self.folder / LOCK, busy))
            self._begin_log(stack)
            self._begin()
            self._held = stack.pop_all()
        return self

    def _begin_log(self, until_done: contextlib.ExitStack) -> None:
        log.setLevel(logging.INFO)
        verbose = bool(self.settings["verbose"])
        for handler in log_handlers(self.folder / LOG, self.continues, verbose):
            until_done.callback(handler.close)
            until_done.callback(log.removeHandler, handler)
            log.addHandler(handler)

    def _begin(self) -> None:
        if self.continues:
            assert self.checkpoint is not None
            assert self.resume is not None
            take_back(self.folder, len(self.images), self.resume, self.checkpoint)
        else:
            if self.begins_again:
                remove_logs(self.folder)
            write_text(self.folder / "images.txt", to_listing(self.images))
            (self.folder / "bad_images.txt").unlink(missing_ok=True)
        if self.last_saved is not None:
            log.info("resuming from %s", self.last_saved)
        if len(self.images) > MOST_LISTED:
            why = "clusters: not written for more than %s images; assignments/*.npy hold the same"
            log.info(why, f"{MOST_LISTED:,}")
        self._log_changed_settings()
        config = {"settings": self.settings, "images": len(self.images), "versions": versions()}
        config["processes"] = world_size()
        write_text(self.folder / "config.json", json.dumps(config, indent=2) + "\n")
        first_epoch = 0 if self.checkpoint is None else self.checkpoint["epoch"]
        self.curves = Curves(self.folder / "tensorboard", first_epoch)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            log.info("stopped: %s", str(error) or type(error).__name__)
        self._held.close()

    def save(self, name: str, contents: dict[str, Any]) -> None:
        """Save a checkpoint. `checkpoint.pth.tar` keeps the one before it under another name; of
        the numbered ones, the last `--keep` stay."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        save_checkpoint(path, contents, self.folder / PREVIOUS if name == NEWEST else None)
        self.last_saved = path
        if name != NEWEST and self.settings.get("keep"):
            remove_old(self.folder, self.settings["keep"])

    def log_epoch(self, metrics: dict[str, Any], assignment: np.ndarray, k: int) -> None:
        """Append an epoch and its k clusters to `clusters` (of `MOST_LISTED` images at most),
        `assignments/`, `metrics.jsonl` and TensorBoard."""
        epoch = metrics["epoch"]
        if len(assignment) <= MOST_LISTED:
            self.clusters.log(group_by_cluster(assignment, k))
        self.save_assignment(epoch, assignment)
        log_metrics(self.folder, metrics)
        try:
            self.curves.add(dict(_scalars(metrics)), epoch)
        except OSError as error:  # metrics.jsonl has the same numbers
            log.warning("TensorBoard lacks epoch %d: %s: %s", epoch, error.filename, error.strerror)

    def save_assignment(self, epoch: int, assignment: np.ndarray) -> None:
        """Write the assignment that an epoch begins with to `assignments/`."""
        write_assignment(assignment_path(self.folder, epoch), assignment)

    def save_finished(
        self, epoch: int, assignment: np.ndarray, by_prototypes: np.ndarray | None
    ) -> None:
        """Write the finished network's assignment, and that to its prototypes if there is one."""
        self.save_assignment(epoch, assignment)
        if by_prototypes is not None:
            write_assignment(prototypes_path(self.folder), by_prototypes)

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`, one for each epoch."""
        return read_metrics(self.folder)

    def how_to_resume(self) -> str:
        """How to resume this run once it has stopped."""
        saved = self.folder / NEWEST
        if saved.exists():
            return f"the same command with --resume {shlex.quote(str(saved))}"
        return "the same command, which starts over: nothing was saved yet"

    def _log_changed_settings(self) -> None:
        if self.checkpoint is None:
            return
        before = {**AS_STORED.settings, **self.checkpoint.get("settings", {})}  # older ones lack it
        changed = [
            f"{name} {before[name]} → {value}"
            for name, value in self.settings.items()
            if name not in OWN_SETTINGS and name in before and before[name] != value
        ]
        data = before.get("data")
        if data is not None and data != self.settings.get("data"):
            changed.insert(0, f"images of {data} → {self.settings['data']}")
        digest = self.checkpoint.get("images_digest")
        if digest not in (None, self.images.digest):
            changed.insert(0, "other images, by name or order")
        if changed:
            log.info("settings changed: %s", printable(", ".join(changed)))


def _check_no_results(folder: Path) -> None:
    there = [name for name in RESULTS if (folder / name).exists()]
    if there:
        raise InputError(
            f"--exp {folder}: holds another run's results ({', '.join(there)}); "
            "give --resume auto to continue it, or another --exp for a new run"
        )


class Bystander:
    """An `Experiment` for the processes that write nothing: all but the first."""

    def __init__(self) -> None:
        self.unreadable = UnreadableElsewhere()
        self.folder: Path | None = None
        self.last_saved: Path | None = None

    def __enter__(self) -> "Bystander":
        return self

    def __exit__(self, *error: object) -> None: ...

    def save(self, name: str, contents: dict[str, Any]) -> None: ...

    def log_epoch(self, metrics: dict[str, Any], assignment: np.ndarray, k: int) -> None: ...

    def save_finished(
        self, epoch: int, assignment: np.ndarray, by_prototypes: np.ndarray | None
    ) -> None: ...


def _scalars(metrics: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in a line of `metrics.jsonl` as (tag, value)."""
    for name, value in metrics.items():
        if isinstance(value, dict):
            yield from _scalars(value, f"{prefix}{name}/")
        elif value is not None:
            yield prefix + name, value


def open_experiment(
    args: argparse.Namespace, images: ImageList, checkpoint: dict[str, Any] | None
) -> Experiment | Bystander:
    """The experiment folder; only the first process writes there.

    Raises:
        InputError: as `Experiment`.
    """
    if rank() > 0:
        return Bystander()
    return Experiment(experiment_folder(args), images, vars(args), args.resume, checkpoint)


def experiment_folder(args: argparse.Namespace) -> Path:
    """`--exp`, or else the folder of the resumed run, or else a new numbered one."""
    if args.exp is not None:
        return args.exp
    if args.resume is not None:
        return folder_of(args.resume)
    try:
        return new_numbered_folder("exp")
    except OSError as error:
        raise InputError(f"exp: cannot write there: {error.strerror}; give --exp") from error
