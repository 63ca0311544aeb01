"""The choice of the number of clusters."""

from typing import Any

import numpy as np
import pytest
from arrays import sphere
from sklearn.datasets import make_blobs
from sklearn.metrics import silhouette_score

from cluster import choosing
from cluster.choosing import OPTIONS, Tried, choose_k, numbers_to_try, suggest
from cluster.kmeans import KmeansResult, train_kmeans
from cluster.quality import agreement
from system.errors import InputError


def test_powers_of_the_root_of_2_up_to_a_twentieth_are_tried() -> None:
    assert numbers_to_try(40) == [2]
    assert numbers_to_try(3000) == [2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128]
    assert numbers_to_try(20 * 64)[-1] == 64
    assert numbers_to_try(100_000) == numbers_to_try(20_000), "it takes 20,000 of them"


def test_too_few_rows_ask_for_k() -> None:
    with pytest.raises(InputError, match=r"too few rows to choose .*: 39, and 40 are .* --k"):
        choose_k(sphere(39))


def test_measures_are_those_of_each_kmeans() -> None:
    rows, steps = sphere(130, 4), list[int]()
    choice = choose_k(rows, seeds=(3, 5), advance=steps.append)
    assert [tried.k for tried in choice.table] == [2, 3, 4, 6]
    assert steps == [1] * 8
    tried = choice.table[2]
    runs = [train_kmeans(rows, 4, seed=seed, options=OPTIONS) for seed in (3, 5)]
    silhouettes = [silhouette_score(rows, run.assignment) for run in runs]
    assert tried.loss == pytest.approx(np.mean([run.loss for run in runs]))
    assert tried.silhouette == pytest.approx(np.mean(silhouettes), abs=1e-6)
    assert tried.deviation == pytest.approx(np.std(silhouettes, ddof=1), abs=1e-6)
    assert tried.stability == pytest.approx(agreement([run.assignment for run in runs]))


def test_clear_groups_are_counted() -> None:
    rows, _ = make_blobs(240, 8, centers=4, cluster_std=0.5, random_state=1)
    choice = choose_k(rows.astype(np.float32))
    assert choice.k == 4
    losses = [tried.loss for tried in choice.table]
    assert losses == sorted(losses, reverse=True)


def test_of_very_many_rows_some_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "MOST", 80)
    rows, seen = sphere(130, 4), list[int]()

    def watched(rows: np.ndarray, *args: Any, **kwargs: Any) -> KmeansResult:
        seen.append(len(np.unique(rows, axis=0)))
        return train_kmeans(rows, *args, **kwargs)

    monkeypatch.setattr(choosing, "train_kmeans", watched)
    assert [tried.k for tried in choose_k(rows, seeds=(0, 1)).table] == [2, 3, 4]
    assert seen == [80] * 6


TABLE = [
    Tried(2, 9.0, 0.50, 0.05, 0.7),
    Tried(3, 8.0, 0.60, 0.04, 0.5),
    Tried(4, 7.0, 0.57, 0.01, 0.8),
    Tried(6, 6.0, 0.55, 0.01, 0.9),
]


def test_the_most_stable_within_one_deviation_of_the_best_silhouette_is_suggested() -> None:
    choice = suggest(TABLE)
    assert choice.k == 4
    assert choice.reason == (
        "the most stable of the 2 numbers whose silhouette is within one deviation of the best "
        "(silhouette 0.570, stability 0.800; best: 0.600 ± 0.040 with 3)"
    )
    assert choice.table == TABLE
    clear = suggest([*TABLE, Tried(8, 5.0, 0.9, 0.1, 0.1)])
    assert clear.k == 8
    assert clear.reason.startswith("the best silhouette, by more than its deviation (")
