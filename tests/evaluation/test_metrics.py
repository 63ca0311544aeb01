"""Metrics against hand-computed cases and scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    top_k_accuracy_score,
)

from cluster.quality import nmi, purity
from evaluation.metrics import average_precision, interpolated_average_precision, top_k

A = np.array([0, 0, 0, 1, 1, 1])
B = np.array([0, 0, 1, 1, 1, 1])


def test_nmi_by_hand() -> None:
    def entropy(*p: float) -> float:
        return -sum(q * math.log(q) for q in p)

    information = entropy(1 / 2, 1 / 2) + entropy(1 / 3, 2 / 3) - entropy(1 / 3, 1 / 6, 1 / 2)
    geometric_mean = math.sqrt(entropy(1 / 2, 1 / 2) * entropy(1 / 3, 2 / 3))
    assert nmi(A, B) == pytest.approx(information / geometric_mean)


def test_nmi_leaves_out_rows_that_either_leaves_out() -> None:
    assert nmi(np.array([0, 1, -1, 0, 1]), np.array([5, 6, 5, 5, -1])) == pytest.approx(1)


def test_purity_by_hand() -> None:
    assert purity(A, B) == pytest.approx(5 / 6)
    assert purity(np.array([0, 0, 0, -1]), np.array([1, 1, 2, 2])) == pytest.approx(2 / 3)


def test_top_k_by_hand_and_by_scikit_learn() -> None:
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])
    labels = np.array([1, 1, 1])
    assert top_k(scores, labels, 1) == pytest.approx(1 / 3)
    assert top_k(scores, labels, 2) == pytest.approx(2 / 3), "the tie counts against us"
    assert top_k(np.full((2, 3), np.nan), np.array([0, 1]), 1) == 0
    random = np.random.default_rng(0)
    scores, labels = random.normal(size=(200, 12)), random.integers(12, size=200)
    for k in (1, 5):
        assert top_k(scores, labels, k) == pytest.approx(top_k_accuracy_score(labels, scores, k=k))


def test_average_precisions_by_hand() -> None:
    """From the top: yes, no, no, yes, yes; the precisions there 1, 1/2, 1/3, 2/4, 3/5."""
    scores, positive = np.array([3.0, 9, 5, 2, 7]), np.array([True, True, False, True, False])
    assert average_precision(scores, positive) == pytest.approx((1 + 2 / 4 + 3 / 5) / 3)
    assert interpolated_average_precision(scores, positive) == pytest.approx(
        (1 + 3 / 5 + 3 / 5) / 3
    )


def test_ties_count_against_us() -> None:
    scores, positive = np.array([1.0, 1, 0]), np.array([True, False, False])
    assert average_precision(scores, positive) == pytest.approx(1 / 2)
    assert interpolated_average_precision(scores, positive) == pytest.approx(1 / 2)


def test_average_precision_is_0_without_positives() -> None:
    scores, positive = np.arange(3.0), np.zeros(3, bool)
    assert average_precision(scores, positive) == 0
    assert interpolated_average_precision(scores, positive) == 0


def test_average_precisions_by_scikit_learn() -> None:
    random = np.random.default_rng(0)
    scores, positive = random.normal(size=300), random.random(300) < 0.2
    assert average_precision(scores, positive) == pytest.approx(
        average_precision_score(positive, scores)
    )
    precision, recall, _ = precision_recall_curve(positive, scores)
    envelope = np.maximum.accumulate(precision)  # from the largest recall down
    area = -(np.diff(recall) * envelope[:-1]).sum()
    assert interpolated_average_precision(scores, positive) == pytest.approx(area)
