"""Images that can't be read, outside of training: named on stderr, or the end of an evaluation."""

import sys
from collections.abc import Iterable

from data.grey import RANGE
from data.images import ImageList
from system.errors import InputError
from system.names import printable

MOST_UNREADABLE = 0.01  # share of the images; above it, something is wrong with the data
LEAST_NAMED = 32  # unreadable images on stderr


class NameUnreadable:
    """Names each image that is left out once on stderr, with the reason: the first `LEAST_NAMED`,
    and more as long as few are unreadable.

    Attributes:
        named: the reason by index.
    """

    def __init__(self, images: ImageList) -> None:
        self.images = images
        self.named: dict[int, str] = {}
        self._most = max(LEAST_NAMED, int(MOST_UNREADABLE * len(images)))

    def __call__(self, unreadable: dict[int, str]) -> None:
        """Name images, given by index with the reasons."""
        for index, reason in unreadable.items():
            if index in self.named:
                continue
            if len(self.named) < self._most:
                path = printable(self.images.where(index))
                sys.stderr.write(f"left out, unreadable: {path}: {reason}\n")
            elif len(self.named) == self._most:
                more = f"more than {self._most:,} are unreadable; the others have no line"
                sys.stderr.write(f"{more}\n")
            self.named[index] = reason


class RaiseUnreadable:
    """Ends an evaluation whose results over fewer images could not be compared."""

    def __init__(self, images: ImageList) -> None:
        self.images = images

    def __call__(self, unreadable: dict[int, str]) -> None:
        """Raise for the first of some images, given by index with the reasons.

        Raises:
            InputError: there is one.
        """
        for index, reason in unreadable.items():
            raise InputError(f"{self.images.where(index)}: cannot read this image: {reason}")


def remedy(reasons: Iterable[str]) -> str:
    """What to do about unreadable images, from the reasons, as the end of a message."""
    by_range = {RANGE in reason for reason in reasons}
    advice = {True: f"give {RANGE}", False: "repair or remove them"}
    return ", and ".join(advice[by] for by in sorted(by_range, reverse=True))
