"""Clustering on the GPU, by Faiss and by torch, is that of the CPU."""

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import faiss
import numpy as np
import pytest
import torch
from arrays import sphere
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from benchmarks.gpu.clusters import without_faiss
from cluster.hierarchy import hierarchical_kmeans
from cluster.kmeans import KmeansOptions, sum_by_cluster, train_kmeans
from cluster.nearest import NearestCentroid
from cluster.pic import make_graph
from cluster.sinkhorn import sinkhorn
from cluster.spherical import spherical_kmeans
from cluster.whitening import fit_whitening
from evaluation.knn import knn_accuracy
from system.device import select_compute

pytestmark = pytest.mark.gpu
GPU, CPU = torch.device("cuda"), torch.device("cpu")
LIBRARIES = ["faiss", "torch"]


@pytest.fixture(autouse=True)
def _as_in_a_run() -> Iterator[None]:
    """With TF32 wherever nothing turns it off."""
    before = torch.backends.cuda.matmul.fp32_precision
    benchmark = torch.backends.cudnn.benchmark
    select_compute("cuda")
    yield
    torch.backends.cuda.matmul.allow_tf32 = before == "tf32"
    torch.backends.cudnn.benchmark = benchmark


def by(library: str) -> AbstractContextManager[None]:
    return nullcontext() if library == "faiss" else without_faiss()


def test_faiss_sees_the_gpus_that_torch_sees() -> None:
    """Otherwise torch searches, as with faiss-cpu."""
    assert faiss.get_num_gpus() in (0, torch.cuda.device_count())


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(("float16", "spherical"), [(False, False), (True, False), (False, True)])
def test_clear_clusters_are_the_cpus(library: str, float16: bool, spherical: bool) -> None:
    x, truth = make_blobs(20_000, 32, centers=40, cluster_std=0.3, random_state=0)
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    options = KmeansOptions("kmeans++", spherical, float16)
    with by(library):
        found = train_kmeans(x, 40, options=options, device=GPU)
    expected = train_kmeans(x, 40, options=options, device=CPU)
    assert adjusted_rand_score(found.assignment, expected.assignment) > 0.99
    assert adjusted_rand_score(found.assignment, truth) > 0.9
    assert found.loss == pytest.approx(expected.loss, rel=1e-2)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_search_beside_other_work_of_the_device(library: str) -> None:
    """Faiss has streams of its own."""
    x, centroids = sphere(50_000, 64), sphere(300, 64, seed=1)
    expected, distances = NearestCentroid(x, CPU)(centroids)
    busy = torch.randn(4096, 4096, device=GPU)
    with by(library):
        search = NearestCentroid(x, GPU)
        for _ in range(3):
            for _ in range(20):
                busy = (busy @ busy).clamp(-1, 1)
            found, near = search(centroids)
            assert (found == expected).mean() > 0.999
            np.testing.assert_allclose(near, distances, rtol=1e-4, atol=1e-5)
    assert search.device.type == "cuda"


def test_torch_continues_on_the_cpu_without_memory(caplog: pytest.LogCaptureFixture) -> None:
    x, centroids = sphere(50_000, 64), sphere(300, 64, seed=1)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    try:
        with without_faiss(), caplog.at_level(logging.WARNING, "deepcluster"):
            search = NearestCentroid(x, GPU)
            found, _ = search(centroids)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert search.device == CPU
    assert "k-means: out of GPU memory, continuing on the CPU" in caplog.text
    np.testing.assert_array_equal(found, NearestCentroid(x, CPU)(centroids)[0])


@pytest.mark.skipif(faiss.get_num_gpus() == 0, reason="Faiss sees no GPU")
@pytest.mark.skipif("PYTEST_XDIST_WORKER" in os.environ, reason="fills the GPU; run it alone")
def test_faiss_continues_on_the_cpu_without_memory(caplog: pytest.LogCaptureFixture) -> None:
    x, centroids = sphere(50_000, 64), sphere(300, 64, seed=1)
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(free - 2**29, dtype=torch.uint8, device=GPU)
    with caplog.at_level(logging.WARNING, "deepcluster"):
        search = NearestCentroid(x, GPU)  # Faiss wants 1.5 GiB
        found, _ = search(centroids)
    del taken
    torch.cuda.empty_cache()
    assert search.device == CPU
    assert "k-means: out of GPU memory, continuing on the CPU" in caplog.text
    np.testing.assert_array_equal(found, NearestCentroid(x, CPU)(centroids)[0])


def test_sums_by_cluster_are_the_cpus() -> None:
    x, assignment = sphere(40_000, 24), np.random.default_rng(0).integers(7, size=40_000)
    found, expected = (sum_by_cluster(x, assignment, 9, device) for device in (GPU, CPU))
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_whitening_is_the_cpus(mean: float) -> None:
    """Covariances in TF32 would be off by a thousandth, and more beside a large mean."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((9000, 96)) * np.arange(1, 97) ** -0.7 + mean
    x = x.astype(np.float32)
    rows = [fit_whitening(x, 24, device).apply(x, device)[:500] for device in (GPU, CPU)]
    found, expected = (each @ each.T for each in rows)
    np.testing.assert_allclose(found, expected, atol=5e-3 if mean else 1e-3)


def test_features_in_half_precision_are_whitened_as_on_the_cpu() -> None:
    x = sphere(9000, 48).astype(np.float16)
    whitening = fit_whitening(x, 24, CPU)
    np.testing.assert_allclose(whitening.apply(x, GPU), whitening.apply(x, CPU), atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_spherical_kmeans_is_the_cpus(dtype: type[np.floating]) -> None:
    x: np.ndarray = sphere(20_000, 32).astype(dtype)
    first = x[:50].astype(np.float32)
    found, expected = (spherical_kmeans(x, first, 3, device=device) for device in (GPU, CPU))
    assert (found[0] == expected[0]).mean() > 0.99
    np.testing.assert_allclose(found[1], expected[1], atol=1e-2)


@pytest.mark.parametrize("library", LIBRARIES)
def test_two_levels_are_the_cpus(library: str) -> None:
    x, _ = make_blobs(4000, 16, centers=12, cluster_std=0.1, random_state=1)
    x = x.astype(np.float32)
    expected = hierarchical_kmeans(x, 3, 4, 5, 0, device=CPU)
    with by(library):
        found = hierarchical_kmeans(x, 3, 4, 5, 0, device=GPU)
    assert adjusted_rand_score(found.super, expected.super) > 0.99
    numbers = [each.super * 4 + each.sub for each in (found, expected)]
    assert adjusted_rand_score(*numbers) > 0.99


def test_codes_are_the_cpus() -> None:
    scores = torch.randn(64, 30, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    torch.testing.assert_close(
        sinkhorn(scores.to(GPU), 0.05, 3).cpu(), sinkhorn(scores, 0.05, 3), rtol=1e-3, atol=1e-5
    )


@pytest.mark.skipif(faiss.get_num_gpus() == 0, reason="Faiss sees no GPU")
def test_the_exact_graph_is_the_cpus() -> None:
    x = sphere(20_000, 32)
    found, expected = (make_graph(x, 5, "exact", use_gpus=on_gpus) for on_gpus in (True, False))
    assert (found[0] == expected[0]).mean() > 0.999
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-3, atol=1e-5)


def test_nearest_neighbours_are_the_cpus() -> None:
    x, labels = make_blobs(3000, 16, centers=9, cluster_std=4.0, random_state=0)
    x = x.astype(np.float32)
    queries = x[:500] + 0.1
    found, expected = (
        knn_accuracy(x, labels, queries, labels[:500], [10, 20], device=device)
        for device in (GPU, CPU)
    )
    assert found == pytest.approx(expected, abs=0.005)
