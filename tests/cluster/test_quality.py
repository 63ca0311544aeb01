"""Measures of a clustering against labels, and without."""

from itertools import permutations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import (
    adjusted_mutual_info_score,
    adjusted_rand_score,
    silhouette_samples,
    silhouette_score,
)
from sklearn.metrics.cluster import contingency_matrix

from cluster import quality
from cluster.chance import expected_information
from cluster.kmeans import run_kmeans
from cluster.quality import (
    accuracy,
    ami,
    ari,
    clustering_metrics,
    describe_labels,
    describe_unlabelled,
    label_metrics,
    nmi,
    purity,
    silhouette,
    stability,
    unlabelled_metrics,
)


def test_images_without_a_label_or_a_cluster_do_not_count() -> None:
    clusters = np.array([0, 0, 0, 1, 1, 1, -1, 1, 0])
    labels = np.array([4, 4, 2, 2, 2, 4, 2, -1, -1])
    both = (clusters >= 0) & (labels >= 0)
    for measure in (purity, nmi, ari, ami, accuracy):
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
        f"NMI to the labels {found['nmi_labels']:.3f}, ACC 0.667, "
        f"ARI {found['ari']:.3f}, AMI {found['ami']:.3f}, purity 0.833"
    )


def test_without_labels_the_description_is_empty() -> None:
    found = label_metrics(np.array([0, 1]), None)
    assert found == dict.fromkeys(("nmi_labels", "acc", "ari", "ami", "purity"))
    assert describe_labels(found) == ""


@pytest.mark.parametrize(("k", "classes", "images"), [(9, 4, 300), (40, 40, 90), (2, 150, 200)])
def test_ami_is_scikit_learns(k: int, classes: int, images: int) -> None:
    rng = np.random.default_rng(k)
    labels = rng.integers(classes, size=images)
    clusters = np.where(rng.random(images) < 0.4, labels % k, rng.geometric(0.3, images) % k)
    expected = adjusted_mutual_info_score(labels, clusters)
    assert ami(clusters, labels) == pytest.approx(expected, abs=1e-9)
    assert ami(np.append(clusters, [-1, 0]), np.append(labels, [0, -1])) == pytest.approx(expected)


def test_ami_by_hand() -> None:
    """Of four images in two pairs, the three ways to pair them again are equally likely: one gives
    ln 2 and two give 0, so chance gives ln 2 / 3."""
    assert expected_information(np.array([2, 2]), np.array([2, 2])) == pytest.approx(np.log(2) / 3)
    pairs, crossed = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    assert ami(pairs, 1 - pairs) == pytest.approx(1)
    assert ami(pairs, crossed) == pytest.approx(-0.5)  # (0 − ln 2 / 3) / (ln 2 − ln 2 / 3)


@pytest.mark.parametrize(
    ("clusters", "labels"),
    [([0, 0, 0], [1, 1, 1]), ([0, 0, 0], [0, 1, 1]), ([0, 1, 2], [5, 4, 3]), ([], [])],
)
def test_ami_where_it_has_no_formula(clusters: list[int], labels: list[int]) -> None:
    expected = adjusted_mutual_info_score(labels, clusters)
    assert ami(np.array(clusters, int), np.array(labels, int)) == expected


@pytest.fixture
def rows() -> np.ndarray:
    rng = np.random.default_rng(3)
    return (rng.standard_normal((250, 6)) + np.repeat(3 * np.eye(5, 6), 50, axis=0)).astype("f4")


def test_silhouette_of_all_rows_is_scikit_learns(rows: np.ndarray) -> None:
    clusters = np.random.default_rng(0).permutation(np.append(np.arange(50), np.arange(200) % 7))
    assert silhouette(rows, clusters) == pytest.approx(silhouette_score(rows, clusters), abs=1e-6)
    groups = np.repeat([3, 9, 4, 8, 0], 50)
    assert silhouette(rows, groups) == pytest.approx(silhouette_score(rows, groups), abs=1e-6)


def test_silhouette_of_a_sample_compares_it_with_all_rows(rows: np.ndarray) -> None:
    """So it is right even if a cluster has no other row in the sample."""
    clusters = np.arange(250) // 5
    each = silhouette_samples(rows, clusters)
    found = [silhouette(rows, clusters, sample=20, seed=seed) for seed in range(200)]
    assert np.mean(found) == pytest.approx(each.mean(), abs=4 * each.std() / np.sqrt(20 * 200))
    assert silhouette(rows, clusters, sample=20, seed=1) == found[1]


def test_silhouette_by_hand() -> None:
    """On a line: 0 and 1 together, 4 alone. (4 − 1) / 4, (3 − 1) / 3, and 0 for the row alone."""
    line = np.array([[0], [1], [4]], np.float32)
    assert silhouette(line, np.array([7, 7, 2])) == pytest.approx((3 / 4 + 2 / 3 + 0) / 3)
    assert silhouette(line, np.array([1, 1, 1])) == 0
    assert silhouette(np.zeros((4, 2), np.float32), np.array([0, 0, 1, 1])) == 0


def test_stability_is_the_mean_ari_of_all_pairs_of_seeds(rows: np.ndarray) -> None:
    one, two, three = (run_kmeans(rows, 12, seed=seed)[0] for seed in (0, 5, 9))
    pairs = [(one, two), (one, three), (two, three)]
    expected = np.mean([adjusted_rand_score(*pair) for pair in pairs])
    assert stability(rows, 12, (0, 5, 9)) == pytest.approx(expected)
    assert 0 < expected < 1
    with pytest.raises(ValueError, match="1 clusterings: agreement needs two or more"):
        stability(rows, 12, [0])


def test_clusters_that_are_clear_are_found_with_every_seed() -> None:
    rows = np.repeat(np.eye(2, 3, dtype=np.float32), 30, axis=0)
    assert stability(rows, 2) == 1


def test_stability_is_measured_unasked_only_where_it_is_cheap(
    rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    clusters = run_kmeans(rows, 4)[0]
    found = unlabelled_metrics(rows, clusters, 4)
    assert found == {"silhouette": silhouette(rows, clusters), "stability": stability(rows, 4)}
    words = describe_unlabelled(found)
    assert words == f"silhouette {found['silhouette']:.3f}, stability {found['stability']:.3f}"
    assert unlabelled_metrics(rows, clusters)["stability"] is None
    monkeypatch.setattr(quality, "CHEAP", 4 * 250 - 1)
    assert describe_unlabelled(unlabelled_metrics(rows, clusters, 4)) == words.split(",")[0]
