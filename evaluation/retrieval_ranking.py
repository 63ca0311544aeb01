"""Rankings of a database for queries, and how good they are by the rules of Oxford5k and Paris6k.

Knows arrays and names only. Vectors are rows of unit length, scores their dot products.
"""

from collections.abc import Collection, Iterable, Sequence

import numpy as np

BLOCK = 1024  # database vectors that are compared with all the others at a time


def rank(queries: np.ndarray, database: np.ndarray) -> np.ndarray:
    """`(Q, D)` queries, `(N, D)` database → `(Q, N) int64`: its rows by falling score; equal scores
    leave them in the database's order."""
    return np.argsort(-(queries @ database.T), axis=1, kind="stable")


def expand_queries(queries: np.ndarray, database: np.ndarray, k: int) -> np.ndarray:
    """Average query expansion (Chum et al. 2007): `(Q, D)` queries, each replaced by the mean of
    itself and the k database vectors ranked first for it, normalised."""
    best = rank(queries, database)[:, :k]
    return unit_rows(queries + database[best].sum(axis=1))


def expand_database(database: np.ndarray, k: int) -> np.ndarray:
    """Database-side expansion: `(N, D)` vectors, each replaced by the mean of itself and of the k
    others with the largest scores to it, normalised."""
    expanded = np.empty_like(database)
    for start in range(0, len(database), BLOCK):
        block = database[start : start + BLOCK]
        scores = block @ database.T
        scores[np.arange(len(block)), start + np.arange(len(block))] = -np.inf  # itself
        nearest = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        expanded[start : start + BLOCK] = block + database[nearest].sum(axis=1)
    return unit_rows(expanded)


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """`(N, D)` rows at unit length; zero rows stay zero."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)


def average_precision(
    ranked_names: Iterable[str], good: Collection[str], junk: Collection[str]
) -> float:
    """Area under the precision-recall curve by the trapezoid rule of the Oxford buildings.

    Junk is skipped as if it were not there. At each other rank the area grows by the step in
    recall times the mean of the precisions before and after it, from recall 0 and precision 1 on.
    ROxford5k and RParis6k have the same rule: in terms of a positive's 0-based rank r, of which j
    positives are ahead, the two precisions are j / r (1 where r = 0) and (j + 1) / (r + 1).

    Args:
        ranked_names: the database, best first.
        good: what should come first. What the ranking lacks of it counts as never found.
        junk: neither right nor wrong.

    Returns:
        From 0 to 1; 0 where nothing is good.
    """
    ranks = positive_ranks(ranked_names, good, junk)
    ahead = np.arange(len(ranks))
    before = np.where(ranks == 0, 1.0, ahead / np.maximum(ranks, 1))
    after = (ahead + 1) / (ranks + 1)
    return float(((before + after) / 2).sum() / max(len(set(good)), 1))


def precision_at(
    k: int, ranked_names: Sequence[str], good: Collection[str], junk: Collection[str]
) -> float:
    """Fraction that is good of the first k without the junk, as ROxford5k and RParis6k count it:
    where the last good one comes before rank k, of the ranks up to that one."""
    ranks = positive_ranks(ranked_names, good, junk)
    if len(ranks) == 0:
        return 0.0
    counted = min(k, int(ranks[-1]) + 1)
    return float((ranks < counted).sum() / counted)


def positive_ranks(
    ranked_names: Iterable[str], good: Collection[str], junk: Collection[str]
) -> np.ndarray:
    """The 0-based ranks `(P,) int64` of the good ones, in a ranking without the junk."""
    good, junk = frozenset(good), frozenset(junk)
    hits = [name in good for name in ranked_names if name not in junk]
    return np.flatnonzero(hits)
