"""Measures of an embedding, against scikit-learn and cases counted by hand."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from cluster.quality import ari
from evaluation import learned
from evaluation.learned import SEEDS, fit_probe, grey_once, measures, nearest, raw_pixels

LABELS = np.repeat(["cat", "dog", "owl"], 40)


def blobs(seed: int, spread: float = 0.1, dim: int = 4) -> np.ndarray:
    """Three groups of 40 rows, in three directions."""
    rng = np.random.default_rng(seed)
    return np.repeat(np.eye(3, dim), 40, axis=0) + spread * rng.standard_normal((120, dim))


def test_well_separated_groups_are_found_by_every_measure() -> None:
    found = measures(blobs(0), LABELS, blobs(1), LABELS, k=3)
    accuracies = {name: samples.mean() for name, samples in found.items() if samples.dtype == bool}
    assert accuracies == dict.fromkeys(accuracies, 1.0)
    best = {name: samples.max() for name, samples in found.items() if samples.dtype != bool}
    assert best == pytest.approx(dict.fromkeys(best, 1.0)), "some seeds start in two of the groups"
    assert set(found) == {"linear"} | {
        f"{view}_{name}"
        for view in ("plain", "whitened")
        for name in ("1nn", "20nn", "nmi", "acc", "ari", "ami", "purity", "nmi_k")
    }


def test_labels_without_meaning_are_at_chance() -> None:
    labels = np.random.default_rng(2).permutation(LABELS)
    found = measures(blobs(0), labels, blobs(1), labels[::-1], k=10)
    for name in ("linear", "plain_1nn", "whitened_1nn", "plain_20nn"):
        assert found[name].mean() < 0.55, name
    for name in ("plain_ari", "whitened_ari"):
        assert abs(found[name].mean()) < 0.1, name


def test_there_is_a_sample_for_each_image_or_seed() -> None:
    found = measures(blobs(0), LABELS, blobs(1)[:50], LABELS[:50], k=7)
    for name, samples in found.items():
        accuracy = name == "linear" or name.endswith("nn")
        assert (samples.dtype, len(samples)) == ((bool, 50) if accuracy else (np.float64, SEEDS))


def test_a_label_that_train_lacks_is_never_right() -> None:
    val_labels = np.where(LABELS == "owl", "yak", LABELS)
    found = measures(blobs(0), LABELS, blobs(1), val_labels, k=3)
    for name in ("linear", "plain_1nn", "whitened_20nn"):
        assert found[name].mean() == pytest.approx(2 / 3, abs=0.01), name


def test_purity_and_accuracy_by_hand() -> None:
    """Of two clear groups, one is 3 cats and a dog, the other 3 cats and 2 dogs."""
    labels = np.array(["cat", "cat", "cat", "dog", "cat", "cat", "cat", "dog", "dog"])
    rows = np.repeat(np.eye(2, 3), [4, 5], axis=0)
    rows += 0.01 * np.random.default_rng(0).standard_normal(rows.shape)
    found = measures(rows, labels, rows, labels, k=2)
    assert found["plain_purity"] == pytest.approx(6 / 9), "all cats"
    assert found["plain_acc"] == pytest.approx(5 / 9), "3 cats of the first, 2 dogs of the second"


@pytest.mark.parametrize("count", [1, 5, 20])
def test_neighbours_are_scikit_learns(count: int) -> None:
    rows, queries = normalize(blobs(0, 0.6)), normalize(blobs(1, 0.6))
    labels = np.repeat(np.arange(3), 40)
    reference = KNeighborsClassifier(count, metric="cosine").fit(rows, labels)
    near = reference.kneighbors(queries, return_distance=False)
    votes = np.stack([np.bincount(row, minlength=3) for row in labels[near]])
    without_tie = (votes == votes.max(axis=1, keepdims=True)).sum(axis=1) == 1
    assert without_tie.sum() > 80
    found = nearest(rows, labels, queries, count)
    np.testing.assert_array_equal(found[without_tie], reference.predict(queries)[without_tie])


def test_of_equally_frequent_labels_the_nearest_wins() -> None:
    angles = np.radians([50.0, 10.0, 20.0, 40.0, 90.0])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    query = np.array([[1.0, 0.0]])
    labels = np.array([1, 7, 3, 3, 7])
    assert nearest(rows, labels, query, 1) == [7]
    assert nearest(rows, labels, query, 3) == [3], "3, 3 against 7"
    assert nearest(rows, labels, query, 5) == [7], "3, 3 against 7, 7: the nearest row is a 7"
    assert nearest(rows, labels, query, 99) == [7], "more than there are rows"


@pytest.mark.parametrize("labels", [LABELS, np.where(LABELS == "owl", "dog", LABELS)])
def test_the_probes_scores_are_scikit_learns(labels: np.ndarray) -> None:
    """Of two labels, too, for which scikit-learn has a single score."""
    rows, queries = blobs(0, 0.6).astype(np.float32), blobs(1, 0.6).astype(np.float32)
    probe = fit_probe(rows, labels, seed=3)
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=probe.regularisation))
    reference.fit(rows, labels)
    np.testing.assert_array_equal(probe.labels, np.unique(labels))
    scores = probe.scores(queries)
    assert scores.shape == (120, len(probe.labels))
    expected = reference.decision_function(queries)
    found = scores if scores.shape[1] == 3 else scores[:, 1]
    np.testing.assert_allclose(found, expected, atol=0.05 * expected.std())
    clear = np.diff(np.sort(scores))[:, -1] > 0.2 * expected.std()
    assert clear.sum() > 80
    np.testing.assert_array_equal(probe.predict(queries)[clear], reference.predict(queries)[clear])


def test_the_choice_of_regularisation_ends_after_two_that_are_worse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores = iter([0.5, 0.7, 0.6, 0.7, 0.6, 0.65, 0.9])
    monkeypatch.setattr(learned, "REGULARISATION", (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0))
    monkeypatch.setattr(LogisticRegression, "score", lambda *rows: next(scores))
    probe = fit_probe(blobs(0), LABELS)
    assert list(probe.held_out.values()) == [0.5, 0.7, 0.6, 0.7, 0.6, 0.65]
    assert probe.regularisation == 1e-5


def test_the_fifth_of_the_probe_depends_on_the_seed() -> None:
    rows, labels = blobs(0, 1.0), LABELS
    held_out = [fit_probe(rows, labels, seed).held_out for seed in (1, 1, 2)]
    assert held_out[0] == held_out[1] != held_out[2]


def test_without_a_run_there_is_no_measure_of_its_clusters() -> None:
    found = measures(blobs(0), LABELS, blobs(1), LABELS, k=None)
    assert not any(name.endswith("nmi_k") for name in found)
    assert found["plain_nmi"].max() == pytest.approx(1)


@pytest.mark.parametrize("few", [[1], [2, 2], [3, 1, 2, 4]])
def test_the_probe_takes_labels_of_few_rows(few: list[int]) -> None:
    rare = np.repeat([f"rare {n}" for n in range(len(few))], few)
    labels = np.array([*LABELS[: len(LABELS) - len(rare)], *rare])
    assert (fit_probe(blobs(0), labels).predict(blobs(1)) == LABELS).mean() > 0.8


def test_the_probe_takes_few_rows_of_many_labels() -> None:
    labels = np.arange(120) // 4
    assert fit_probe(blobs(0), labels).predict(blobs(1)).shape == (120,)


def test_pixels_are_box_resized() -> None:
    image = np.arange(64 * 64, dtype=np.uint32).reshape(64, 64) % 250
    pixels = np.stack([image, image[::-1], image.T]).astype(np.uint8)
    means = pixels.reshape(3, 32, 2, 32, 2).mean(axis=(2, 4)).transpose(1, 2, 0)
    found = raw_pixels(np.stack([pixels, pixels]))
    assert found.shape == (2, 32 * 32 * 3)
    np.testing.assert_allclose(found[1].reshape(32, 32, 3), means, atol=0.51)


def test_small_images_keep_their_size() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 8, 8), np.uint8)
    np.testing.assert_array_equal(raw_pixels(pixels)[0], pixels[0].transpose(1, 2, 0).ravel())


def test_three_equal_channels_count_once() -> None:
    train, val = blobs(0), blobs(1)
    once = measures(train, LABELS, val, LABELS, k=4)
    grey = measures(train.repeat(3, axis=1), LABELS, val.repeat(3, axis=1), LABELS, k=4)
    for name, samples in once.items():
        np.testing.assert_array_equal(grey[name], samples, err_msg=name)


def test_a_single_colour_keeps_all_channels() -> None:
    grey, coloured = (blobs(seed).repeat(3, axis=1) for seed in (0, 1))
    coloured[7, 4] += 1
    for train, val in ((grey, coloured), (coloured, grey)):
        assert grey_once(train, val) == (train, val)


def test_ari_leaves_out_images_without_a_cluster() -> None:
    assignment, labels = np.array([0, 0, 1, -1, 1, 2]), np.array([5, 5, 5, 5, 6, 6])
    kept = assignment >= 0
    assert ari(assignment, labels) == pytest.approx(
        adjusted_rand_score(labels[kept], assignment[kept])
    )
    assert ari(labels, labels) == 1
