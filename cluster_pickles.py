"""Clusters as pickles: a run's `clusters`, and the released lists of (path, cluster)."""

import pickle
from collections.abc import Iterable
from pathlib import Path

from errors import InputError
from files import atomic_write
from util import Logger


def read_clusters(path: Path) -> list[list[list[int]]]:
    """A run's `clusters`: for each epoch for each cluster the numbers of its images.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        return Logger(path).data
    except Exception as error:  # damaged bytes make a pickle raise almost anything
        raise InputError(f"{path}: cannot read these clusters: {error}") from error


def write_assignment(path: Path, pairs: Iterable[tuple[str, int]]) -> None:
    """Write an assignment in the released format, in a protocol that Python 2 reads, too."""
    with atomic_write(path) as file:
        pickle.dump(list(pairs), file, protocol=2)
