"""The experiment folder `--exp`: everything that a run leaves behind."""

import contextlib
import io
import json
import logging
import math
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from checkpoint import save_checkpoint
from checkpoint_folder import (
    NEWEST,
    PREVIOUS,
    checkpoints_of,
    folder_of,
    is_sound,
    place_of,
    remove_old,
)
from data.images import MOST_UNREADABLE, ImageList, describe_change
from distributed import gather_objects, together, world_size
from errors import InputError, shorten
from files import (
    append,
    atomic_write,
    make_experiment_folder,
    new_numbered_folder,
    remove_leftovers,
    write_text,
)
from finite import name_some
from locks import sole_user
from log_handlers import log_handlers
from names import from_lines, from_reasons, printable, read_text, to_line, to_lines, to_reasons
from results import plain_settings, versions
from state import AUTO, OWN_SETTINGS
from tensorboard_file import Curves
from util import Logger

log = logging.getLogger("deepcluster")

LOCK = ".lock"
RESULTS = (NEWEST, PREVIOUS, "checkpoints", "clusters", "metrics.jsonl")


class Experiment:
    """An experiment folder, opened for a new run or to continue the one that it holds.

    Args:
        folder: made where it is missing.
        images: what the run is over, written to `images.txt`.
        settings: the run's arguments, written to `config.json`.
        resume: the file of the checkpoint that the run continues from, if any; where it lies in
            this folder, the folder's logs go on from where they were when it was saved, and what
            the run did after that is set aside in `set_aside/NNN`. `AUTO` begins a run in a folder
            without checkpoints, and sets aside what there may be of one that was cut before its
            first.
        checkpoint: its contents.

    Raises:
        InputError: the folder holds another run's results, or a run over other images, or cannot
            be written.
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
            self._check_same_run()
        elif not self.begins_again:
            self._refuse_results()
        make_experiment_folder(self.folder)
        self.clusters = Logger(folder / "clusters")
        self.named = self._listed_unreadable() if self.continues else {}
        self.unreadable = self._left_out(self.named)
        self.resume = self.last_saved = None if self.begins_again else resume

    def __enter__(self) -> "Experiment":
        busy = (
            f"--exp {self.folder}: another run of main.py is at work there; wait for it, or stop it"
        )
        with contextlib.ExitStack() as stack:
            stack.enter_context(sole_user(self.folder / LOCK, busy))
            self._begin_log(stack)
            self._begin()
            self._held = stack.pop_all()
        return self

    def _begin_log(self, until_done: contextlib.ExitStack) -> None:
        log.setLevel(logging.INFO)
        verbose = bool(self.settings["verbose"])
        for handler in log_handlers(self.folder / "log.txt", self.continues, verbose):
            until_done.callback(handler.close)
            until_done.callback(log.removeHandler, handler)
            log.addHandler(handler)

    def _begin(self) -> None:
        if self.continues:
            self._set_aside_later()
            self._take_back_logs()
        else:
            if self.begins_again:
                self._set_aside_all()
            write_text(self.folder / "images.txt", to_lines(self.images.paths))
            (self.folder / "bad_images.txt").unlink(missing_ok=True)
        if self.last_saved is not None:
            log.info("going on from %s", self.last_saved)
        self._log_changed_settings()
        config = {"settings": self.settings, "images": len(self.images), "versions": versions()}
        config["processes"] = world_size()
        write_text(self.folder / "config.json", json.dumps(config, indent=2) + "\n")
        first_epoch = 0 if self.checkpoint is None else self.checkpoint["epoch"]
        self.curves = Curves(self.folder / "tensorboard", first_epoch)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            log.info("stopped: %s", str(error) or type(error).__name__)
        self._held.close()

    def begin_pass(self) -> None:
        """All images are read anew: one that could not be read a moment ago, of a disk that was
        away, shall not be left out for ever, nor count for ever."""
        self.unreadable = {}

    def report_unreadable(self, unreadable: dict[int, str]) -> None:
        """Name each unreadable image, in the log and in `bad_images.txt`; of those that stay so
        from one pass to the next, once.

        Args:
            unreadable: why, by image index.

        Raises:
            InputError: more than 1 % of the images are unreadable in this pass. (Of many processes,
                all raise it in `gather_unreadable`: one that left the others alone would keep them
                waiting.)
        """
        new = {
            index: reason for index, reason in unreadable.items() if index not in self.unreadable
        }
        if not new:
            return
        self.unreadable |= new
        for index, reason in new.items():
            if index not in self.named:
                name = printable(self.images.paths[index])
                log.warning("left out, unreadable: %s: %s", name, reason)
        self._list_unreadable(self.named | new)
        if world_size() == 1:
            self._check_unreadable()

    def gather_unreadable(self) -> None:
        """Name those that other processes have met; all call it together.

        Raises:
            InputError: as `report_unreadable`.
        """
        for unreadable in gather_objects(self.unreadable):
            self.report_unreadable(unreadable)
        self._list_unreadable(dict(self.unreadable))
        with together():
            self._check_unreadable()

    def _check_unreadable(self) -> None:
        if len(self.unreadable) > MOST_UNREADABLE * len(self.images):
            *_, last = self.unreadable.values()
            raise InputError(
                f"{self.images.root}: {len(self.unreadable)} of {len(self.images)} images are "
                f"unreadable, more than {MOST_UNREADABLE:.0%} (the last: {last}); mend or remove "
                f"those in {self.folder / 'bad_images.txt'}"
            )

    def describe_batch(self, losses: dict[int, float]) -> str:
        """Images that a step was taken on, by number with the loss of each, in words. Those that
        are to blame, if they can be told, come first; all of them are in `bad_batch.txt`."""
        blamed = sorted(losses, key=lambda image: math.isfinite(losses[image]))
        names = [printable(self.images.paths[image]) for image in blamed]
        path = self.folder / "bad_batch.txt"
        try:
            lines = (f"{to_line(self.images.paths[i])}\t{losses[i]}\n" for i in blamed)
            write_text(path, "".join(lines))
        except OSError as error:
            log.warning("%s: %s", error.filename, error.strerror)
            return name_some(names)
        return f"{name_some(names)} (all {len(names)} with their losses: {path})"

    def save(self, name: str, contents: dict[str, Any]) -> None:
        """Save a checkpoint, which remembers where the folder's `clusters` end.

        The newest, `checkpoint.pth.tar`, leaves the one before it under another name; of the
        numbered ones, as many stay as `--keep` says.
        """
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        end, digest = self.clusters.end, self.clusters.digest
        contents = {**contents, "clusters_end": end, "clusters_digest": digest}
        save_checkpoint(path, contents, self.folder / PREVIOUS if name == NEWEST else None)
        self.last_saved = path
        if name != NEWEST and self.settings.get("keep"):
            remove_old(self.folder, self.settings["keep"])

    def log_epoch(
        self, metrics: dict[str, Any], assignment: np.ndarray, clusters: list[list[int]]
    ) -> None:
        """Append an epoch to `clusters`, `assignments/`, `metrics.jsonl` and TensorBoard."""
        epoch = metrics["epoch"]
        self.clusters.log(clusters)
        self.save_assignment(epoch, assignment)
        append(self.folder / "metrics.jsonl", (json.dumps(metrics) + "\n").encode())
        try:
            self.curves.add(dict(_scalars(metrics)), epoch)
        except OSError as error:  # they are in metrics.jsonl, too
            log.warning("TensorBoard lacks epoch %d: %s: %s", epoch, error.filename, error.strerror)

    def save_assignment(self, epoch: int, assignment: np.ndarray) -> None:
        """Write an assignment, the one that an epoch begins with, to `assignments/`."""
        (self.folder / "assignments").mkdir(exist_ok=True)
        content = io.BytesIO()  # NumPy, writing to a file, would not say why it cannot
        np.save(content, assignment)
        data = content.getbuffer()
        path = self.folder / "assignments" / f"epoch_{epoch:04d}.npy"
        with atomic_write(path, needed=lambda: len(data)) as file:
            file.write(data)

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`, one for each epoch."""
        return read_metrics(self.folder)

    def how_to_go_on(self) -> str:
        """What to start this run with, once it has stopped."""
        saved = self.folder / NEWEST
        if saved.exists():
            return f"the same command with --resume {shlex.quote(str(saved))}"
        return "the same command, which begins again: nothing was saved yet"

    def _refuse_results(self) -> None:
        there = [name for name in RESULTS if (self.folder / name).exists()]
        if there:
            raise InputError(
                f"--exp {self.folder}: holds another run's results ({', '.join(there)}); "
                "give --resume auto to continue it, or another --exp for a new run"
            )

    def _check_same_run(self) -> None:
        assert self.checkpoint is not None
        end, digest = (self.checkpoint.get(f"clusters_{name}") for name in ("end", "digest"))
        if end is None or digest is None:
            raise InputError(
                f"--exp {self.folder}: its checkpoint is the original code's, whose logs cannot be "
                "continued; give another --exp"
            )
        clusters = Logger(self.folder / "clusters")
        if clusters.path.exists() and not clusters.ended_at(end, digest):
            raise InputError(
                f"--resume: {clusters.path} does not begin as it was when the checkpoint was "
                "saved: the run has gone another way since, or the file is damaged; "
                "give another --exp to go on without it"
            )
        listing = self.folder / "images.txt"
        before = read_text(listing) if listing.exists() else ""
        now = self.images.paths
        # runs of before there were escapes have names with line breaks as they are
        if before not in (to_lines(now), "".join(f"{path}\n" for path in now)):
            change = describe_change(from_lines(before), now)
            raise InputError(
                f"--resume: the images are not those of {listing} ({change}); "
                "give another --exp to go on with these"
            )

    def _set_aside_later(self) -> None:
        """Make room for a run that goes another way from here on: without its logs, a later
        checkpoint could not be continued any more. With copies of them it can, where it is put."""
        later = [*self._later_checkpoints(), *self._later_assignments()]
        if not later:
            return
        aside = new_numbered_folder(self.folder / "set_aside")
        try:
            for path in self._logs():
                shutil.copy2(path, aside / path.name)
        except OSError:  # the disk is full; nothing was moved yet
            shutil.rmtree(aside)
            raise
        self._move(later, aside, "goes on from before them")

    def _set_aside_all(self) -> None:
        remove_leftovers(self.folder)
        logs = self._logs()
        assignments = sorted(self.folder.glob("assignments/epoch_*.npy"))
        if assignments or len(logs) > 1:
            aside = new_numbered_folder(self.folder / "set_aside")
            self._move([*assignments, *logs], aside, "begins again: there is no checkpoint")

    def _logs(self) -> list[Path]:
        """What a checkpoint that is set aside needs beside it to be continued."""
        names = ("clusters", "metrics.jsonl", "images.txt")
        return [self.folder / name for name in names if (self.folder / name).exists()]

    def _move(self, paths: Sequence[Path], aside: Path, why: str) -> None:
        for path in paths:
            target = aside / path.relative_to(self.folder)
            target.parent.mkdir(exist_ok=True)
            path.replace(target)
        names = ", ".join(str(path.relative_to(self.folder)) for path in paths)
        log.warning("set aside in %s, as the run %s: %s", aside, why, names)

    def _later_checkpoints(self) -> list[Path]:
        assert self.checkpoint is not None
        now = self.checkpoint["epoch"], self.checkpoint.get("step", 0)
        later = {p for p in checkpoints_of(self.folder) if (place_of(p) or now) > now}
        newest = self.folder / NEWEST
        if newest != self.resume and newest.exists() and not is_sound(newest):
            later.add(newest)  # with the next one that is saved it would become the one before
        return sorted(later)

    def _later_assignments(self) -> list[Path]:
        assert self.checkpoint is not None
        epoch, clusters = self.checkpoint["epoch"], self.checkpoint.get("clusters")
        # the network's own: within an epoch they are in use, at its begin they are found again, and
        # are the same if nothing but the length of the run has changed
        stays = clusters is not None and clusters["epoch"] == epoch
        if self.checkpoint.get("step", 0) == 0:
            stays = stays and not set(self._changed_settings()) - {"epochs", "checkpoints", "keep"}
        first = f"epoch_{epoch + stays:04d}.npy"
        return sorted(p for p in self.folder.glob("assignments/epoch_*.npy") if p.name >= first)

    def _take_back_logs(self) -> None:
        assert self.checkpoint is not None
        remove_leftovers(self.folder)
        if self.clusters.path.exists():
            self.clusters.cut(self.checkpoint["clusters_end"])
        kept = [m for m in self.read_metrics() if m["epoch"] < self.checkpoint["epoch"]]
        lines = "".join(json.dumps(metrics) + "\n" for metrics in kept)
        write_text(self.folder / "metrics.jsonl", lines)

    def _changed_settings(self) -> dict[str, str]:
        """By name, what each was and is."""
        before = (self.checkpoint or {}).get("settings", {})
        return {
            name: f"{before[name]} → {value}"
            for name, value in self.settings.items()
            if name not in OWN_SETTINGS and name in before and before[name] != value
        }

    def _log_changed_settings(self) -> None:
        changed = [f"{name} {change}" for name, change in self._changed_settings().items()]
        before = (self.checkpoint or {}).get("settings", {}).get("data")
        if before is not None and before != self.settings.get("data"):
            changed.insert(0, f"images of {before} → {self.settings['data']}")
        digest = (self.checkpoint or {}).get("images_digest")
        if digest not in (None, self.images.digest):
            changed.insert(0, "other images, by name or order")
        if changed:
            log.info("settings changed: %s", ", ".join(changed))

    def _list_unreadable(self, named: dict[int, str]) -> None:
        if named.keys() != self.named.keys():
            path = self.folder / "bad_images.txt"
            if named:
                write_text(path, to_reasons(self.images.paths, named))
            else:
                path.unlink(missing_ok=True)
        self.named = named

    def _listed_unreadable(self) -> dict[int, str]:
        path = self.folder / "bad_images.txt"
        reasons = from_reasons(read_text(path)) if path.exists() else {}
        return {i: reasons[p] for i, p in enumerate(self.images.paths) if p in reasons}

    def _left_out(self, named: dict[int, str]) -> dict[int, str]:
        """Of images, with reasons, those that the epoch goes on without; none where a new epoch
        begins."""
        if self.checkpoint is None or self.checkpoint.get("step", 0) == 0:
            return {}
        kept = self.checkpoint["assignment"] >= 0
        return {index: reason for index, reason in named.items() if not kept[index]}


class Bystander:
    """What all processes but one have in the place of an `Experiment`: they write nothing."""

    def __init__(self) -> None:
        self.unreadable: dict[int, str] = {}
        self.last_saved: Path | None = None

    def begin_pass(self) -> None:
        self.unreadable = {}

    def __enter__(self) -> "Bystander":
        return self

    def __exit__(self, *error: object) -> None: ...

    def report_unreadable(self, unreadable: dict[int, str]) -> None:
        self.unreadable |= unreadable

    def gather_unreadable(self) -> None:
        gather_objects(self.unreadable)
        with together():
            pass  # the one that writes knows whether they are too many

    def describe_batch(self, losses: dict[int, float]) -> str:
        return f"images {name_some([str(image) for image in losses])}, by number"

    def save(self, name: str, contents: dict[str, Any]) -> None: ...

    def log_epoch(
        self, metrics: dict[str, Any], assignment: np.ndarray, clusters: list[list[int]]
    ) -> None: ...

    def save_assignment(self, epoch: int, assignment: np.ndarray) -> None: ...


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of an experiment folder's `metrics.jsonl`, one for each epoch.

    Raises:
        InputError: one is damaged.
    """
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # a cut line has no end
        return [json.loads(line) for line in lines]
    except (OSError, ValueError, RecursionError) as error:
        reason = shorten(error)
        raise InputError(f"{path}: not a JSON object on each line: {reason}") from error


def results_folder(path: Path, checkpoint: dict[str, Any], kind: str) -> Path:
    """Where the results of judging a checkpoint go: beside it, one folder for each epoch of a
    network."""
    name = path.name.split(".")[0]
    of = f"epoch_{checkpoint.get('epoch')}" if name == "checkpoint" else name
    return folder_of(path) / f"{kind}_{of}"


def _scalars(metrics: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a line of `metrics.jsonl` as (tag, value)."""
    for name, value in metrics.items():
        if isinstance(value, dict):
            yield from _scalars(value, f"{prefix}{name}/")
        elif value is not None:
            yield prefix + name, value
