"""Better, worse or no clear change, against cases counted by hand."""

import math

import numpy as np
import pytest

from evaluation.learned import measures
from evaluation.verdict import (
    BETTER,
    UNCLEAR,
    WORSE,
    best_view,
    over_seeds,
    summary,
    table,
    to_plain,
    to_text,
    verdict,
)

SHAPE = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])  # variance 2.5


def right(gained: int, lost: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of some images are right, before and after."""
    both = 10 * [True] + 10 * [False]
    before = np.array(both + gained * [False] + lost * [True])
    return before, np.array(both + gained * [True] + lost * [False])


def exact_p(gained: int, lost: int) -> float:
    """McNemar's two-sided p, by its sum of binomials."""
    n = gained + lost
    tail = sum(math.comb(n, few) for few in range(min(gained, lost) + 1)) / 2**n
    return min(1.0, 2 * tail)


@pytest.mark.parametrize(
    ("gained", "lost", "expected"),
    [
        (0, 0, UNCLEAR),
        (7, 0, UNCLEAR),  # p = 2/128
        (8, 0, BETTER),  # p = 2/256
        (0, 8, WORSE),
        (12, 2, UNCLEAR),  # p = 0.0129
        (13, 2, BETTER),  # p = 0.0074
        (2, 13, WORSE),
        (500, 500, UNCLEAR),
    ],
)
def test_accuracies_are_compared_by_mcnemars_test(gained: int, lost: int, expected: str) -> None:
    assert verdict(*right(gained, lost)) == expected
    assert (exact_p(gained, lost) < 0.01) == (expected != UNCLEAR)


@pytest.mark.parametrize(
    ("difference", "spread", "expected"),
    [
        (0.009, 0.0, UNCLEAR),  # below 0.01
        (0.011, 0.0, BETTER),
        (-0.011, 0.0, WORSE),
        # variance of either 2.5e-4: twice the error of the difference is 0.02
        (0.019, 0.01, UNCLEAR),
        (0.021, 0.01, BETTER),
        (-0.021, 0.01, WORSE),
    ],
)
def test_nmi_is_compared_by_its_standard_error(
    difference: float, spread: float, expected: str
) -> None:
    before = 0.5 + spread * SHAPE
    assert verdict(before, before + difference) == expected


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([0.01, 0.02, 0.03, 0.02, 0.02], BETTER),  # mean 0.02, error 0.0032
        ([-0.01, -0.02, -0.03, -0.02, -0.02], WORSE),
        ([0.02, 0.02, 0.03, 0.02, -0.001], BETTER),  # four of five
        ([0.10, 0.10, 0.10, -0.001, -0.001], UNCLEAR),  # three of five
        ([0.01, 0.20, 0.01, 0.01, 0.01], UNCLEAR),  # mean 0.048, error 0.038
        ([0.0, 0.0, 0.0, 0.0, 0.0], UNCLEAR),
    ],
)
def test_settings_are_compared_seed_by_seed(differences: list[float], expected: str) -> None:
    assert over_seeds(np.array(differences)) == expected


def found(linear: float, plain: float, whitened: float, nmi: float) -> dict[str, np.ndarray]:
    """Measures with these means; 1,000 val images."""
    samples: dict[str, np.ndarray] = {"linear": np.arange(1000) < 1000 * linear}
    for view, mean in {"plain": plain, "whitened": whitened}.items():
        samples |= {f"{view}_{n}nn": np.arange(1000) < 1000 * mean for n in (1, 20)}
        samples |= {
            f"{view}_{name}": nmi + 0.001 * SHAPE
            for name in ("nmi", "acc", "ari", "ami", "purity", "nmi_k")
        }
    return samples


RESULTS = {
    "pixels": found(0.5, 0.8, 0.7, 0.1),
    "untrained": found(0.6, 0.7, 0.75, 0.2),
    "trained": found(0.8, 0.6, 0.7, 0.2),
}


def test_a_network_made_worse_is_called_worse_and_the_same_one_unchanged() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 4
    centres = 3 * rng.standard_normal((4, 12))
    rows = centres[labels] + rng.standard_normal((400, 12))
    worse = rows + 12 * rng.standard_normal(rows.shape)
    good, bad = (
        measures(each[:200], labels[:200], each[200:], labels[200:], k=8) for each in (rows, worse)
    )
    assert {name: verdict(good[name], bad[name]) for name in good} == dict.fromkeys(good, WORSE)
    assert {verdict(good[name], good[name]) for name in good} == {UNCLEAR}


def test_each_network_is_seen_in_its_better_view() -> None:
    assert best_view(RESULTS["pixels"], "20nn").mean() == 0.8
    assert best_view(RESULTS["trained"], "20nn").mean() == 0.7


def test_the_summary_says_what_got_better_and_what_got_worse() -> None:
    against_untrained, against_pixels, caveat = summary(RESULTS)
    assert "better: linear probe (0.600 → 0.800)" in against_untrained
    assert "worse: 20 nearest neighbours (0.750 → 0.700)" in against_untrained
    assert "no clear change: NMI (0.200 → 0.200)" in against_untrained
    assert "better: linear probe (0.500 → 0.800), NMI (0.100 → 0.200)" in against_pixels
    assert "worse: 20 nearest neighbours (0.800 → 0.700)" in against_pixels
    assert "one run" in caveat


def test_the_table_has_a_line_for_each_measure_in_each_view() -> None:
    lines = to_text(table(RESULTS, k=50, labels=10, components=28)).splitlines()
    assert lines[0].split() == ["pixels", "untrained", "trained"]
    assert lines[1].split() == ["linear", "probe", "0.500", "0.600", "0.800", "better"]
    assert sum("whitened to 28 dimensions" in line for line in lines) == 8
    assert any(line.startswith("NMI, k = 50 as in the run") for line in lines)
    assert any(line.startswith("ACC, k = 10 labels") for line in lines)
    assert any(line.startswith("AMI, k = 10 labels") for line in lines)
    assert any(line.startswith("purity, k = 10 labels") for line in lines)
    assert any(line.startswith("ARI, k = 10 labels") and "0.200 ± 0.002" in line for line in lines)


def test_json_has_a_deviation_where_there_are_seeds() -> None:
    plain = to_plain(RESULTS["trained"])
    assert plain["linear"] == {"mean": 0.8}
    assert plain["plain_nmi"] == pytest.approx({"mean": 0.2, "std": 0.001 * math.sqrt(2.5)})
