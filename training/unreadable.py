"""The images that a run can't read: named in its log and in `bad_images.txt`, and counted."""

import logging
from pathlib import Path

import numpy as np

from data.images import ImageList
from data.unreadable import MOST_UNREADABLE, remedy
from parallel.collectives import gather_objects, together
from system.errors import InputError
from system.files import write_text
from system.names import by_line, from_reasons, printable, read_text, to_line, to_reasons

log = logging.getLogger("deepcluster")


class Unreadable:
    """The unreadable images of a run, in the process that writes its folder.

    Args:
        folder: the experiment folder.
        images: all images.
        continues: keep the names in the folder.

    Attributes:
        now: the reason by index, for the images that this pass couldn't read.
    """

    def __init__(self, folder: Path, images: ImageList, continues: bool) -> None:
        self.path, self.images = folder / "bad_images.txt", images
        self.now: dict[int, str] = {}
        kept = continues and self.path.exists()
        self._named = from_reasons(read_text(self.path)) if kept else {}  # by the name as a line

    def leave_out(self, indices: set[int]) -> None:
        """Mark the images that the last epoch left out as unreadable, for a resume."""
        for index in sorted(indices) if self._named else ():
            if reason := self._named.get(to_line(self.images.names[index])):
                self.now[index] = reason

    def begin_pass(self, order: np.ndarray | None = None) -> None:
        """Forget the failures so far of the images that are tried again: all, or those of an
        epoch's order `(M,)` or `(M, 2)` (see `Method.draw`)."""
        self.now = _untried(self.now, order)

    def report(self, unreadable: dict[int, str]) -> None:
        """Name unreadable images in the log and in `bad_images.txt`, each only once until it can be
        read again. When there are too many, `gather` writes the others and ends the run.

        Args:
            unreadable: the reason, by image index.
        """
        new = {index: reason for index, reason in unreadable.items() if index not in self.now}
        if not new:
            return
        too_many = self._too_many()
        self.now |= new
        if too_many:  # the log has the first, and the file is written once
            return
        for index, reason in new.items():
            name = self.images.names[index]
            if to_line(name) not in self._named:
                log.warning("left out, unreadable: %s: %s", printable(name), reason)
        found = by_line(self.images.names, self.now)
        before = {line: reason for line, reason in self._named.items() if line not in found}
        self._write(before | found)

    def gather(self) -> None:
        """Name the unreadable images of all processes, which call this together after a pass.

        Raises:
            InputError: more than 1% of the images were unreadable in this pass, in every process.
        """
        for unreadable in gather_objects(self.now):
            self.report(unreadable)
        self._write(by_line(self.images.names, self.now))
        with together():
            self._check()

    def _too_many(self) -> bool:
        return len(self.now) > MOST_UNREADABLE * len(self.images)

    def _check(self) -> None:
        if self._too_many():
            *_, (index, reason) = self.now.items()
            name = printable(self.images.names[index])
            raise InputError(
                f"{self.images.place}: {len(self.now)} of {len(self.images)} images are "
                f"unreadable, more than {MOST_UNREADABLE:.0%} (all in {self.path}; the last: "
                f"{name}: {reason}); {remedy(self.now.values())}"
            )

    def _write(self, named: dict[str, str]) -> None:
        if named.keys() != self._named.keys():
            if named:
                write_text(self.path, to_reasons(named))
            else:
                self.path.unlink(missing_ok=True)
        self._named = named


class UnreadableElsewhere:
    """`Unreadable` for the processes that write nothing: all but the first."""

    def __init__(self) -> None:
        self.now: dict[int, str] = {}

    def begin_pass(self, order: np.ndarray | None = None) -> None:
        self.now = _untried(self.now, order)

    def report(self, unreadable: dict[int, str]) -> None:
        self.now |= unreadable

    def gather(self) -> None:
        gather_objects(self.now)
        with together():
            pass  # the first process raises if there are too many


def _untried(failures: dict[int, str], order: np.ndarray | None) -> dict[int, str]:
    """The failures of images that are not in an order."""
    if order is None or not failures:
        return {}
    images = order.reshape(len(order), -1)[:, 0]
    again = np.isin(list(failures), images)
    pairs = zip(failures.items(), again, strict=True)
    return {index: reason for (index, reason), tried in pairs if not tried}
