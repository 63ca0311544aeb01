"""Linear SVMs on rows, against scikit-learn used directly and cases by hand."""

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from evaluation import svm
from evaluation.svm import Plan, Rows, compact, cross_validate, draw_sample, judge, learn, low_shot
from evaluation.svm_jobs import Pieces
from system.seeding import derive_seed

SEED = 31
ALONE = Pieces(None, {}, 1, False)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make_rows(train: int = 60, test: int = 40, dim: int = 12, classes: int = 2) -> Rows:
    """Rows of classes that overlap, with a few difficult rows."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(train + test, dim))
    noisy = x[:, :classes] + rng.normal(scale=0.7, size=(train + test, classes))
    targets = np.where(noisy > 0.6, 1, -1).astype(np.int8)
    targets[rng.random(targets.shape) < 0.1] = 0
    x = unit(x).astype(np.float64)
    names = [f"class {n}" for n in range(classes)]
    return Rows(names, x[:train], targets[:train], x[train:], targets[train:])


def reference(train: np.ndarray, positive: np.ndarray, cost: float) -> LinearSVC:
    """The protocol's SVM, spelled out."""
    svc = LinearSVC(
        penalty="l2", loss="squared_hinge", dual=True, C=cost, tol=0.0001, max_iter=2000,
        class_weight={True: 2, False: 1},
        random_state=derive_seed(SEED, "coordinate descent") % 2**32,
    )  # fmt: skip
    return svc.fit(train.astype(np.float64), positive)


def envelope_ap(scores: np.ndarray, positive: np.ndarray) -> float:
    """By the definition: for each positive, the best precision at its recall or a higher one."""
    hits = positive[np.argsort(-scores)]
    precisions = [hits[: n + 1].mean() for n in range(len(hits))]
    return float(np.mean([max(precisions[n:]) for n in np.flatnonzero(hits)]))


def test_ap_leaves_out_difficult_rows() -> None:
    targets = np.array([[-1], [0], [1], [0], [1], [-1]], np.int8)
    rows = Rows(["a"], np.empty((6, 1)), targets, np.empty((6, 1)), targets)
    scores = np.array([6.0, 5, 4, 3, 2, 1])
    # −, +, +, −: precisions 0, 1/2, 2/3, 1/2, under the envelope 2/3 at both positives
    assert rows.test_ap(0, scores) == pytest.approx(2 / 3)
    assert rows.test_ap(0, -scores) == pytest.approx((1 / 2 + 2 / 3) / 2 + (2 / 3 - 1 / 2) / 2)


def test_difficult_rows_are_negatives_in_training() -> None:
    targets = np.array([[1], [0], [-1]], np.int8)
    rows = Rows(["a"], np.empty((3, 1)), targets, np.empty((3, 1)), targets)
    assert rows.positive(0).tolist() == [True, False, False]


@pytest.mark.parametrize("cost", [2.0**-19, 0.01, 1.0, 100.0])
def test_compact_rows_give_the_same_svm(cost: float) -> None:
    rng = np.random.default_rng(0)
    x = unit(np.maximum(rng.normal(size=(90, 300)), 0))
    train, test = x[:50], x[50:]
    train[7] = train[3]  # a duplicate image
    positive = rng.random(50) < 0.3
    small, rotated = compact(train, test)
    assert small.shape == (50, 50)
    assert np.count_nonzero(small) <= 50 * 51 / 2
    direct = reference(train, positive, cost)
    scores, short = learn(small, positive, [cost], SEED, rotated)
    expected = direct.decision_function(test.astype(np.float64))
    assert np.abs(scores[:, 0] - expected).max() < 1e-7 * expected.std()
    assert short == 0


def test_short_rows_stay_unchanged() -> None:
    x = unit(np.random.default_rng(0).normal(size=(50, 20)))
    train, test = compact(x[:45], x[45:])
    np.testing.assert_array_equal(train, x[:45])
    np.testing.assert_array_equal(test, x[45:])
    assert train.dtype == test.dtype == np.float64


def test_cross_validation_has_three_stratified_folds_in_order() -> None:
    rows = make_rows()
    surest = np.argsort(rows.train[:, 1])[-21:]
    rows.train_targets[:, 1] = np.where(np.isin(np.arange(60), surest), 1, -1)
    positive = rows.positive(1)
    fold = np.empty(60, int)
    fold[positive], fold[~positive] = np.repeat(range(3), 7), np.repeat(range(3), 13)
    aps = []
    for number in range(3):
        inside = fold != number
        svc = reference(rows.train[inside], positive[inside], 0.5)
        aps.append(envelope_ap(svc.decision_function(rows.train[~inside]), positive[~inside]))
    assert len(set(aps)) == 3
    found = cross_validate(rows, 1, 0.5, SEED)
    assert found == {"ap": pytest.approx(np.mean(aps)), "not_converged": 0}


def test_each_class_is_tested_at_its_best_cost_in_cross_validation() -> None:
    rows, costs = make_rows(classes=4), [0.001, 0.5, 10.0]
    result = judge(rows, ALONE, Plan(costs, [], 5, SEED))
    assert result["low_shot"] == {}
    found = result["svm"]
    for number, name in enumerate(rows.classes):
        tried = [cross_validate(rows, number, cost, SEED)["ap"] for cost in costs]
        assert list(found["cross_validated_ap"][name].values()) == tried
        assert found["cost"][name] == costs[int(np.argmax(tried))]
        svc = reference(rows.train, rows.train_targets[:, number] == 1, found["cost"][name])
        known = rows.test_targets[:, number] != 0
        scores, positive = svc.decision_function(rows.test), rows.test_targets[:, number] == 1
        assert found["ap"][name] == pytest.approx(envelope_ap(scores[known], positive[known]))
    assert len(set(found["cost"].values())) > 1, "the classes differ"
    assert found["map"] == pytest.approx(np.mean(list(found["ap"].values())))
    assert found["svms"] == 4 * 3 * 3 + 4


def test_a_sample_has_k_positives_and_all_negatives() -> None:
    positive = np.arange(100) % 4 == 0
    sample = draw_sample(positive, 0, 5, 0, SEED)
    assert positive[sample.rows].sum() == 5
    assert (~positive[sample.rows]).sum() == 75
    assert (np.diff(sample.rows) > 0).all(), "each once"


def test_part_and_left_out_divide_the_rows() -> None:
    positive = np.arange(100) % 4 == 0
    sample = draw_sample(positive, 0, 5, 0, SEED)
    assert set(sample.part) < set(sample.rows)
    assert not set(sample.part) & set(sample.left_out)
    assert sorted([*sample.part, *sample.left_out]) == list(range(100))
    assert (positive[sample.part].sum(), positive[sample.left_out].sum()) == (5, 20)
    assert (~positive[sample.left_out]).sum() == 25


def test_samples_depend_on_seed_class_k_and_number() -> None:
    positive = np.arange(1000) % 2 == 0

    def draw(*key: int) -> tuple[int, ...]:
        rows = draw_sample(positive, *key).rows
        return tuple(rows[positive[rows]].tolist())

    first = draw(0, 8, 0, SEED)
    assert first == draw(0, 8, 0, SEED)
    others = {draw(1, 8, 0, SEED), draw(0, 8, 1, SEED), draw(0, 8, 0, SEED + 1)}
    assert len({first, *others}) == 4
    assert not set(draw(0, 4, 0, SEED)) <= set(first)


def test_a_sample_has_at_most_19000_negatives() -> None:
    positive = np.arange(20_000) < 100
    sample = draw_sample(positive, 0, 200, 0, SEED)
    assert positive[sample.rows].sum() == 100
    assert (~positive[sample.rows]).sum() == 19_000
    assert (~positive[sample.left_out]).sum() == 19_000 // 3


def test_low_shot_equals_scikit_learn() -> None:
    rows, costs = make_rows(), [0.01, 1.0]
    found = low_shot(rows, 0, 4, 1, costs, SEED)
    positive = rows.positive(0)
    sample = draw_sample(positive, 0, 4, 1, SEED)
    known = rows.test_targets[:, 0] != 0
    for n, cost in enumerate(costs):
        whole = reference(rows.train[sample.rows], positive[sample.rows], cost)
        scores = whole.decision_function(rows.test)
        ap = envelope_ap(scores[known], (rows.test_targets[:, 0] == 1)[known])
        assert found["ap"][n] == pytest.approx(ap)
        part = reference(rows.train[sample.part], positive[sample.part], cost)
        scores = part.decision_function(rows.train[sample.left_out])
        ap = envelope_ap(scores, positive[sample.left_out])
        assert found["left_out_ap"][n] == pytest.approx(ap)


def test_samples_with_all_positives_choose_no_cost() -> None:
    rows = make_rows()
    assert low_shot(rows, 0, 60, 0, [1.0], SEED)["left_out_ap"] == []
    result = judge(rows, ALONE, Plan([0.1, 1.0], [60], 2, SEED))["low_shot"]["60"]
    assert result["chosen_on_trainval"] is None
    assert result["svms"] == 2 * 2 * 2


class Fixed(Pieces):
    """Pieces with results by hand."""

    def results(self, *args: Any, **settings: Any) -> list[dict[str, Any]]:
        aps = {  # by class and sample: APs on test, and those left out, at two costs
            ("a", 0): ([0.2, 0.6], [0.5, 0.4]),
            ("a", 1): ([0.4, 0.6], [0.9, 0.2]),
            ("b", 0): ([0.4, 0.8], []),
            ("b", 1): ([0.6, 0.8], [0.5, 0.6]),
        }
        names = [f"low_shot/{name}_k4_{sample}" for name, sample in aps]
        assert list(args[3]) == names
        return [
            {"ap": ap, "left_out_ap": left_out, "not_converged": 1} for ap, left_out in aps.values()
        ]


def test_low_shot_over_samples_by_hand() -> None:
    rows = Rows(["a", "b"], *[np.empty((1, 2))] * 4)
    plan = Plan([0.5, 2.0], [4], 2, SEED)
    found = svm.judge_low_shot(rows, Fixed(None, {}, 1, False), plan, 4)
    low = {"mean": 0.4, "min": 0.3, "max": 0.5, "std": 0.1}
    high = {"mean": 0.7, "min": 0.7, "max": 0.7, "std": 0.0}
    assert found["at_cost"] == {"0.5": pytest.approx(low), "2.0": pytest.approx(high)}
    best, chosen = found["best_on_test"], found["chosen_on_trainval"]
    assert (best["cost"], chosen["cost"]) == (2.0, 0.5)
    assert (best["mean"], chosen["mean"]) == (pytest.approx(0.7), pytest.approx(0.4))
    assert best["ap"] == pytest.approx({"a": 0.6, "b": 0.8})
    assert chosen["ap"] == pytest.approx({"a": 0.3, "b": 0.5})
    assert found["not_converged"] == 4
    assert found["svms"] == 2 * (4 + 3)


def test_unconverged_svms_are_counted_without_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(svm, "ITERATIONS", 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = judge(make_rows(), ALONE, Plan([2.0**-19, 100.0], [4], 1, SEED))
    # the three folds of two classes at cost 100; at the least cost all converge
    assert found["svm"]["not_converged"] >= 6
    assert found["svm"]["not_converged"] < found["svm"]["svms"]
    assert found["low_shot"]["4"]["not_converged"] > 0
