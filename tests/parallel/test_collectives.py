"""Clustering on 1, 2 and 4 processes, connected as under torchrun (gloo, CPU)."""

from pathlib import Path

import numpy as np
import pytest
from arrays import sphere
from kmeans_reference import kmeans_in_float64
from runs import Server
from sharded_clustering import SEED, K
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from clustering import preprocess_features
from parallel.collectives import all_reduce, broadcast, gather_rows, rank, world_size

SCRIPT = Path(__file__).parents[1] / "sharded_clustering.py"
KEPT = ("memory", "known", "numbers of the known", "drawn", "queue")


def cluster_on(server: Server, folder: Path, shares: str) -> dict[str, np.ndarray]:
    """Run tests/sharded_clustering.py with a process of one thread for each share. Returns its
    results."""
    arguments = [folder / "features", shares, folder / "out.npz"]
    server.run_script(SCRIPT, arguments, folder / shares, ranks=shares.count(",") + 1)
    with np.load(folder / "out.npz") as results:
        return dict(results)


def test_one_process_needs_no_group() -> None:
    rows = np.arange(6).reshape(3, 2)
    assert (world_size(), rank()) == (1, 0)
    for collective in (all_reduce, gather_rows, broadcast):
        np.testing.assert_array_equal(collective(rows), rows)


def test_the_clusters_do_not_depend_on_the_processes(server: Server, tmp_path: Path) -> None:
    """600 rows in 12 clear clusters, and 600 in none, where k-means would amplify the slightest
    difference from one iteration to the next."""
    clear, truth = make_blobs(600, 40, centers=12, cluster_std=2.0, random_state=0)
    none = sphere(600, 64)
    (tmp_path / "features").mkdir()
    np.save(tmp_path / "features" / "clear.npy", clear.astype(np.float32))
    np.save(tmp_path / "features" / "none.npy", none)
    sharded = [
        cluster_on(server, tmp_path, shares) for shares in ("600", "250,350", "100,0,460,40")
    ]
    for results in sharded:
        equals_kmeans_in_float64(none, results["none, k-means"], results["none, loss"])
        assert adjusted_rand_score(results["clear, k-means++, whitened"], truth) == 1
        assert results["clear, components"] == results["none, components"] == 16, "of all 600 rows"
        for name in ("clear, k-means, auto", "clear, k-means, normalised"):
            assert adjusted_rand_score(results[name], sharded[0][name]) == 1
    for name in ("clear", "none"):
        are_the_same_clusters_of_pic([results[f"{name}, PIC"] for results in sharded])
        for what in ("mean", "inverse covariance"):
            are_equal_but_for_rounding([results[f"{name}, {what}"] for results in sharded])
        for results in sharded:
            are_the_codes_and_clusters_of_one_process(name, results, sharded[0])
    unit = clear.astype(np.float32) / np.linalg.norm(clear.astype(np.float32), axis=1)[:, None]
    for results in sharded:
        are_kept_by_image(unit, {what: results[f"clear, {what}"] for what in KEPT})


def equals_kmeans_in_float64(x: np.ndarray, assignment: np.ndarray, loss: np.ndarray) -> None:
    nearest, expected = kmeans_in_float64(x, K, SEED)
    np.testing.assert_array_equal(assignment, nearest)
    assert loss[0] == pytest.approx(expected, rel=1e-6)


def are_the_same_clusters_of_pic(assignments: list[np.ndarray]) -> None:
    """Exactly, as one process computes them from the graph of all points."""
    single, *others = assignments
    assert 1 < len(set(single.tolist())) < len(single) / 2
    for other in others:
        np.testing.assert_array_equal(other, single)


def are_the_codes_and_clusters_of_one_process(
    name: str, results: dict[str, np.ndarray], single: dict[str, np.ndarray]
) -> None:
    for what in ("spherical", "spherical, empty ones split", "two levels"):
        np.testing.assert_array_equal(results[f"{name}, {what}"], single[f"{name}, {what}"])
    for what in ("spherical centroids", "codes", "centroids of two levels", "silhouette"):
        found, expected = results[f"{name}, {what}"], single[f"{name}, {what}"]
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(results[f"{name}, codes"].sum(axis=1), 1, atol=1e-5)


def are_kept_by_image(rows: np.ndarray, results: dict[str, np.ndarray]) -> None:
    """What `sharded_clustering.remembered` describes."""
    kept = np.arange(len(rows)) % 7 > 0
    expected = np.where(kept[:, None], rows, 0)
    expected[3] = rows[0]
    np.testing.assert_allclose(results["memory"][:, 0], expected, atol=1e-3)
    assert results["memory"].dtype == np.float16
    np.testing.assert_array_equal(results["known"], kept)
    np.testing.assert_array_equal(
        results["numbers of the known"], np.where(kept, np.arange(len(rows)), -1)
    )
    chosen = np.random.default_rng(SEED).choice(np.flatnonzero(kept), K, replace=False)
    np.testing.assert_allclose(results["drawn"], expected[chosen], atol=1e-3)
    queued, expected = results["queue"][:, 0], rows[kept]  # in another order: by age
    queued, expected = (each[np.argsort(each[:, 0])] for each in (queued, expected))
    np.testing.assert_allclose(queued, expected, atol=1e-6)


def are_equal_but_for_rounding(arrays: list[np.ndarray]) -> None:
    single, *others = arrays
    for other in others:
        np.testing.assert_allclose(other, single, rtol=0, atol=1e-4 * np.abs(single).max())


def test_fewer_features_than_dimensions_are_clustered_as_in_one_process(
    server: Server, tmp_path: Path
) -> None:
    features, _ = make_blobs(300, 400, centers=12, cluster_std=2.0, random_state=0)
    features = features.astype(np.float16)
    (tmp_path / "features").mkdir()
    np.save(tmp_path / "features" / "few.npy", features)
    sharded = cluster_on(server, tmp_path, "90,0,210")
    whitened = preprocess_features(features)
    found = sharded["few, k-means, whitened"], sharded["few, loss, whitened"]
    equals_kmeans_in_float64(whitened, *found)
