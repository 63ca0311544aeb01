"""PCA-whitening against Faiss and float64."""

import faiss
import numpy as np
import pytest
import torch
from arrays import correlated

from cluster.moments import Moments
from cluster.whitening import fit_whitening, preprocess_features


def gram(x: np.ndarray) -> np.ndarray:
    """Inner products: they don't depend on the components' signs."""
    return x.astype(np.float64) @ x.T.astype(np.float64)


def relative_error(x: np.ndarray, reference: np.ndarray) -> float:
    difference = gram(x) - gram(reference)
    return float(np.linalg.norm(difference) / np.linalg.norm(gram(reference)))


def faiss_reference(features: np.ndarray, pca: int) -> np.ndarray:
    matrix = faiss.PCAMatrix(features.shape[1], pca, -0.5)
    matrix.train(features)
    white = matrix.apply(features)
    faiss.normalize_L2(white)
    return white


def float64_reference(features: np.ndarray, pca: int) -> np.ndarray:
    x = features.astype(np.float64)
    x -= x.mean(axis=0)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    rank = min(pca, int((s > s[0] * 1e-6).sum()))
    return u[:, :rank] / np.linalg.norm(u[:, :rank], axis=1, keepdims=True)


@pytest.mark.parametrize(("n", "dim", "pca"), [(6000, 96, 32), (300, 700, 64), (500, 500, 40)])
def test_whitening_equals_faiss_and_float64_up_to_signs(n: int, dim: int, pca: int) -> None:
    features = correlated(n, dim)
    ours = preprocess_features(features, pca)
    assert ours.shape == (n, pca)
    assert ours.dtype == np.float32
    assert relative_error(ours, faiss_reference(features, pca)) < 1e-3
    assert relative_error(ours, float64_reference(features, pca)) < 1e-5


@pytest.mark.parametrize("largest", [100, 300, 1000])
def test_with_one_dominant_direction_the_error_is_no_larger_than_faiss_s(largest: float) -> None:
    """The float32 products limit the precision of both."""
    rng = np.random.default_rng(0)
    axes, _ = np.linalg.qr(rng.standard_normal((192, 192)))
    deviations = np.array([largest, *np.linspace(1.5, 0.5, 191)])
    features = (rng.standard_normal((3000, 192)) * deviations @ axes.T).astype(np.float32)
    exact = float64_reference(features, 64)
    ours = relative_error(preprocess_features(features, 64), exact)
    assert ours < max(1e-3, 3 * relative_error(faiss_reference(features, 64), exact))


def test_a_mean_far_from_zero_costs_no_precision() -> None:
    features = correlated(5000, 60) + np.linspace(100, 300, 60, dtype=np.float32)
    reference = float64_reference(features, 16)
    assert relative_error(preprocess_features(features, 16), reference) < 1e-5


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float16, 2e-3), (np.float64, 1e-5)])
@pytest.mark.parametrize("n", [80, 900])
def test_other_floating_types(dtype: type, tolerance: float, n: int) -> None:
    features = correlated(n, 90)
    ours = preprocess_features(features.astype(dtype), 16)
    assert ours.dtype == np.float32
    assert relative_error(ours, preprocess_features(features, 16)) < tolerance


@pytest.mark.parametrize("n", [60, 600])
def test_directions_without_variance_stay_zero(n: int) -> None:
    features = correlated(n, 200, rank=7)
    ours = preprocess_features(features)
    assert ours.shape == (n, 256)
    assert not ours[:, 7:].any()
    np.testing.assert_allclose(gram(ours), gram(float64_reference(features, 7)), atol=1e-3)


def test_fewer_rows_than_components() -> None:
    ours = preprocess_features(correlated(20, 300))
    assert ours.shape == (20, 256)
    assert ours[:, :19].any(axis=0).all(), "centred rows span one dimension less"
    assert not ours[:, 19:].any()


@pytest.mark.parametrize("n", [5, 50, 5000])
def test_identical_rows_become_zero(n: int) -> None:
    rows = np.tile(np.random.default_rng(0).normal(3, 1, 10).astype(np.float32), (n, 1))
    ours = preprocess_features(rows)
    assert ours.shape == (n, 256)
    assert not ours.any()


def test_a_row_that_is_the_mean_becomes_zero() -> None:
    rows = np.array([[1, 2], [3, 2], [1, 4], [3, 4], [2, 3]], np.float32)
    ours = preprocess_features(rows, 2)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), [1, 1, 1, 1, 0], atol=1e-6)


def test_the_whitening_applies_to_new_rows() -> None:
    features = correlated(400, 50)
    whitening = fit_whitening(features, 20)
    rows = whitening.apply(features)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(whitening.apply(features[7:9]), rows[7:9], atol=1e-5)


def test_moments_of_blocks_of_rows_equal_numpys() -> None:
    features = correlated(9000, 30) + 50
    moments = Moments(30)
    for batch in torch.from_numpy(features).split(130):
        moments.add(batch)
    count, mean, covariance = moments.reduce()
    assert count == 9000
    exact = features.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(covariance, np.cov(exact.T, bias=True), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 5), (1, 1), (0, 5)])
def test_fewer_than_two_rows_raise(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=f"at least 2 rows, not {shape[0]}"):
        preprocess_features(np.zeros(shape, np.float32))


@pytest.mark.parametrize("shape", [(5,), (5, 0), (5, 4, 3)])
def test_other_shapes_than_a_matrix_raise(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(N, D\) array, not one of shape \(5,"):
        preprocess_features(np.zeros(shape, np.float32))


@pytest.mark.parametrize("shape", [(7, 9), (7, 1), (10,)])
def test_rows_of_other_dimensions_raise(shape: tuple[int, ...]) -> None:
    whitening = fit_whitening(correlated(30, 10))
    with pytest.raises(ValueError, match=r"\(N, 10\) array, not one of shape \("):
        whitening.apply(np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match=r"\(N, 10\) array, not one of shape \("):
        Moments(10).add(torch.zeros(shape))


def test_no_components_and_too_large_values_raise() -> None:
    with pytest.raises(ValueError, match="pca is -1"):
        preprocess_features(correlated(30, 10), -1)
    for n in (20, 200):
        with pytest.raises(ValueError, match="too large for products in float32"):
            preprocess_features(correlated(n, 50) * 1e20)


@pytest.mark.parametrize("n", [40, 300, 5000])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_error_names_the_row_that_is_not_finite(n: int, value: float) -> None:
    features = correlated(n, 50)
    whitening = fit_whitening(features)
    features[n - 3, 7] = value
    with pytest.raises(ValueError, match=f"row {n - 3} is not finite"):
        preprocess_features(features)
    with pytest.raises(ValueError, match=f"row {n - 3} is not finite"):
        whitening.apply(features)
