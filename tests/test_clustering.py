"""PCA-whitening and k-means against Faiss, float64 and scikit-learn."""

from typing import Any

import faiss
import numpy as np
import pytest
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from clustering import Kmeans, fit_whitening, group_by_cluster, preprocess_features, run_kmeans


def correlated(n: int, dim: int, rank: int | None = None, seed: int = 0) -> np.ndarray:
    """Features with a mean and a falling spectrum, as a network's are."""
    rng = np.random.default_rng(seed)
    rank = rank or dim
    latent = rng.standard_normal((n, rank)) / np.sqrt(np.arange(1, rank + 1))
    return (latent @ rng.standard_normal((rank, dim)) + rng.standard_normal(dim)).astype(np.float32)


def gram(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64) @ x.T.astype(np.float64)


def float64_reference(features: np.ndarray, pca: int) -> np.ndarray:
    x = features.astype(np.float64)
    x -= x.mean(axis=0)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    rank = min(pca, int((s > s[0] * 1e-6).sum()))
    white = u[:, :rank]
    return white / np.linalg.norm(white, axis=1, keepdims=True)


@pytest.mark.parametrize(("n", "dim", "pca"), [(2000, 96, 32), (300, 700, 64), (500, 500, 40)])
def test_whitening_equals_faiss_and_float64_up_to_signs(n: int, dim: int, pca: int) -> None:
    features = correlated(n, dim)
    ours = preprocess_features(features, pca)
    assert ours.shape == (n, pca)
    assert ours.dtype == np.float32

    matrix = faiss.PCAMatrix(dim, pca, -0.5)
    matrix.train(features)
    theirs = matrix.apply(features)
    faiss.normalize_L2(theirs)
    for reference in (theirs, float64_reference(features, pca)):
        error = np.abs(gram(ours) - gram(reference)).max()
        assert error < 1e-3


@pytest.mark.parametrize("n", [60, 600])
def test_a_lower_rank_gives_fewer_components(n: int) -> None:
    features = correlated(n, 200, rank=7)
    ours = preprocess_features(features, 256)
    assert ours.shape == (n, 7)
    np.testing.assert_allclose(gram(ours), gram(float64_reference(features, 7)), atol=1e-3)


def test_fewer_rows_than_components() -> None:
    ours = preprocess_features(correlated(20, 300), 256)
    assert ours.shape == (20, 19), "centred rows span one dimension less"
    assert np.isfinite(ours).all()


@pytest.mark.parametrize("n", [5, 50])
def test_identical_rows_become_zero(n: int) -> None:
    ours = preprocess_features(np.full((n, 10), 3.7, np.float32))
    assert ours.shape[0] == n
    assert not ours.any()


def test_rows_have_unit_length_and_the_whitening_applies_to_new_rows() -> None:
    features = correlated(400, 50)
    whitening = fit_whitening(features, 20)
    rows = whitening.apply(features)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(whitening.apply(features[7:9]), rows[7:9], atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 5), (5,), (0, 5)])
def test_whitening_refuses_what_has_no_variance(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="N >= 2"):
        preprocess_features(np.zeros(shape, np.float32))


def test_kmeans_is_twenty_iterations_of_faiss_on_every_point() -> None:
    x = preprocess_features(correlated(3000, 40), 16)
    assignment, loss = run_kmeans(x, 8, seed=5)
    reference: Any = faiss.Clustering(16, 8)
    reference.niter, reference.seed = 20, 5
    reference.max_points_per_centroid = 10**6
    index = faiss.IndexFlatL2(16)
    reference.train(x, index)
    np.testing.assert_array_equal(assignment, index.search(x, 1)[1][:, 0])
    assert loss == pytest.approx(reference.iteration_stats.at(19).obj, rel=1e-6)


def test_kmeans_agrees_with_scikit_learn_where_the_clusters_are_clear() -> None:
    x, truth = make_blobs(600, 10, centers=6, cluster_std=0.3, random_state=0)
    x = x.astype(np.float32)
    centres = np.stack([x[truth == c].mean(axis=0) for c in range(6)])
    reference = SklearnKMeans(6, init=centres, n_init=1).fit(x)
    runs = [run_kmeans(x, 6, seed=seed) for seed in range(8)]
    assignment, loss = min(runs, key=lambda run: run[1])
    assert adjusted_rand_score(truth, assignment) == 1
    assert loss == pytest.approx(reference.inertia_, rel=1e-3)


def test_seeds_give_different_and_repeatable_clusters() -> None:
    x = preprocess_features(correlated(500, 40), 16)
    first, again, other = (run_kmeans(x, 9, seed=seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_progress_is_told_of_each_iteration() -> None:
    steps: list[int] = []
    run_kmeans(preprocess_features(correlated(99, 5)), 3, advance=steps.append)
    assert steps == [1] * 20


@pytest.mark.parametrize("k", [0, 1, 100])
def test_kmeans_refuses_an_impossible_k(k: int) -> None:
    with pytest.raises(ValueError, match=f"k = {k} for N = 99 points"):
        run_kmeans(np.zeros((99, 4), np.float32), k)


def test_the_class_keeps_assignments_and_lists() -> None:
    clustering = Kmeans(5, seed=3)
    loss = clustering.cluster(correlated(200, 30))
    assert loss > 0
    assert clustering.assignments.shape == (200,)
    assert clustering.assignments.dtype == np.int64
    assert len(clustering.images_lists) == 5
    for cluster, members in enumerate(clustering.images_lists):
        assert members == np.flatnonzero(clustering.assignments == cluster).tolist()


def test_more_clusters_than_distinct_points_leaves_some_empty() -> None:
    features = np.repeat(correlated(4, 6), 10, axis=0)
    clustering = Kmeans(8)
    clustering.cluster(features)
    sizes = [len(members) for members in clustering.images_lists]
    assert sum(sizes) == 40
    assert 0 in sizes


def test_group_by_cluster_keeps_empty_clusters_and_drops_left_out_images() -> None:
    assert group_by_cluster(np.array([3, -1, 0, 3, 0]), 5) == [[2, 4], [], [], [0, 3], []]
