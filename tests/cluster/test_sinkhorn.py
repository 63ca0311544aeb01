"""Sinkhorn: the released numbers, float64, and extreme ε."""

import numpy as np
import pytest
import torch
from reference_numbers import SWAV
from scipy.special import logsumexp

from cluster.sinkhorn import sinkhorn


@pytest.mark.parametrize("case", [1, 2])
def test_it_gives_the_released_codes(case: int) -> None:
    codes = sinkhorn(torch.from_numpy(SWAV[f"sinkhorn{case}_scores"]), 0.05, 3).numpy()
    released = SWAV[f"sinkhorn{case}_out_eps0.05_it3"]
    exact = SWAV[f"sinkhorn{case}_ref64_eps0.05_it3"]
    np.testing.assert_allclose(codes, released, rtol=0, atol=2e-6)
    np.testing.assert_allclose(codes, exact, rtol=0, atol=2e-6)
    assert codes.dtype == np.float32


@pytest.mark.parametrize("epsilon", [0.1, 0.03, 0.01, 0.001])
def test_any_epsilon_gives_finite_codes(epsilon: float) -> None:
    scores = SWAV["sinkhorn2_scores"]  # cosines of 1 and −1
    codes = sinkhorn(torch.from_numpy(scores), epsilon, 3).numpy()
    logs = scores.astype(np.float64) / epsilon
    for _ in range(3):
        logs = logs - logsumexp(logs, axis=0, keepdims=True)
        logs = logs - logsumexp(logs, axis=1, keepdims=True)
    np.testing.assert_allclose(codes, np.exp(logs), atol=1e-6 / epsilon)
    np.testing.assert_allclose(codes.sum(1), 1, atol=1e-5)


def test_many_iterations_use_all_prototypes_equally() -> None:
    scores = torch.from_numpy(SWAV["sinkhorn1_scores"])
    codes = sinkhorn(scores, 0.05, 300)
    torch.testing.assert_close(codes.sum(0), torch.full((30,), 64 / 30), rtol=1e-3, atol=0)


def test_half_precision_scores_are_computed_in_float32() -> None:
    scores = torch.from_numpy(SWAV["sinkhorn1_scores"]).half()
    assert torch.equal(sinkhorn(scores, 0.05, 3), sinkhorn(scores.float(), 0.05, 3))


def test_no_rows_give_no_codes() -> None:
    assert sinkhorn(torch.empty(0, 5), 0.05, 3).shape == (0, 5)
