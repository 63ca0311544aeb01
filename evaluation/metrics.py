"""Scores of classifiers and rankings.

The protocols define average precision in three ways: by the precision at each positive's rank (VOC
classification), under the curve's monotone envelope (VOC with linear SVMs), and by trapezoids
(Oxford and Paris, in `retrieval_ranking.py`).
"""

import numpy as np


def top_k(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Fraction of the rows of `scores` (N, C) whose label (N,) is among the k largest scores; ties
    count against us."""
    own = scores[np.arange(len(scores)), labels]
    return float(((~(scores < own[:, None])).sum(axis=1) <= k).mean())


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Mean over the positives of the precision at each one's rank; ties count against us.

    Args:
        scores: `(N,)`; the highest is ranked first.
        positive: `(N,) bool`.
    """
    hits = _ranked(scores, positive)
    ranks = np.flatnonzero(hits) + 1
    return float((np.arange(1, len(ranks) + 1) / ranks).mean()) if len(ranks) else 0.0


def interpolated_average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the precision-recall curve's monotone envelope: at each recall the best precision
    there or beyond (VOC from 2010 on). Arguments as for `average_precision`."""
    hits = _ranked(scores, positive)
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[hits].mean()) if hits.any() else 0.0


def _ranked(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """`positive` from the highest score to the lowest; in a tie, negatives come first."""
    return positive[np.lexsort((positive, -scores))]
