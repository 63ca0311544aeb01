"""The nearest-neighbour probe, against scikit-learn and against itself in pieces."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from evaluation import knn
from evaluation.knn import classify_each_other, knn_accuracy
from features.forward import Features


@pytest.fixture
def blobs() -> tuple[np.ndarray, np.ndarray]:
    """300 points around five centres, overlapping, and the number of each one's centre."""
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 5
    points = rng.normal(size=(5, 16))[labels] + 2 * rng.normal(size=(300, 16))
    return points.astype(np.float32), labels


def by_sklearn(
    rows: np.ndarray, labels: np.ndarray, queries: np.ndarray, truth: np.ndarray, k: int
) -> float:
    def votes(distances: np.ndarray) -> np.ndarray:
        return np.exp((1 - distances) / 0.07)  # of a cosine distance

    classifier = KNeighborsClassifier(k, metric="cosine", weights=votes)
    return classifier.fit(rows.astype(np.float64), labels).score(queries, truth)


@pytest.mark.parametrize("block", [7, 4096])
def test_accuracies_equal_scikit_learns(
    blobs: tuple[np.ndarray, np.ndarray], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knn, "BLOCK", block)
    points, labels = blobs
    rows, queries = slice(0, 240), slice(240, 300)
    found = knn_accuracy(points[rows], labels[rows], points[queries], labels[queries])
    for k, accuracy in found.items():
        reference = by_sklearn(points[rows], labels[rows], points[queries], labels[queries], k)
        assert accuracy == pytest.approx(reference), k
    assert 0.4 < found[10] < 0.9, "neither chance nor trivial"


def test_a_query_among_the_rows_does_not_vote_for_itself(
    blobs: tuple[np.ndarray, np.ndarray],
) -> None:
    points, labels = blobs
    own = np.arange(0, 300, 7)
    found = knn_accuracy(points, labels, points[own], labels[own], [1, 10], themselves=own)
    assert knn_accuracy(points, labels, points[own], labels[own], [1])[1] == 1
    for k, accuracy in found.items():
        hits = [
            by_sklearn(np.delete(points, i, 0), np.delete(labels, i), points[[i]], labels[[i]], k)
            for i in own
        ]
        assert accuracy == pytest.approx(np.mean(hits))


def test_half_precision_and_row_lengths_hardly_matter(
    blobs: tuple[np.ndarray, np.ndarray],
) -> None:
    points, labels = blobs
    half = (points * np.linspace(1, 9, 300)[:, None]).astype(np.float16)
    found = knn_accuracy(half, labels, points[:60], labels[:60], [20])
    assert found[20] == pytest.approx(
        knn_accuracy(points, labels, points[:60], labels[:60], [20])[20], abs=1 / 60
    )


def test_more_neighbours_than_rows_count_as_all_rows(
    blobs: tuple[np.ndarray, np.ndarray],
) -> None:
    points, labels = blobs
    found = knn_accuracy(points[:30], labels[:30], points[30:60], labels[30:60], [20, 30, 200])
    assert list(found) == [20, 30]
    own = np.arange(30)
    found = knn_accuracy(points[:30], labels[:30], points[:30], labels[:30], [200], themselves=own)
    assert list(found) == [29], "its own row has no vote"


def test_images_without_a_label_neither_vote_nor_count(
    blobs: tuple[np.ndarray, np.ndarray],
) -> None:
    points, labels = blobs
    present = np.arange(300) % 7 > 0  # the others can't be read
    unlabelled = np.arange(300) % 4 == 0
    features = Features(points[present], present, None)
    found = classify_each_other(features, np.where(unlabelled, -1, labels), 0)
    both = present & ~unlabelled
    alone = Features(points[both], np.ones(both.sum(), bool), None)
    assert found == classify_each_other(alone, labels[both], 0)


@pytest.mark.parametrize(("images", "counts"), [(201, [10, 20, 100, 200]), (200, [10, 20, 100]),
                                                (11, [10]), (8, [7])])  # fmt: skip
def test_the_probe_of_few_images_leaves_out_numbers_that_they_lack(
    images: int, counts: list[int], blobs: tuple[np.ndarray, np.ndarray]
) -> None:
    points, labels = (part[:images] for part in blobs)
    found = classify_each_other(Features(points, np.ones(images, bool), None), labels, 0)
    own = np.arange(images)
    expected = knn_accuracy(points, labels, points, labels, counts, themselves=own)
    assert found == {str(count): expected[count] for count in counts}
