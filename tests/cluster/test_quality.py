"""Measures of a clustering against labels."""

from itertools import permutations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.cluster import contingency_matrix

from cluster.quality import (
    accuracy,
    ari,
    clustering_metrics,
    describe_labels,
    label_metrics,
    nmi,
    purity,
)


def test_images_without_a_label_or_a_cluster_do_not_count() -> None:
    clusters = np.array([0, 0, 0, 1, 1, 1, -1, 1, 0])
    labels = np.array([4, 4, 2, 2, 2, 4, 2, -1, -1])
    both = (clusters >= 0) & (labels >= 0)
    for measure in (purity, nmi, ari, accuracy):
        assert measure(clusters, labels) == measure(clusters[both], labels[both])
    assert purity(clusters, labels) == 4 / 6
    assert accuracy(clusters, labels) == 4 / 6


def test_without_any_label_purity_and_accuracy_are_0() -> None:
    for measure in (purity, accuracy):
        assert measure(np.array([0, 1]), np.array([-1, -1])) == 0
        assert measure(np.array([-1, -1]), np.array([0, 1])) == 0


@pytest.mark.parametrize(
    ("clusters", "labels", "expected"),
    [
        ([5, 5, 0, 0], [0, 0, 1, 1], 1.0),  # numbers mean nothing
        ([0, 0, 0, 1, 1], [7, 7, 3, 7, 7], 3 / 5),  # 0 → 3 and 1 → 7 beats 0 → 7, 1 → nothing
        ([0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 1, 1], 4 / 6),  # one cluster of two is left over
        ([0, 0, 0, 0], [0, 1, 2, 2], 2 / 4),  # two labels are left over
        ([0, 1, 2, 3], [4, 4, 4, 4], 1 / 4),
    ],
)
def test_accuracy_by_hand(clusters: list[int], labels: list[int], expected: float) -> None:
    assert accuracy(np.array(clusters), np.array(labels)) == expected


def by_all_matchings(clusters: np.ndarray, labels: np.ndarray, k: int) -> float:
    """The best accuracy over all ways to name k clusters; names above the labels' are wrong."""
    names = np.array(list(permutations(range(k))))  # (k!, k)
    return float((names[:, clusters] == labels).mean(axis=1).max())


@pytest.mark.parametrize(("k", "classes"), [(5, 3), (5, 5), (3, 5), (6, 2), (1, 4)])
def test_accuracy_is_the_best_of_all_matchings(k: int, classes: int) -> None:
    rng = np.random.default_rng(k + 10 * classes)
    for _ in range(10):
        clusters, labels = rng.integers(k, size=40), rng.integers(classes, size=40)
        expected = by_all_matchings(clusters, labels, max(k, classes))
        assert accuracy(clusters, labels) == pytest.approx(expected)


@pytest.mark.parametrize(("k", "classes"), [(200, 30), (30, 200)])
def test_accuracy_is_scipys_hungarian_matching(k: int, classes: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(classes, size=3000)
    clusters = np.where(rng.random(3000) < 0.4, labels * 7 % k, rng.integers(k, size=3000))
    counts = contingency_matrix(labels, clusters)
    expected = counts[linear_sum_assignment(counts, maximize=True)].sum() / 3000
    assert accuracy(clusters, labels) == pytest.approx(expected)
    assert purity(clusters, labels) == pytest.approx(counts.max(axis=0).sum() / 3000)


def test_a_line_of_metrics_has_every_measure() -> None:
    clusters, labels = np.array([0, 0, 0, 1, 1, 2, -1]), np.array([0, 0, 1, 1, 1, 1, 0])
    found = clustering_metrics(clusters, clusters, labels, k=3)
    assert found["acc"] == pytest.approx(4 / 6)
    assert found["purity"] == pytest.approx(5 / 6)
    assert found["ari"] == pytest.approx(adjusted_rand_score(labels[:6], clusters[:6]))
    assert found["nmi_labels"] == nmi(clusters, labels)
    assert describe_labels(found) == (
        f"NMI to the folder labels {found['nmi_labels']:.3f}, ACC 0.667, "
        f"ARI {found['ari']:.3f}, purity 0.833"
    )


def test_without_labels_there_is_nothing_to_say() -> None:
    found = label_metrics(np.array([0, 1]), None)
    assert found == dict.fromkeys(("nmi_labels", "acc", "ari", "purity"))
    assert describe_labels(found) == ""
