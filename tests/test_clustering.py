"""`Kmeans` and `PIC`: features in, pseudo-labels out."""

import inspect
from collections.abc import Callable

import numpy as np
import pytest
import torch
from arrays import correlated
from scipy.spatial.distance import cdist
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from cluster.clusters import Clusters
from cluster.moments import Moments
from cluster.quality import group_by_cluster
from clustering import (
    CLUSTERINGS,
    PIC,
    Kmeans,
    arrange_clustering,
    make_graph,
    preprocess_features,
    run_kmeans,
    run_pic,
)


def blobs(n: int = 300, spread: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Six far clusters in 4 dimensions, and the cluster of each point."""
    x, truth = make_blobs(n, 4, centers=6, cluster_std=spread, random_state=0)
    return x.astype(np.float32), truth


def test_kmeans_keeps_assignments_and_lists() -> None:
    clustering = Kmeans(5, seed=3)
    loss = clustering.cluster(correlated(200, 30))
    assert loss > 0
    assert clustering.assignments.shape == (200,)
    assert clustering.assignments.dtype == np.int64
    assert len(clustering.images_lists) == 5
    for cluster, members in enumerate(clustering.images_lists):
        assert members == np.flatnonzero(clustering.assignments == cluster).tolist()


def test_given_moments_lead_to_the_same_clusters() -> None:
    features = correlated(500, 60).astype(np.float16)
    moments = Moments(60)
    moments.add(torch.from_numpy(features))
    first, second = Kmeans(7), Kmeans(7)
    assert first.cluster(features) == pytest.approx(second.cluster(features, moments=moments))
    np.testing.assert_array_equal(first.assignments, second.assignments)


def test_pic_finds_clear_clusters_and_their_number() -> None:
    features, truth = blobs()
    clustering = PIC(sigma=1, pca=256)
    assert clustering.cluster(features) == 0
    found = clustering.assignments
    assert found.shape == (300,)
    assert found.dtype == np.int64
    for cluster, members in enumerate(clustering.images_lists):
        assert len(members) > 1
        assert members == np.flatnonzero(found == cluster).tolist()
        assert len(set(truth[members])) == 1, "no cluster mixes blobs"
    assert set(found) == set(range(len(clustering.images_lists)))


def test_pic_centroids_are_the_means_of_the_clusters() -> None:
    features, _ = blobs()
    clustering = PIC(sigma=1, pca=256)
    clustering.cluster(features)
    x = preprocess_features(features)
    means = [x[members].mean(axis=0) for members in clustering.images_lists]
    np.testing.assert_allclose(clustering.centroids, means, atol=1e-4)


def test_pic_joins_points_without_affinity_to_their_nearest_neighbours() -> None:
    features, _ = blobs()
    features[:3] += [[0, 90, 0, 0], [0, 0, 90, 0], [0, 0, 0, 90]]  # exp(−d/σ²) underflows to 0
    alone, joined = (PIC(sigma=0.02, distribute_singletons=join, pca=256) for join in (False, True))
    for clustering in (alone, joined):
        clustering.cluster(features)
    assert [len(c) for c in alone.images_lists].count(1) == 3
    assert all(len(members) > 1 for members in joined.images_lists)
    assert len(joined.images_lists) == len(alone.images_lists) - 3


@pytest.mark.parametrize("clustering", [Kmeans(6, pca=None), PIC(sigma=1, pca=None)])
def test_without_a_pca_rows_are_clustered_as_they_are(clustering: Kmeans | PIC) -> None:
    x = preprocess_features(blobs()[0])
    whitened = Kmeans(6, pca=256) if isinstance(clustering, Kmeans) else PIC(sigma=1, pca=256)
    whitened.cluster(blobs()[0])
    clustering.cluster(x.astype(np.float64))
    np.testing.assert_array_equal(clustering.assignments, whitened.assignments)
    assert clustering.whitening is None
    with pytest.raises(ValueError, match="raw rows"):
        Clusters.of(clustering, 0)


def test_new_rows_go_to_the_nearest_centroid() -> None:
    """The reference: distances in float64. Another centroid may be as near, up to 1e-5."""
    kmeans = Kmeans(9)
    features = correlated(400, 60).astype(np.float16)
    kmeans.cluster(features[:300])
    clusters = Clusters.of(kmeans, 3)
    assert (clusters.algorithm, clusters.epoch) == ("Kmeans", 3)
    nearest, distances = clusters.assign(features)
    assert (nearest.dtype, distances.dtype) == (np.int64, np.float32)
    mean, matrix = (a.astype(np.float64) for a in vars(clusters.whitening).values())
    white = (features - mean) @ matrix
    white /= np.linalg.norm(white, axis=1, keepdims=True)
    every = cdist(white, kmeans.centroids)
    np.testing.assert_allclose(distances, every.min(axis=1), atol=1e-5)
    np.testing.assert_allclose(distances, every[np.arange(400), nearest], atol=1e-5)
    own = every[np.arange(300), kmeans.assignments]
    np.testing.assert_allclose(distances[:300], own, atol=1e-5)
    assert distances.max() <= 2
    assert [len(part) for part in clusters.assign(features[:0])] == [0, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nnn": 300}, "nnn = 300"),
        ({"sigma": 0.0}, "sigma = 0.0"),
        ({"alpha": 1.5}, "alpha = 1.5"),
        ({"graph": "quick"}, "'quick'"),
    ],
)
def test_pic_settings_out_of_range_raise(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PIC(**settings, pca=256).cluster(blobs()[0])  # type: ignore[arg-type]


def test_kmeans_finds_clear_clusters() -> None:
    features, truth = blobs()
    runs = [Kmeans(6, seed=seed) for seed in range(5)]
    for kmeans in runs:
        kmeans.cluster(features)
    assert max(adjusted_rand_score(truth, kmeans.assignments) for kmeans in runs) == 1


def test_group_by_cluster_keeps_empty_clusters_and_drops_left_out_images() -> None:
    assert group_by_cluster(np.array([3, -1, 0, 3, 0]), 5) == [[2, 4], [], [], [0, 3], []]


def test_arrange_clustering_gives_the_cluster_of_each_image() -> None:
    assignment = arrange_clustering([[5, 1], [], [0], (3, 6)])
    assert assignment.dtype == np.int64
    assert assignment.tolist() == [2, 0, -1, 3, -1, 0, 3]
    assert arrange_clustering([[], []]).shape == arrange_clustering([]).shape == (0,)


def test_arrange_clustering_undoes_group_by_cluster() -> None:
    assignment = np.random.default_rng(0).integers(-1, 9, 500)
    assignment[-1] = 3  # lists can't tell that the last images are left out
    np.testing.assert_array_equal(arrange_clustering(group_by_cluster(assignment, 9)), assignment)


@pytest.mark.parametrize(
    ("images_lists", "message"),
    [
        ([[0, 2], [1, 2]], "images_lists: image 2 occurs 2 times; give it once"),
        ([[0, 1], [3, 3, 3]], "images_lists: image 3 occurs 3 times; give it once"),
        ([[0], [1, -4]], "images_lists: there is no image -4; numbers begin with 0"),
    ],
)
def test_arrange_clustering_needs_each_image_once(
    images_lists: list[list[int]], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        arrange_clustering(images_lists)


@pytest.mark.parametrize(
    ("named", "arguments"),
    [
        (Kmeans, ["k"]),
        (PIC, ["sigma", "nnn", "alpha", "distribute_singletons"]),
        (preprocess_features, ["features", "pca"]),
        (make_graph, ["xb", "nnn"]),
        (run_kmeans, ["x", "nmb_clusters", "verbose"]),
        (run_pic, ["I", "D", "sigma", "alpha"]),
        (arrange_clustering, ["images_lists"]),
    ],
)
def test_the_originals_names_take_the_originals_arguments(
    named: Callable[..., object], arguments: list[str]
) -> None:
    assert list(inspect.signature(named).parameters)[: len(arguments)] == arguments


def test_each_clustering_has_the_name_of_its_class() -> None:
    """A checkpoint keeps the class's name."""
    assert list(CLUSTERINGS) == [kind.__name__ for kind in CLUSTERINGS.values()]
