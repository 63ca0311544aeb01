"""How good a classifier is, or a ranking.

The protocols have three average precisions: of the ranks themselves (VOC classification), under
the curve's monotone envelope (VOC with linear SVMs), and of trapezoids (Oxford and Paris, in
`retrieval_ranking.py`).
"""

import numpy as np


def top_k(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Fraction of the rows of `scores` (N, C) among whose k largest is that of the label (N,); ties
    count against us."""
    own = scores[np.arange(len(scores)), labels]
    return float(((~(scores < own[:, None])).sum(axis=1) <= k).mean())


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Mean, over the positives, of the precision down to each one's rank; ties count against us.

    Args:
        scores: `(N,)`, the highest first.
        positive: `(N,) bool`.
    """
    hits = _ranked(scores, positive)
    ranks = np.flatnonzero(hits) + 1
    return float((np.arange(1, len(ranks) + 1) / ranks).mean()) if len(ranks) else 0.0


def interpolated_average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the precision-recall curve's monotone envelope: at each recall the best precision
    that is reached there or beyond (VOC from 2010 on). Arguments as for `average_precision`."""
    hits = _ranked(scores, positive)
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[hits].mean()) if hits.any() else 0.0


def _ranked(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """`positive` from the highest score to the lowest, in a tie the negatives first."""
    return positive[np.lexsort((positive, -scores))]
