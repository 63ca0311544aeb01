"""Assignments as they were released: a pickled list of (path, cluster)."""

import pickle
from collections.abc import Iterable
from pathlib import Path

from files import atomic_write


def write_assignment(path: Path, pairs: Iterable[tuple[str, int]]) -> None:
    """Write an assignment in the released format, in a protocol that Python 2 reads, too."""
    with atomic_write(path) as file:
        pickle.dump(list(pairs), file, protocol=2)
