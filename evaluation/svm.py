"""Linear SVMs on fixed rows: arrays in, average precisions out. `eval_svm.py` has the protocol."""

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn
from scipy.linalg import cholesky, solve_triangular
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

from evaluation.metrics import interpolated_average_precision
from evaluation.svm_jobs import Pieces
from system.seeding import derive_seed

COSTS = tuple(sorted([1.0, 10.0, 100.0, *(2.0**-n for n in range(4, 20))]))
SHOTS = (1, 2, 4, 8, 16, 32, 64, 96)
MOST_NEGATIVES = 19_000  # in a low-shot sample
FOLDS = 3
POSITIVE_WEIGHT = 2
TOLERANCE, ITERATIONS = 1e-4, 2000
JITTER = 1e-10  # small beside the rows' squared length of 1


@dataclass(frozen=True)
class Plan:
    """The costs and the numbers k of positives, both ascending; samples for each k; the seed."""

    costs: list[float]
    shots: list[int]
    samples: int
    seed: int


@dataclass(frozen=True)
class Rows:
    """Rows and targets: 1 if an image shows a class, −1 if not, 0 if it is marked difficult.

    Attributes:
        classes: C names.
        train, test: `(N, D)` and `(M, D) float64`.
        train_targets, test_targets: `(N, C)` and `(M, C) int8`.
    """

    classes: Sequence[str]
    train: np.ndarray
    train_targets: np.ndarray
    test: np.ndarray
    test_targets: np.ndarray

    def positive(self, number: int) -> np.ndarray:
        """`(N,) bool`: the training rows that show a class; difficult ones count as negative."""
        return self.train_targets[:, number] == 1

    def test_ap(self, number: int, scores: np.ndarray) -> float:
        """The AP of a class for scores `(M,)`; difficult rows are left out."""
        targets = self.test_targets[:, number]
        known = targets != 0
        return interpolated_average_precision(scores[known], targets[known] == 1)


def judge(rows: Rows, pieces: Pieces, plan: Plan) -> dict[str, Any]:
    """The whole protocol on one layer's rows: `svm`, and `low_shot` by k."""
    return {
        "svm": judge_all(rows, pieces, plan),
        "low_shot": {str(k): judge_low_shot(rows, pieces, plan, k) for k in plan.shots},
    }


def judge_all(rows: Rows, pieces: Pieces, plan: Plan) -> dict[str, Any]:
    """SVMs trained on all training rows, each class with its best cost in cross-validation."""
    numbers = range(len(rows.classes))
    # high costs take longest and go first, so that no process ends late
    settings = {
        f"cross_validation/{rows.classes[number]}_{cost}": {"number": number, "cost": cost}
        for number, cost in itertools.product(numbers, reversed(plan.costs))
    }
    tried = pieces.results("cross-validation", cross_validate, rows, settings, seed=plan.seed)
    aps = np.array([each["ap"] for each in tried]).reshape(len(numbers), len(plan.costs))[:, ::-1]
    chosen = [plan.costs[best] for best in aps.argmax(axis=1)]
    settings = {
        f"svm/{rows.classes[number]}": {"number": number, "cost": chosen[number]}
        for number in numbers
    }
    tested = pieces.results("test", train_and_test, rows, settings, seed=plan.seed)
    ap = [each["ap"] for each in tested]
    return {
        "map": float(np.mean(ap)),
        "ap": dict(zip(rows.classes, ap, strict=True)),
        "cost": dict(zip(rows.classes, chosen, strict=True)),
        "cross_validated_ap": {
            name: dict(zip(map(str, plan.costs), row, strict=True))
            for name, row in zip(rows.classes, aps.tolist(), strict=True)
        },
        "not_converged": sum(each["not_converged"] for each in [*tried, *tested]),
        "svms": FOLDS * len(tried) + len(tested),
    }


def judge_low_shot(rows: Rows, pieces: Pieces, plan: Plan, k: int) -> dict[str, Any]:
    """SVMs trained on k positives of each class."""
    numbers, costs, samples = range(len(rows.classes)), plan.costs, plan.samples
    settings = {
        f"low_shot/{rows.classes[number]}_k{k}_{sample}": {"number": number, "sample": sample}
        for number, sample in itertools.product(numbers, range(samples))
    }
    found = pieces.results(f"k = {k}", low_shot, rows, settings, k=k, costs=costs, seed=plan.seed)
    shape = len(numbers), samples, len(costs)
    ap = np.array([each["ap"] for each in found]).reshape(shape)
    at_cost = ap.mean(axis=0)  # mAP, (samples, costs)
    left_out = [each["left_out_ap"] for each in found if each["left_out_ap"]]

    def at(number: int) -> dict[str, Any]:
        by_class = dict(zip(rows.classes, ap[:, :, number].mean(axis=1).tolist(), strict=True))
        return {"cost": costs[number], **spread(at_cost[:, number]), "ap": by_class}

    return {
        "at_cost": {str(cost): spread(at_cost[:, n]) for n, cost in enumerate(costs)},
        "best_on_test": at(int(at_cost.mean(axis=0).argmax())),
        "chosen_on_trainval": at(int(np.mean(left_out, axis=0).argmax())) if left_out else None,
        "not_converged": sum(each["not_converged"] for each in found),
        "svms": len(costs) * (len(found) + len(left_out)),
    }


def spread(values: np.ndarray) -> dict[str, float]:
    """Statistics of the samples' values `(S,)`."""
    return {
        "mean": float(values.mean()),
        "min": float(values.min()),
        "max": float(values.max()),
        "std": float(values.std()),
    }


def compact(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows with the same inner products, on which LinearSVC takes the same steps in less time.

    The dual problem depends on the rows only by their inner products. The rows of the Gram matrix's
    Cholesky factor have the same ones, and half of that factor is zeros, which Liblinear skips. So
    N rows with more than N / 2 nonzeros get shorter. Scores agree to nine digits.

    Args:
        train, test: `(N, D)` and `(M, D) float32` of length 1.

    Returns both as `(N, d)` and `(M, d) float64`; d = D if the rows are short already.
    """
    wide, n = train.astype(np.float64), len(train)
    if np.count_nonzero(train) <= n * (n + 1) // 2:
        return wide, test.astype(np.float64)
    gram = wide @ wide.T
    gram.flat[:: n + 1] += JITTER  # a duplicate image makes the matrix singular
    factor = cholesky(gram, lower=True, overwrite_a=True, check_finite=False)
    products = wide @ test.T.astype(np.float64)
    rotated = solve_triangular(factor, products, lower=True, overwrite_b=True, check_finite=False)
    return np.ascontiguousarray(factor), np.ascontiguousarray(rotated.T)


def learn(
    train: np.ndarray, positive: np.ndarray, costs: list[float], seed: int, judged: np.ndarray
) -> tuple[np.ndarray, int]:
    """Train a linear SVM at each cost.

    Args:
        train, positive: `(n, D) float64` and `(n,) bool`.
        judged: `(m, D)` other rows.

    Returns the scores `(m, len(costs))` of the other rows, higher where the class is more likely,
    and the number of SVMs that did not converge.
    """
    labels = np.where(positive, 1, -1)
    weights, biases, short = [], [], 0
    for cost in costs:
        svm = LinearSVC(
            C=cost, penalty="l2", loss="squared_hinge", dual=True, tol=TOLERANCE,
            max_iter=ITERATIONS, class_weight={1: POSITIVE_WEIGHT, -1: 1},
            random_state=derive_seed(seed, "coordinate descent") % 2**32,
        )  # fmt: skip
        with warnings.catch_warnings(), sklearn.config_context(assume_finite=True):
            warnings.simplefilter("ignore", ConvergenceWarning)  # counted instead
            svm.fit(train, labels)
        weights.append(svm.coef_[0])
        biases.append(svm.intercept_[0])
        short += int(svm.n_iter_ >= ITERATIONS)
    return judged @ np.stack(weights, axis=1) + np.array(biases), short


def cross_validate(rows: Rows, number: int, cost: float, seed: int) -> dict[str, Any]:
    """The mean `ap` of a class over stratified folds of the training rows, in the rows' order."""
    positive = rows.positive(number)
    aps, short = [], 0
    for kept, left_out in StratifiedKFold(FOLDS).split(positive, positive):
        train, judged = rows.train[kept], rows.train[left_out]
        scores, unfinished = learn(train, positive[kept], [cost], seed, judged)
        aps.append(interpolated_average_precision(scores[:, 0], positive[left_out]))
        short += unfinished
    return {"ap": float(np.mean(aps)), "not_converged": short}


def train_and_test(rows: Rows, number: int, cost: float, seed: int) -> dict[str, Any]:
    """The `ap` of a class on the test rows, trained on all training rows."""
    scores, short = learn(rows.train, rows.positive(number), [cost], seed, rows.test)
    return {"ap": rows.test_ap(number, scores[:, 0]), "not_converged": short}


@dataclass(frozen=True)
class Sample:
    """A low-shot sample: numbers of training rows, ascending.

    Attributes:
        rows: the sample.
        part: the sample without a third of its negatives.
        left_out: that third, and the positives outside the sample.
    """

    rows: np.ndarray
    part: np.ndarray
    left_out: np.ndarray


def draw_sample(positive: np.ndarray, number: int, k: int, sample: int, seed: int) -> Sample:
    """Draw k positives and 19,000 negatives from `(N,) bool`, or all if there are fewer."""
    rng = np.random.default_rng(derive_seed(seed, "low-shot", number, k, sample))
    positives = rng.permutation(np.flatnonzero(positive))
    negatives = rng.permutation(np.flatnonzero(~positive))[:MOST_NEGATIVES]
    third = len(negatives) // 3
    return Sample(
        np.sort(np.concatenate([positives[:k], negatives])),
        np.sort(np.concatenate([positives[:k], negatives[third:]])),
        np.sort(np.concatenate([positives[k:], negatives[:third]])),
    )


def low_shot(
    rows: Rows, number: int, k: int, sample: int, costs: list[float], seed: int
) -> dict[str, Any]:
    """Learn a class from few positives, at each cost.

    Returns the `ap` on the test rows, and the `left_out_ap` of SVMs that are trained on the
    sample's `part` and tested on its `left_out` rows, to choose a cost by. That is empty if the
    sample has all positives. (A third of the negatives is set apart because VOC has no more than
    19,000.)
    """
    positive = rows.positive(number)
    drawn = draw_sample(positive, number, k, sample, seed)
    scores, short = learn(rows.train[drawn.rows], positive[drawn.rows], costs, seed, rows.test)
    aps, left_out_aps = [rows.test_ap(number, column) for column in scores.T], []
    validated = positive[drawn.left_out]
    if validated.any():
        train, judged = rows.train[drawn.part], rows.train[drawn.left_out]
        scores, unfinished = learn(train, positive[drawn.part], costs, seed, judged)
        left_out_aps = [interpolated_average_precision(column, validated) for column in scores.T]
        short += unfinished
    return {"ap": aps, "left_out_ap": left_out_aps, "not_converged": short}
