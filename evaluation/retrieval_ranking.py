"""Rankings of a database for queries, and their scores by the rules of Oxford5k and Paris6k.

Works on arrays and names only. Vectors are rows of unit length, scores their dot products.
"""

from collections.abc import Collection, Iterable, Sequence

import numpy as np

BLOCK = 1024  # database vectors compared with all the others at a time


def rank(queries: np.ndarray, database: np.ndarray) -> np.ndarray:
    """`(Q, D)` queries, `(N, D)` database → `(Q, N) int64`: the database's rows by falling score,
    ties in the database's order."""
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

    Junk is removed first. At each rank the area grows by the step in recall times the mean of the
    precisions before and after it, starting from recall 0 and precision 1. ROxford5k and RParis6k
    have the same rule: for a positive at the 0-based rank r with j positives ahead of it, the two
    precisions are j / r (1 if r = 0) and (j + 1) / (r + 1).

    Args:
        ranked_names: the database, best first.
        good: the positives. Those that the ranking lacks count as never found.
        junk: names that are neither right nor wrong.

    Returns:
        From 0 to 1; 0 without positives.
    """
    ranks = positive_ranks(ranked_names, good, junk)
    ahead = np.arange(len(ranks))
    before = np.where(ranks == 0, 1.0, ahead / np.maximum(ranks, 1))
    after = (ahead + 1) / (ranks + 1)
    return float(((before + after) / 2).sum() / max(len(set(good)), 1))


def precision_at(
    k: int, ranked_names: Sequence[str], good: Collection[str], junk: Collection[str]
) -> float:
    """Fraction of positives among the first k without junk. As in ROxford5k and RParis6k, if the
    last positive comes before rank k, only the ranks up to it count."""
    ranks = positive_ranks(ranked_names, good, junk)
    if len(ranks) == 0:
        return 0.0
    counted = min(k, int(ranks[-1]) + 1)
    return float((ranks < counted).sum() / counted)


def positive_ranks(
    ranked_names: Iterable[str], good: Collection[str], junk: Collection[str]
) -> np.ndarray:
    """The 0-based ranks `(P,) int64` of the positives, without the junk."""
    good, junk = frozenset(good), frozenset(junk)
    hits = [name in good for name in ranked_names if name not in junk]
    return np.flatnonzero(hits)
