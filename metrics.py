"""How good a clustering is, measured against another one or against labels."""

import numpy as np
from sklearn.metrics import normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix


def nmi(a: np.ndarray, b: np.ndarray) -> float:
    """Normalised mutual information I(A; B) / √(H(A) H(B)) in 0..1 of two assignments `(N,) int64`,
    over the images that both assign (≥ 0). The paper's section 4.1 uses it against the previous
    epoch's assignment and against labels."""
    both = (a >= 0) & (b >= 0)
    return float(normalized_mutual_info_score(a[both], b[both], average_method="geometric"))


def purity(assignment: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of the assigned images that carry the most frequent label of their cluster."""
    kept = assignment >= 0
    counts = contingency_matrix(labels[kept], assignment[kept])
    return float(counts.max(axis=0).sum() / counts.sum())
