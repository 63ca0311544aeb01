"""Says when a data set's grey images lose their levels on the way to 8 bits."""

import contextlib

import numpy as np

from data.decode import UnreadableImageError
from data.images import ImageList
from parallel.collectives import rank
from system import cli

LOOKED_AT = 8  # images, spread over the data set
LEAST = 64  # grey levels that should be left, if there were a few times more
TIMES = 4


def warn_of_lost_levels(images: ImageList) -> None:
    """Look at some images, and warn on stderr if their values of more than 8 bits become few grey
    levels, as when 16 bits hold only 12. The first process does so for all."""
    if rank() > 0:
        return
    chosen = np.unique(np.linspace(0, len(images) - 1, LOOKED_AT).astype(int))
    stored, left = [np.empty(0)], [np.empty(0)]
    for index in chosen.tolist():
        with contextlib.suppress(UnreadableImageError):  # named where it is used
            values, grey = images.read_grey(index)
            stored.append(np.unique(values[np.isfinite(values)]))
            left.append(np.unique(grey))
    values, levels = (np.unique(np.concatenate(each)) for each in (stored, left))
    if len(levels) < LEAST and len(values) >= TIMES * len(levels) > 0:
        low, high = _range_around(values)
        cli.warn(
            f"{images.root}: grey images (values from {values[0]:g} to {values[-1]:g}) keep "
            f"{len(levels)} of their {len(values):,} levels; --range {low:g} {high:g} keeps more"
        )


def _range_around(values: np.ndarray) -> tuple[float, float]:
    """A range for ascending values: of whole bits, if that comes close."""
    low, high = float(values[0]), float(values[-1])
    whole = float(2 ** int(high).bit_length() - 1) if high >= 0 else high
    return (0.0, whole) if low >= 0 and high == int(high) and low < whole / 4 else (low, high)
