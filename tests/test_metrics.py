"""NMI and purity against hand-computed cases."""

import math

import numpy as np
import pytest

from metrics import nmi, purity

A = np.array([0, 0, 0, 1, 1, 1])
B = np.array([0, 0, 1, 1, 1, 1])


def test_nmi_by_hand() -> None:
    def entropy(*p: float) -> float:
        return -sum(q * math.log(q) for q in p)

    information = entropy(1 / 2, 1 / 2) + entropy(1 / 3, 2 / 3) - entropy(1 / 3, 1 / 6, 1 / 2)
    geometric_mean = math.sqrt(entropy(1 / 2, 1 / 2) * entropy(1 / 3, 2 / 3))
    assert nmi(A, B) == pytest.approx(information / geometric_mean)


def test_nmi_leaves_out_what_either_leaves_out() -> None:
    assert nmi(np.array([0, 1, -1, 0, 1]), np.array([5, 6, 5, 5, -1])) == pytest.approx(1)


def test_purity_by_hand() -> None:
    assert purity(A, B) == pytest.approx(5 / 6)
    assert purity(np.array([0, 0, 0, -1]), np.array([1, 1, 2, 2])) == pytest.approx(2 / 3)
