"""Groups of rows that are nearly the same."""

from collections.abc import Callable

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

COSINES = 2**24  # held at a time (float32: 64 MiB)
LINKS = 2**22  # between rows, held before they are merged into groups
ROUNDING = 1e-6  # of a cosine in float32


def near_duplicates(
    rows: np.ndarray, distance: float, advance: Callable[[int], None] = lambda done: None
) -> np.ndarray:
    """The group of each row: rows at this cosine distance or nearer are linked, and a group is what
    links connect (so its ends may be farther apart). Compares all pairs of rows, a block at a time.

    Args:
        rows: `(N, d) float32`, L2-normalised.
        distance: 1 − cosine, 0..1, without 1.
        advance: called with the number of rows of each block.

    Returns:
        `(N,) int64`, groups numbered from 0 in the order of their first rows, −1 for a row without
        near duplicates.

    Raises:
        ValueError: the distance is out of range.
    """
    if not 0 <= distance < 1:
        raise ValueError(f"distance {distance:g}: give a cosine distance from 0 to below 1")
    n, least = len(rows), 1 - distance - ROUNDING
    component = np.arange(n)
    start, links, held = 0, [np.empty((2, 0), np.int64)], 0
    while start < n:
        end = min(start + max(COSINES // n, 1), n)
        first, second = np.nonzero(rows[start:end] @ rows[:end].T >= least)
        links.append(np.stack([first + start, second])[:, second < first + start])
        held += links[-1].shape[1]
        if held > LINKS:
            component, links, held = _merged(component, links), [], 0
        advance(end - start)
        start = end
    return _numbered(_merged(component, links) if links else component)


def _merged(component: np.ndarray, links: list[np.ndarray]) -> np.ndarray:
    """The components `(N,)` when rows are linked, too; links are `(2, M)`, numbers of rows."""
    n = len(component)
    ends = np.concatenate([component[pairs] for pairs in links], axis=1)
    graph = coo_matrix((np.ones(ends.shape[1], bool), (ends[0], ends[1])), (n, n))
    return connected_components(graph, directed=False)[1][component]


def _numbered(component: np.ndarray) -> np.ndarray:
    """Components `(N,)`, any numbers, as groups; −1 for a component of one row."""
    _, first, inverse, sizes = np.unique(
        component, return_index=True, return_inverse=True, return_counts=True
    )
    several = np.flatnonzero(sizes > 1)
    groups = np.full(len(sizes), -1, np.int64)
    groups[several[np.argsort(first[several])]] = np.arange(len(several))
    return groups[inverse]
