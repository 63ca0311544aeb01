"""The experiment folder `--exp`: everything that a run leaves behind."""

import contextlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from checkpoint import place_of, save_checkpoint
from data.images import MOST_UNREADABLE, ImageList
from distributed import gather_objects, together, world_size
from errors import InputError, shorten
from files import (
    atomic_write,
    make_experiment_folder,
    new_numbered_folder,
    remove_leftovers,
    write_text,
)
from results import plain_settings, versions
from state import OWN_SETTINGS
from util import Logger

log = logging.getLogger("deepcluster")

RESULTS = ("checkpoint.pth.tar", "checkpoints", "clusters", "metrics.jsonl")


class Experiment:
    """An experiment folder, opened for a new run or to continue the one that it holds.

    Args:
        folder: made where it is missing.
        images: what the run is over, written to `images.txt`.
        settings: the run's arguments, written to `config.json`.
        resume: the file of the checkpoint that the run continues from, if any; where it lies in
            this folder, the folder's logs go on from where they were when it was saved, and what
            the run did after that is set aside in `set_aside/NNN`.
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
        self.continues = resume is not None and folder_of(resume).resolve() == folder.resolve()
        if self.continues:
            self._check_same_run()
        else:
            self._refuse_results()
        make_experiment_folder(self.folder)
        self.clusters = Logger(folder / "clusters")
        self.unreadable = self._known_unreadable() if self.continues else {}

    def __enter__(self) -> "Experiment":
        self._handlers = _log_handlers(
            self.folder / "log.txt", self.continues, bool(self.settings["verbose"])
        )
        log.setLevel(logging.INFO)
        for handler in self._handlers:
            log.addHandler(handler)
        if self.continues:
            self._set_aside_later()
            self._take_back_logs()
        else:
            write_text(self.folder / "images.txt", _listing(self.images))
            (self.folder / "bad_images.txt").unlink(missing_ok=True)
        self._log_changed_settings()
        config = {"settings": self.settings, "images": len(self.images), "versions": versions()}
        config["processes"] = world_size()
        write_text(self.folder / "config.json", json.dumps(config, indent=2) + "\n")
        first_epoch = 0 if self.checkpoint is None else self.checkpoint["epoch"]
        self.tensorboard = SummaryWriter(self.folder / "tensorboard", purge_step=first_epoch)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            log.info("stopped: %s", str(error) or type(error).__name__)
        for handler in self._handlers:
            log.removeHandler(handler)
            handler.close()
        self.tensorboard.close()

    def report_unreadable(self, unreadable: dict[int, str]) -> None:
        """Name each unreadable image once, in the log and in `bad_images.txt`.

        Args:
            unreadable: why, by image index.

        Raises:
            InputError: more than 1 % of the images are unreadable. (Of many processes, all raise it
                in `gather_unreadable`: one that left the others alone would keep them waiting.)
        """
        new = {
            index: reason for index, reason in unreadable.items() if index not in self.unreadable
        }
        if not new:
            return
        self.unreadable |= new
        for index, reason in new.items():
            log.warning("left out, unreadable: %s: %s", self.images.paths[index], reason)
        lines = [f"{self.images.paths[i]}\t{why}\n" for i, why in sorted(self.unreadable.items())]
        write_text(self.folder / "bad_images.txt", "".join(lines))
        if world_size() == 1:
            self._check_unreadable()

    def gather_unreadable(self) -> None:
        """Name those that other processes have met; all call it together.

        Raises:
            InputError: as `report_unreadable`.
        """
        for unreadable in gather_objects(self.unreadable):
            self.report_unreadable(unreadable)
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

    def save(self, name: str, contents: dict[str, Any]) -> None:
        """Save a checkpoint, which remembers where the folder's `clusters` end."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        end, digest = self.clusters.end, self.clusters.digest
        save_checkpoint(path, {**contents, "clusters_end": end, "clusters_digest": digest})

    def log_epoch(
        self, metrics: dict[str, Any], assignment: np.ndarray, clusters: list[list[int]]
    ) -> None:
        """Append an epoch to `clusters`, `assignments/`, `metrics.jsonl` and TensorBoard."""
        epoch = metrics["epoch"]
        self.clusters.log(clusters)
        self.save_assignment(epoch, assignment)
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(metrics) + "\n")
            lines.flush()
            os.fsync(lines.fileno())
        for name, value in _scalars(metrics):
            self.tensorboard.add_scalar(name, value, epoch)
        self.tensorboard.flush()

    def save_assignment(self, epoch: int, assignment: np.ndarray) -> None:
        """Write an assignment, the one that an epoch begins with, to `assignments/`."""
        (self.folder / "assignments").mkdir(exist_ok=True)
        with atomic_write(self.folder / "assignments" / f"epoch_{epoch:04d}.npy") as file:
            np.save(file, assignment)

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`, one for each epoch."""
        return read_metrics(self.folder)

    def _refuse_results(self) -> None:
        there = [name for name in RESULTS if (self.folder / name).exists()]
        if there:
            checkpoints = [
                *self.folder.glob("checkpoint.pth.tar"),
                *sorted(self.folder.glob("checkpoints/*.pth.tar"), key=os.path.getmtime)[::-1],
            ]
            onward = f"--resume {checkpoints[0]} to continue it, or " if checkpoints else ""
            raise InputError(
                f"--exp {self.folder}: holds another run's results ({', '.join(there)}); "
                f"give {onward}another --exp for a new run"
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
        before = listing.read_bytes() if listing.exists() else b""
        now = _listing(self.images).encode("utf-8", "surrogateescape")
        if before != now:
            old, new = before.count(b"\n"), now.count(b"\n")
            raise InputError(
                f"--resume: the images are not those of {listing} ({old} there, {new} now); "
                "give another --exp to go on with these"
            )

    def _set_aside_later(self) -> None:
        """Make room for a run that goes another way from here on: without its logs, a later
        checkpoint could not be continued any more. With copies of them it can, where it is put."""
        later = [*self._later_checkpoints(), *self._later_assignments()]
        if not later:
            return
        aside = new_numbered_folder(self.folder / "set_aside")
        for name in ("clusters", "metrics.jsonl", "images.txt"):
            if (self.folder / name).exists():
                shutil.copy2(self.folder / name, aside / name)
        for path in later:
            target = aside / path.relative_to(self.folder)
            target.parent.mkdir(exist_ok=True)
            path.replace(target)
        log.warning(
            "set aside in %s, as the run goes on from before them: %s",
            aside, ", ".join(str(path.relative_to(self.folder)) for path in later),
        )  # fmt: skip

    def _later_checkpoints(self) -> list[Path]:
        assert self.checkpoint is not None
        now = self.checkpoint["epoch"], self.checkpoint.get("step", 0)
        saved = [self.folder / "checkpoint.pth.tar", *self.folder.glob("checkpoints/*.pth.tar")]
        return sorted(path for path in saved if (place_of(path) or now) > now)

    def _later_assignments(self) -> list[Path]:
        assert self.checkpoint is not None
        epoch, clusters = self.checkpoint["epoch"], self.checkpoint.get("clusters")
        # the network's own: within an epoch they are in use, at its begin they are found again, and
        # are the same if nothing but the length of the run has changed
        stays = clusters is not None and clusters["epoch"] == epoch
        if self.checkpoint.get("step", 0) == 0:
            stays = stays and not set(self._changed_settings()) - {"epochs", "checkpoints"}
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
        if changed:
            log.info("settings changed: %s", ", ".join(changed))

    def _known_unreadable(self) -> dict[int, str]:
        path = self.folder / "bad_images.txt"
        if not path.exists():
            return {}
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        # from the right: a name may hold a tab, a reason has none
        lines = (line.rpartition("\t") for line in text.split("\n"))
        reasons = {path: reason for path, _, reason in lines}
        return {i: reasons[p] for i, p in enumerate(self.images.paths) if p in reasons}


class Bystander:
    """What all processes but one have in the place of an `Experiment`: they write nothing."""

    def __init__(self) -> None:
        self.unreadable: dict[int, str] = {}

    def __enter__(self) -> "Bystander":
        return self

    def __exit__(self, *error: object) -> None: ...

    def report_unreadable(self, unreadable: dict[int, str]) -> None:
        self.unreadable |= unreadable

    def gather_unreadable(self) -> None:
        gather_objects(self.unreadable)
        with together():
            pass  # the one that writes knows whether they are too many

    def save(self, name: str, contents: dict[str, Any]) -> None: ...

    def log_epoch(
        self, metrics: dict[str, Any], assignment: np.ndarray, clusters: list[list[int]]
    ) -> None: ...

    def save_assignment(self, epoch: int, assignment: np.ndarray) -> None: ...


def _listing(images: ImageList) -> str:
    return "".join(f"{path}\n" for path in images.paths)


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


def folder_of(checkpoint: Path) -> Path:
    """The experiment folder that a checkpoint was saved in."""
    folder = checkpoint.parent
    return folder.parent if folder.name == "checkpoints" else folder


def results_folder(path: Path, checkpoint: dict[str, Any], kind: str) -> Path:
    """Where the results of judging a checkpoint go: beside it, one folder for each epoch of a
    network."""
    name = path.name.split(".")[0]
    of = f"epoch_{checkpoint.get('epoch')}" if name == "checkpoint" else name
    return folder_of(path) / f"{kind}_{of}"


class _Console(logging.Handler):
    """Lines on standard output that do not break a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):  # a full disk, a closed pipe: the run goes on without
            tqdm.write(self.format(record), file=sys.stdout)
            sys.stdout.flush()


def _log_handlers(path: Path, append: bool, verbose: bool) -> list[logging.Handler]:
    mode = "a" if append else "w"
    file = logging.FileHandler(path, mode, encoding="utf-8", errors="backslashreplace")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    console = _Console(level=logging.INFO if verbose else logging.WARNING)
    return [file, console]


def _scalars(metrics: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a line of `metrics.jsonl` as (tag, value)."""
    for name, value in metrics.items():
        if isinstance(value, dict):
            yield from _scalars(value, f"{prefix}{name}/")
        elif value is not None:
            yield prefix + name, value
