"""From a path to the images in containers that it means."""

import sys
from pathlib import Path

import numpy as np

from data.packed.build import index_of
from data.packed.containers import find_containers
from data.packed.entries import WHOLE
from data.packed.index import Index
from data.packed.packed import Packed
from parallel.collectives import rank
from system.errors import InputError
from system.names import printable

MOST_NOTES = 5
LARGE = 4e6  # bytes of a page; reading one image decompresses all of it


def find_packed(path: Path, quiet: bool = False) -> Packed | None:
    """The images in the containers that a path means, or None if it means none. Says on stderr
    what is left out, unless `quiet`.

    Raises:
        InputError: a container is damaged, holds no image, or is of an unknown kind.
    """
    containers = find_containers(path)
    if containers is None:
        return None
    index = index_of(containers)
    if rank() == 0 and not quiet:
        _say(path, [*containers.notes, *index.notes, *_warn_of_large_pages(path, index)])
    if len(index) == 0:
        raise InputError(f"{path}: no image in its {len(containers.names)} containers")
    return Packed(containers.root, index)


def _say(path: Path, notes: list[str]) -> None:
    more = len(notes) - MOST_NOTES
    if more > 0:
        notes = [*notes[:MOST_NOTES], f"{more:,} more such lines"]
    for note in notes:
        sys.stderr.write(f"note: {printable(f'{path}: {note}')}\n")


def _warn_of_large_pages(path: Path, index: Index) -> list[str]:
    if index.key["kind"] != "parquet" or "part" not in index.arrays:
        return []
    some = slice(None, None, max(len(index) // 10_000, 1))
    lengths, parts = (index.arrays[name][some] for name in ("length", "part"))
    mean = float(np.where(parts == WHOLE, 0, lengths).mean())
    if mean < LARGE:
        return []
    return [
        f"reading one image decompresses {mean / 1e6:.0f} MB, so training is slow; python -m "
        f"tools.prepare_data {path} COPY --shards N makes a quick copy"
    ]
