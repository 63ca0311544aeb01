"""The number of dimensions that features are whitened to."""

import argparse
import warnings

import numpy as np
import pytest

from cluster import whitening
from cluster.components import add_flag, auto_dim, is_noisy
from cluster.quality import nmi
from clustering import PIC, Kmeans, preprocess_features


@pytest.mark.parametrize(
    ("rows", "dim", "expected"),
    [
        (2, 512, 2),
        (24, 512, 2),
        (100, 512, 8),
        (192, 512, 16),
        (300, 512, 16),
        (800, 512, 16),
        (1437, 4096, 28),
        (1437, 20, 20),
        (12_799, 512, 255),
        (12_800, 512, 256),
        (1_281_167, 4096, 256),
    ],
)
def test_few_rows_get_few_dimensions(rows: int, dim: int, expected: int) -> None:
    assert whitening.auto_dim(rows, dim) == auto_dim(rows, dim) == expected


def gaussians(rows: int, kinds: int, dim: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """Well-separated Gaussians and the numbers of theirs."""
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % kinds
    centres = rng.standard_normal((kinds, dim))
    return (centres[labels] + rng.standard_normal((rows, dim))).astype(np.float32), labels


@pytest.mark.parametrize(("rows", "kinds"), [(1000, 12), (100, 5)])
def test_separate_groups_are_found_where_the_papers_dimensions_give_noise(
    rows: int, kinds: int
) -> None:
    x, labels = gaussians(rows, kinds)
    agreement = {}
    for pca in ("auto", 0, min(256, rows - 1)):
        clustering = Kmeans(kinds, seed=1, pca=pca)
        clustering.cluster(x)
        agreement[pca] = nmi(clustering.assignments, labels)
    assert agreement["auto"] > 0.8
    assert agreement[0] > 0.8
    assert agreement[min(256, rows - 1)] < 0.6


def test_rows_that_are_only_normalised_keep_their_dimensions() -> None:
    x, _ = gaussians(300, 3, dim=20)
    expected = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(preprocess_features(x, pca=0), expected, atol=1e-6)
    clustering = Kmeans(3, pca=0)
    clustering.cluster(x)
    assert clustering.centroids.shape == (3, 20)
    assert clustering.whitening is not None
    assert clustering.whitening.components == 0


def test_auto_whitens_as_the_number_itself_does() -> None:
    x, _ = gaussians(300, 3)
    np.testing.assert_array_equal(preprocess_features(x, "auto"), preprocess_features(x, 16))


@pytest.mark.parametrize("call", [preprocess_features, Kmeans(3).cluster, PIC().cluster])
def test_functions_warn_of_few_rows_for_a_default_that_nobody_chose(call) -> None:  # type: ignore[no-untyped-def]
    x, _ = gaussians(400, 3, dim=64)
    with pytest.warns(UserWarning, match="400 rows whitened to 64 dimensions tend to noise"):
        call(x)


@pytest.mark.parametrize("pca", [256, "auto", 0])
def test_a_number_that_was_chosen_is_not_warned_of(pca: int | str) -> None:
    x, _ = gaussians(400, 3, dim=64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        preprocess_features(x, pca)  # type: ignore[arg-type]


def test_few_dimensions_are_not_warned_of() -> None:
    x, _ = gaussians(300, 3, dim=16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        preprocess_features(x)  # "auto" takes all 16, too


def test_a_number_of_numpy_is_a_number() -> None:
    x, _ = gaussians(300, 3)
    np.testing.assert_array_equal(preprocess_features(x, np.int64(8)), preprocess_features(x, 8))  # type: ignore[arg-type]


def test_many_rows_are_not_warned_of() -> None:
    x, _ = gaussians(20 * 64, 3, dim=64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        preprocess_features(x)


def test_twenty_rows_a_dimension_are_enough() -> None:
    assert is_noisy(1999, 100)
    assert not is_noisy(2000, 100)


@pytest.mark.parametrize("pca", [-1, 1.5, "many", True])
def test_an_odd_number_of_dimensions_is_an_error(pca: object) -> None:
    with pytest.raises(ValueError, match="auto"):
        preprocess_features(np.ones((4, 3), np.float32), pca)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"), [("auto", "auto"), ("0", 0), ("28", 28), ("-1", None), ("x", None)]
)
def test_the_flag_takes_auto_a_number_or_none(
    text: str, expected: object, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    add_flag(parser, "auto", "help")
    if expected is None:
        with pytest.raises(SystemExit):
            parser.parse_args(["--dim_pca", text])
        assert repr(text) in capsys.readouterr().err
    else:
        assert parser.parse_args(["--dim_pca", text]).dim_pca == expected
