"""k-means against Faiss's and scikit-learn's, and the search for the nearest centroid."""

import logging
from typing import Any

import faiss
import numpy as np
import pytest
import torch
from arrays import sphere
from kmeans_reference import kmeans_in_float64
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from cluster import kmeans
from cluster import nearest as nearest_module
from cluster.kmeans import PLAIN, KmeansOptions, run_kmeans, train_kmeans
from cluster.nearest import NearestCentroid

CPU = torch.device("cpu")


def faiss_reference(x: np.ndarray, k: int, seed: int, spherical: bool = False) -> Any:
    """Faiss's own k-means, 20 iterations on every point, from the same first centroids."""
    start = x[np.random.RandomState(seed).choice(len(x), k, replace=False)]
    reference: Any = faiss.Clustering(x.shape[1], k)
    reference.niter, reference.max_points_per_centroid, reference.spherical = 20, 10**6, spherical
    faiss.copy_array_to_vector(start.ravel(), reference.centroids)
    index = faiss.IndexFlatL2(x.shape[1])
    reference.train(x, index)
    return reference, index.search(x, 1)[1][:, 0]


def are_nearest(
    x: np.ndarray, centroids: np.ndarray, nearest: np.ndarray, tolerance: float
) -> None:
    """Check that no centroid is nearer than a point's own, up to a tolerance of the squared
    distance."""
    distances = cdist(x.astype(np.float64), centroids, "sqeuclidean")
    own = distances[np.arange(len(x)), nearest]
    np.testing.assert_allclose(own, distances.min(axis=1), rtol=0, atol=tolerance)


@pytest.mark.parametrize("spherical", [False, True])
def test_it_is_faiss_kmeans_of_twenty_iterations_on_every_point(spherical: bool) -> None:
    x = sphere(1000)
    ours = train_kmeans(x, 8, seed=174, options=KmeansOptions(spherical=spherical), device=CPU)
    reference, assignment = faiss_reference(x, 8, 174, spherical)
    assert reference.iteration_stats.size() == 20, "points still move"
    assert ours.loss == pytest.approx(reference.iteration_stats.at(19).obj, rel=1e-5)
    np.testing.assert_array_equal(ours.assignment, assignment)
    np.testing.assert_array_equal(ours.assignment, kmeans_in_float64(x, 8, 174, spherical)[0])
    centroids = faiss.vector_to_array(reference.centroids).reshape(8, 16)
    np.testing.assert_allclose(ours.centroids, centroids, atol=1e-4)


def test_it_agrees_with_scikit_learn_on_clear_clusters() -> None:
    x, truth = make_blobs(600, 10, centers=6, cluster_std=0.3, random_state=0)
    x = x.astype(np.float32)
    centres = np.stack([x[truth == c].mean(axis=0) for c in range(6)])
    reference = SklearnKMeans(6, init=centres, n_init=1).fit(x)
    runs = [run_kmeans(x, 6, seed=seed) for seed in range(8)]
    assignment, loss = min(runs, key=lambda run: run[1])
    assert adjusted_rand_score(truth, assignment) == 1
    assert loss == pytest.approx(reference.inertia_, rel=1e-3)


def test_each_point_belongs_to_the_nearest_final_centroid() -> None:
    x = sphere(500)
    result = train_kmeans(x, 9, seed=1)
    are_nearest(x, result.centroids, result.assignment, 1e-6)
    assert result.assignment.dtype == np.int64


def test_seeds_give_different_and_repeatable_clusters() -> None:
    x = sphere(500)
    first, again, other = (run_kmeans(x, 9, seed=seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("init", ["kmeans++", "afkmc2"])
def test_better_first_centroids_find_clear_clusters_at_once(init: str) -> None:
    """From random points, k-means nearly always misses some of these 12 clear clusters."""
    x, truth = make_blobs(1200, 20, centers=12, cluster_std=0.1, random_state=3)
    scores = {
        name: [
            adjusted_rand_score(
                truth, train_kmeans(x, 12, seed=s, options=KmeansOptions(name)).assignment
            )
            for s in range(3)
        ]
        for name in ("random", init)
    }
    assert np.mean(scores[init]) > np.mean(scores["random"])
    assert max(scores[init]) == 1


def test_advance_is_called_after_each_iteration_and_nothing_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    steps: list[int] = []
    train_kmeans(sphere(99), 3, advance=steps.append)
    assert steps == [1] * 20
    assert capsys.readouterr().out == ""
    run_kmeans(sphere(99), 3, verbose=True)
    assert capsys.readouterr().out.count("objective=") == 20


@pytest.mark.parametrize("k", [0, 1, 100])
def test_a_k_out_of_range_raises(k: int) -> None:
    with pytest.raises(ValueError, match=f"k = {k} for N = 99 points"):
        run_kmeans(np.zeros((99, 4), np.float32), k)


def test_bad_points_and_options_raise() -> None:
    with pytest.raises(ValueError, match=r"not one of shape \(9,\)"):
        run_kmeans(np.zeros(9, np.float32), 2)
    with pytest.raises(ValueError, match="finite points"):
        run_kmeans(np.array([[1.0], [np.nan], [2.0]], np.float32), 2)
    with pytest.raises(ValueError, match="init 'best': give one of random, kmeans"):
        train_kmeans(sphere(9), 2, options=KmeansOptions("best"))


def test_the_sums_of_the_clusters_are_numpys() -> None:
    x, assignment = sphere(40_000), np.arange(40_000) % 7
    exact = [x[assignment == cluster].sum(axis=0, dtype=np.float64) for cluster in range(7)]
    sums = kmeans.sum_by_cluster(x, assignment, 8)
    np.testing.assert_allclose(sums[:7], exact, rtol=1e-12, atol=1e-10)
    assert not sums[7].any()
    with_torch = torch.zeros(8, 16, dtype=torch.float64)
    kmeans._add_with_torch(with_torch, torch.from_numpy(x), torch.from_numpy(assignment))
    np.testing.assert_allclose(with_torch, sums, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("float16", [False, True])
def test_torch_finds_the_same_nearest_centroids_as_faiss(
    float16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest_module, "SCORES", 1000)  # many blocks
    x, centroids = sphere(700), sphere(30, seed=1)
    nearest, distances = NearestCentroid(x, CPU)(centroids)
    ours, squared = nearest_module._torch_search(x, CPU, float16)(centroids)
    are_nearest(x, centroids, nearest, 1e-6)
    are_nearest(x, centroids, ours, 1e-2 if float16 else 1e-6)
    np.testing.assert_allclose(squared, distances, atol=1e-2 if float16 else 1e-5)


def test_k_means_continues_on_the_cpu_when_gpu_memory_runs_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []

    def small_gpu(x: np.ndarray, device: torch.device, *more: Any) -> nearest_module.Search:
        def search(centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            calls.append(device.type)
            if len(calls) == 3:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
            return nearest_module._faiss_search(x)(centroids)

        return search

    monkeypatch.setattr(nearest_module, "_search", small_gpu)
    x = sphere(300)
    with caplog.at_level(logging.WARNING, "deepcluster"):
        ours = train_kmeans(x, 7, device=torch.device("mps"))
    assert calls == ["mps"] * 3
    assert caplog.messages == [
        "k-means: out of GPU memory, continuing on the CPU (CUDA out of memory. Tried to allocate "
        "9 GiB)"
    ]
    monkeypatch.undo()
    np.testing.assert_array_equal(ours.assignment, train_kmeans(x, 7, device=CPU).assignment)


def test_other_errors_of_a_gpu_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(x: np.ndarray, device: torch.device, *more: Any) -> nearest_module.Search:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(nearest_module, "_search", broken)
    with pytest.raises(RuntimeError, match="no kernel image"):
        train_kmeans(sphere(30), 3, device=torch.device("cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("options", [PLAIN, KmeansOptions(float16=True, scratch_mib=256)])
def test_the_gpu_gives_the_cpus_clusters(options: KmeansOptions) -> None:
    x = sphere(5000)
    on_cpu, on_gpu = (
        train_kmeans(x, 20, options=options, device=torch.device(name)) for name in ("cpu", "cuda")
    )
    assert on_gpu.loss == pytest.approx(on_cpu.loss, rel=1e-2 if options.float16 else 1e-4)
