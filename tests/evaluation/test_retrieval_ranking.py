"""Rankings, expansions and their measures, by hand and against loops."""

import numpy as np
import pytest

from evaluation import retrieval_ranking
from evaluation.retrieval_ranking import (
    average_precision,
    expand_database,
    expand_queries,
    precision_at,
    rank,
)


def test_ties_are_ranked_in_the_databases_order() -> None:
    database = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert rank(np.array([[1.0, 0.0], [0.6, 0.8]]), database).tolist() == [
        [1, 3, 0, 2],
        [0, 2, 1, 3],
    ]


@pytest.mark.parametrize(
    ("ranked", "good", "junk", "expected"),
    [
        ("a b c d", "a b", "", 1.0),
        ("a x b", "a b", "", 1 / 2 * 1 + 1 / 2 * (1 / 2 + 2 / 3) / 2),
        ("j a j x b j", "a b", "j", 1 / 2 * 1 + 1 / 2 * (1 / 2 + 2 / 3) / 2),
        ("x a", "a", "", (0 + 1 / 2) / 2),
        ("x y a z b", "a b", "", 1 / 2 * (0 + 1 / 3) / 2 + 1 / 2 * (1 / 4 + 2 / 5) / 2),
        ("a x", "a b c d", "", 1 / 4),
        ("x y", "a", "", 0.0),
        ("x y", "", "x", 0.0),
        ("j a", "a j", "j", 1 / 2),
    ],
)
def test_average_precision_by_hand(ranked: str, good: str, junk: str, expected: float) -> None:
    found = average_precision(ranked.split(), good.split(), junk.split())
    assert found == pytest.approx(expected, abs=1e-12)


def area_step_by_step(names: list[str], good: set[str], junk: set[str]) -> float:
    area, recall, precision, seen, hits = 0.0, 0.0, 1.0, 0, 0
    for name in names:
        if name in junk:
            continue
        seen += 1
        hits += name in good
        area += (hits / len(good) - recall) * (precision + hits / seen) / 2
        recall, precision = hits / len(good), hits / seen
    return area


def test_average_precision_against_the_curve_step_by_step() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        names = [str(number) for number in rng.permutation(rng.integers(3, 40))]
        chosen = rng.permutation(names)
        good, junk = set(chosen[: rng.integers(1, 3)]), set(chosen[2 : rng.integers(2, 9)])
        expected = area_step_by_step(names, good, junk)
        assert average_precision(names, good, junk) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("k", "ranked", "expected"),
    [
        (1, "a x b", 1.0),
        (1, "j a", 1.0),
        (1, "x a", 0.0),
        (2, "a x b", 1 / 2),
        (5, "a j x b y z", 2 / 3),
        (5, "a b x y z w", 1.0),
        (5, "x y z", 0.0),
    ],
)
def test_precision_at_k_ends_at_the_last_positive(k: int, ranked: str, expected: float) -> None:
    assert precision_at(k, ranked.split(), {"a", "b"}, {"j"}) == pytest.approx(expected)


def unit(x: float, y: float) -> list[float]:
    return (np.array([x, y]) / np.hypot(x, y)).tolist()


def test_query_expansion_by_hand() -> None:
    database = np.array([[0.0, 1.0], [1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
    queries = np.array([[1.0, 0.0], [0.0, 1.0]])
    found = expand_queries(queries, database, 2)  # of rows 1 and 2; of rows 0 and 2
    np.testing.assert_allclose(found, [unit(2.6, 0.8), unit(0.6, 2.8)])


def test_database_expansion_by_hand() -> None:
    database = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
    found = expand_database(database, 1)  # the neighbours are rows 1, 0, 3, 2
    expected = [unit(1.8, 0.6), unit(1.8, 0.6), unit(-0.6, 1.8), unit(-0.6, 1.8)]
    np.testing.assert_allclose(found, expected)


def test_no_vector_is_its_own_neighbour() -> None:
    database = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    found = expand_database(database, 2)  # of all three rows each
    np.testing.assert_allclose(found, [[0, 1]] * 3, atol=1e-12)


def test_database_expansion_does_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    database = retrieval_ranking.unit_rows(np.random.default_rng(0).normal(size=(11, 4)))
    whole = expand_database(database, 3)
    monkeypatch.setattr(retrieval_ranking, "BLOCK", 4)
    np.testing.assert_allclose(expand_database(database, 3), whole)
    nearest = np.argsort(-(database @ database[7]))[:4]  # itself and three others
    expected = database[nearest].sum(axis=0)
    np.testing.assert_allclose(whole[7], expected / np.linalg.norm(expected))


def test_zero_rows_stay_zero() -> None:
    assert retrieval_ranking.unit_rows(np.array([[0.0, 0.0], [3.0, 4.0]])).tolist() == [
        [0, 0],
        [0.6, 0.8],
    ]
