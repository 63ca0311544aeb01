"""Warnings about the health of a run, and none for a healthy one."""

import math

import numpy as np
import pytest

from methods.health import check_loss, check_overdriven
from training import health

RNG = np.random.default_rng(0)


def test_spread_by_hand() -> None:
    rows = np.array([[3.0, 1.0], [3.0, -1.0]])
    assert health.feature_spread(rows) == pytest.approx(math.sqrt(1 / 10))
    assert health.feature_spread(np.zeros((3, 2))) == 0


def test_near_constant_features() -> None:
    varied = RNG.standard_normal((30, 8)).astype(np.float32) + 5
    assert health.check_features(varied) == []
    (warning,) = health.check_features(varied * 1e-6 + 5)
    assert "nearly the same for all images" in warning


def test_one_cluster_with_most_images() -> None:
    assert health.check_assignment(RNG.integers(5, size=100), 5) == []
    (warning,) = health.check_assignment(np.array([2] * 60 + [-1] * 50 + [0, 1, 3, 4] * 10), 5)
    assert "one cluster holds 60% of the images" in warning


def test_tiny_clusters() -> None:
    assert health.check_assignment(np.arange(100) // 2, 60) == []
    (warning,) = health.check_assignment(np.arange(100) * 2 // 3, 80)
    assert "a cluster has 1.5 images on average" in warning


def test_loss_at_ln_k() -> None:
    assert check_loss(0.9 * math.log(50), math.log(50), epoch=1) == []
    assert check_loss(0.0, 0.0, epoch=1) == []
    (warning,) = check_loss(0.999 * math.log(50), math.log(50), epoch=1)
    assert "is not below ln k = 3.912" in warning
    assert "(--reassign)" in warning


def test_the_first_epoch_is_skipped() -> None:
    assert check_loss(math.log(50), math.log(50), epoch=0) == []
    assert check_overdriven(9.0, 3.0, epoch=0) == []


def test_a_loss_far_above_guessing() -> None:
    assert check_overdriven(3.1, 3.0, epoch=1) == []
    (warning,) = check_overdriven(3.2, 3.0, epoch=1)
    assert "the convnet loss 3.200 is far above 3.000, the loss of guessing" in warning
