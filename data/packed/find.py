"""From a path to the images in containers that it means."""

import sys
from pathlib import Path

import numpy as np

from data.packed.build import index_of
from data.packed.containers import Containers, find_containers
from data.packed.entries import WHOLE
from data.packed.index import Index
from data.packed.packed import Packed
from parallel.collectives import rank
from system.errors import InputError
from system.names import printable

MOST_NOTES = 5
LARGE = 4e6  # bytes of a page; reading one image decompresses all of it


def find_packed(path: Path, quiet: bool = False) -> Packed | None:
    """The images in the containers that a path means, or None if it means none.

    Args:
        quiet: as for `open_containers`.

    Raises:
        InputError: as `find_containers` and `open_containers`.
    """
    containers = find_containers(path)
    return None if containers is None else open_containers(containers, quiet)


def open_containers(containers: Containers, quiet: bool = False) -> Packed:
    """The images in containers. Says on stderr what is left out, unless `quiet`.

    Raises:
        InputError: a container is damaged, or none holds an image.
    """
    index = index_of(containers)
    if rank() == 0 and not quiet:
        notes = [*containers.notes, *index.notes, *_warn_of_large_pages(index)]
        _say(containers.given, notes)
    if len(index) == 0:
        count = len(containers.names)
        what = "this container" if count == 1 else f"any of its {count:,} containers"
        raise InputError(f"{containers.given}: no image in {what}")
    return Packed(containers.root, index)


def _say(given: str, notes: list[str]) -> None:
    more = len(notes) - MOST_NOTES
    if more > 0:
        notes = [*notes[:MOST_NOTES], f"{more:,} more such lines"]
    for note in notes:
        sys.stderr.write(f"note: {printable(f'{given}: {note}')}\n")


def _warn_of_large_pages(index: Index) -> list[str]:
    if index.key["kind"] != "parquet" or "part" not in index.arrays:
        return []
    some = slice(None, None, max(len(index) // 10_000, 1))
    lengths, parts = (index.arrays[name][some] for name in ("length", "part"))
    mean = float(np.where(parts == WHOLE, 0, lengths).mean())
    if mean < LARGE:
        return []
    return [
        f"reading one image decompresses {mean / 1e6:.0f} MB, so training is slow; python -m "
        "tools.prepare_data SOURCE COPY --shards N makes a quick copy"
    ]
