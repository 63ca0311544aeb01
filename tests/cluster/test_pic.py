"""The nearest-neighbour graph against scikit-learn and SciPy, and Power Iteration Clustering
against a slow transcription of its formulas."""

import logging
import re

import faiss
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

from cluster import pic
from cluster.pic import join_singletons, make_graph, run_pic

Graph = tuple[np.ndarray, np.ndarray]


def points(n: int, dim: int = 8, seed: int = 0) -> np.ndarray:
    """Random points in steps of 1/256, so that float32 does not round their squared distances."""
    x = np.random.default_rng(seed).standard_normal((n, dim))
    return (np.rint(256 * x) / 256).astype(np.float32)


def with_duplicates(x: np.ndarray, copies: int, seed: int = 0) -> np.ndarray:
    """The points in random order, the first of them `copies` times."""
    repeated = np.concatenate([np.repeat(x[:1], copies - 1, axis=0), x])
    return repeated[np.random.default_rng(seed).permutation(len(repeated))]


def sklearn_graph(x: np.ndarray, nnn: int) -> Graph:
    """Neighbours without the point itself, `(N, nnn)`, and squared distances."""
    distances, neighbours = NearestNeighbors(n_neighbors=nnn).fit(x).kneighbors()
    return neighbours, distances**2


def transcribed_mass(
    neighbours: np.ndarray, distances: np.ndarray, sigma: float, alpha: float
) -> Graph:
    """W `(N, N)` and v `(N,)` by PIC's formulas, with a dense matrix and loops."""
    n, width = neighbours.shape
    a = np.zeros((n, n))
    for i in range(n):
        for column in range(width):
            if neighbours[i, column] != i:
                affinity = np.exp(-float(distances[i, column]) / sigma**2)
                a[i, neighbours[i, column]] = affinity
    w = a + a.T
    v = np.full(n, 1 / n)
    for _ in range(200):
        v = alpha * w.T @ v + (1 - alpha) / n
        v /= v.sum()
    return w, v


def transcribed(neighbours: np.ndarray, distances: np.ndarray, sigma: float, alpha: float) -> Graph:
    """The neighbour that each point climbs to, and the clusters, by PIC's formulas with loops."""
    w, v = transcribed_mass(neighbours, distances, sigma, alpha)
    n = len(v)
    pointer = list(range(n))
    for i in range(n):
        best = 0.0
        for j in range(n):
            gain = w[i, j] * (v[j] - v[i])
            if gain > best:
                best, pointer[i] = gain, j
    clusters = np.empty(n, np.int64)
    for i in range(n):
        root = i
        while pointer[root] != root:
            root = pointer[root]
        clusters[i] = root
    return np.array(pointer), clusters


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(adjusted_rand_score(a, b) == 1) and len(set(a.tolist())) == len(set(b.tolist()))


def ids_are_consecutive(clusters: np.ndarray) -> bool:
    return clusters.dtype == np.int64 and set(clusters.tolist()) == set(range(clusters.max() + 1))


def well_formed(x: np.ndarray, nnn: int, neighbours: np.ndarray, distances: np.ndarray) -> None:
    """Shapes, types, each point first and only there, ascending and true distances."""
    own = np.arange(len(x))
    assert neighbours.shape == distances.shape == (len(x), nnn + 1)
    assert neighbours.dtype == np.int64
    assert distances.dtype == np.float32
    assert (neighbours[:, 0] == own).all()
    assert (distances[:, 0] == 0).all()
    assert (neighbours[:, 1:] != own[:, None]).all()
    assert all(len(set(row)) == nnn + 1 for row in neighbours.tolist())
    assert (np.diff(distances, axis=1) >= 0).all()
    true = ((x[neighbours].astype(np.float64) - x[:, None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(distances, true, atol=1e-4, rtol=1e-4)


# The graph


@pytest.mark.parametrize("method", ["auto", "exact"])
@pytest.mark.parametrize(("n", "dim", "nnn"), [(500, 8, 5), (40, 3, 1), (10, 4, 9), (2, 5, 1)])
def test_the_exact_graph_is_scikit_learns(n: int, dim: int, nnn: int, method: str) -> None:
    x = points(n, dim)
    neighbours, distances = make_graph(x, nnn, method)
    well_formed(x, nnn, neighbours, distances)
    expected, squared = sklearn_graph(x, nnn)
    np.testing.assert_array_equal(neighbours[:, 1:], expected)
    np.testing.assert_allclose(distances[:, 1:], squared, atol=1e-4)


@pytest.mark.parametrize("copies", [3, 20])
@pytest.mark.parametrize("method", ["exact", "approximate"])
def test_a_point_comes_before_its_duplicates_however_many(method: str, copies: int) -> None:
    x = with_duplicates(points(200), copies)
    neighbours, distances = make_graph(x, 5, method)
    well_formed(x, 5, neighbours, distances)
    every = cdist(x.astype(np.float64), x, "sqeuclidean")
    np.fill_diagonal(every, np.inf)
    nearest = np.sort(every, axis=1)[:, :5]
    np.testing.assert_allclose(distances[:, 1:], nearest, atol=1e-4, rtol=1e-4)


def test_float64_and_strided_points_work() -> None:
    x = points(60, 10).astype(np.float64)
    np.testing.assert_array_equal(
        make_graph(x[:, ::2], 3)[0], make_graph(x[:, ::2].astype(np.float32).copy(), 3)[0]
    )


def test_the_block_size_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    x, steps = points(100), list[int]()
    whole = make_graph(x, 4)
    monkeypatch.setattr(pic, "BLOCK", 30)
    parts = make_graph(x, 4, advance=steps.append)
    assert steps == [30, 30, 30, 10]
    np.testing.assert_array_equal(parts[0], whole[0])
    np.testing.assert_allclose(parts[1], whole[1], atol=1e-4)


def test_the_approximate_graph_finds_nearly_all_neighbours_and_logs_its_recall(
    caplog: pytest.LogCaptureFixture,
) -> None:
    x, _ = make_blobs(4000, 32, centers=20, cluster_std=3, random_state=0)
    x = x.astype(np.float32)
    with caplog.at_level(logging.INFO, "deepcluster"):
        neighbours, distances = make_graph(x, 5, "approximate")
    well_formed(x, 5, neighbours, distances)
    expected, _ = sklearn_graph(x, 5)
    recall = (neighbours[:, 1:, None] == expected[:, None]).any(axis=1).mean()
    assert recall > 0.95
    (logged,) = re.findall(r"recall\D*([01]\.\d+)", caplog.text)
    assert float(logged) == pytest.approx(recall, abs=0.02)


def test_the_approximate_graph_does_not_depend_on_the_number_of_threads() -> None:
    x, threads = points(3000), faiss.omp_get_max_threads()
    graphs = []
    try:
        for count in (1, 2, 5):
            faiss.omp_set_num_threads(count)
            graphs.append(make_graph(x, 5, "approximate")[0])
    finally:
        faiss.omp_set_num_threads(threads)
    np.testing.assert_array_equal(graphs[0], graphs[1])
    np.testing.assert_array_equal(graphs[0], graphs[2])


@pytest.mark.skipif(faiss.get_num_gpus() > 0, reason="with a GPU it is always the exact one")
def test_auto_takes_the_approximate_graph_beyond_a_size(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pic, "EXACT_UP_TO", 300)
    with caplog.at_level(logging.INFO, "deepcluster"):
        make_graph(points(300), 5)
        assert "recall" not in caplog.text
        make_graph(points(301), 5)
        assert "recall" in caplog.text


class FindsTooFew:
    """An index that finds no more than the first two of the points, and not itself for point 3."""

    def __init__(self, *_: object) -> None:
        self.points = np.empty(0)

    def search(self, queries: np.ndarray, k: int) -> Graph:
        n = len(queries)
        neighbours, distances = np.full((n, k), -1), np.full((n, k), np.float32(3.4e38))
        neighbours[:, 0], distances[:, 0] = np.arange(n), 0
        neighbours[:, 1], distances[:, 1] = np.arange(n) ^ 1, 0.5
        neighbours[3], distances[3] = [2, *[-1] * (k - 1)], [0.5, *[3.4e38] * (k - 1)]
        return distances, neighbours


def test_a_row_with_too_few_neighbours_is_filled_up_with_the_point() -> None:
    x = points(4)
    neighbours, distances = pic._search(FindsTooFew(), x, 3, None)
    own = np.arange(4)
    assert (neighbours[:, 0] == own).all()
    assert (distances[:, 0] == 0).all()
    assert ((neighbours == own[:, None]) | (neighbours == own[:, None] ^ 1)).all()
    assert ((neighbours == own[:, None]).sum(axis=1) == 3).all()
    assert (distances[neighbours == own[:, None]] == 0).all()
    assert (distances[neighbours != own[:, None]] == 0.5).all()
    assert run_pic(neighbours, distances, 1, 0.5).shape == (4,)


@pytest.mark.parametrize(
    ("x", "nnn", "method", "message"),
    [
        (points(6), 6, "auto", "nnn = 6 for N = 6"),
        (points(6), 0, "auto", "nnn = 0 for N = 6"),
        (points(6), -2, "auto", "nnn = -2 for N = 6"),
        (points(1), 1, "auto", "1"),
        (points(0), 1, "auto", "0"),
        (points(6)[0], 1, "auto", r"\(8,\)"),
        (points(6)[None], 1, "auto", r"\(1, 6, 8\)"),
        (points(6), 2, "quick", "'quick'"),
        (np.array([[0.0], [np.nan], [1]]), 1, "auto", "finite"),
        (np.array([[0.0], [np.inf], [1]]), 1, "exact", "finite"),
        (np.array([[0.0], [np.inf], [-np.inf]]), 1, "exact", "finite"),
        (np.array([[0.0], [1e300], [1]]), 1, "exact", "finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_bad_arguments_of_the_graph_raise(
    x: np.ndarray, nnn: int, method: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_graph(x, nnn, method)


# The clustering


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("n", "nnn", "sigma", "alpha"),
    [(150, 5, 1, 0.5), (150, 5, 0.7, 0.001), (60, 3, 2, 0.9), (30, 1, 1, 0.5), (12, 11, 3, 0.2)],
)
@pytest.mark.parametrize("copies", [1, 3])
def test_the_clusters_follow_the_formulas(
    n: int, nnn: int, sigma: float, alpha: float, seed: int, copies: int
) -> None:
    neighbours, distances = make_graph(with_duplicates(points(n, 3, seed), copies, seed), nnn)
    clusters = run_pic(neighbours, distances, sigma, alpha)
    assert ids_are_consecutive(clusters)
    assert same_partition(clusters, transcribed(neighbours, distances, sigma, alpha)[1])


@pytest.mark.parametrize(("sigma", "alpha"), [(3, 0.9), (1, 0.5), (0.5, 0.001)])
def test_the_mass_is_the_result_of_200_iterations(sigma: float, alpha: float) -> None:
    # Along a line mass spreads so slowly that an early stop would show.
    x = np.sort(np.random.default_rng(0).random((200, 1)) * 40, axis=0)
    graph = make_graph(x, 3)
    affinities, expected = transcribed_mass(*graph, sigma, alpha)
    ours = pic._affinities(*graph, sigma)
    np.testing.assert_allclose(ours.toarray(), affinities, rtol=1e-12)
    np.testing.assert_allclose(pic._power_iteration(ours, alpha), expected, rtol=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_edges_to_the_point_itself_are_dropped_in_any_column(seed: int) -> None:
    rng = np.random.default_rng(seed)
    neighbours, distances = make_graph(points(120, 3, seed), 5)
    order = rng.permuted(np.tile(np.arange(6), (120, 1)), axis=1)
    mixed = np.take_along_axis(neighbours, order, 1), np.take_along_axis(distances, order, 1)
    without = neighbours[:, 1:], distances[:, 1:]
    repeated = np.insert(neighbours, 3, np.arange(120), 1), np.insert(distances, 3, 0, 1)
    expected = transcribed(neighbours, distances, 1, 0.5)[1]
    for graph in (mixed, without, repeated):
        assert same_partition(run_pic(*graph, 1, 0.5), expected)


def test_of_equal_gains_the_lowest_neighbour_wins() -> None:
    # Two stars with the hubs 0 and 6, and point 3 between them; only the numbers differ.
    neighbours = np.array([[0, 0], [0, 0], [0, 0], [0, 6], [6, 6], [6, 6], [6, 6]])
    neighbours[[1, 2, 4, 5], 1] = [1, 2, 4, 5]
    clusters = run_pic(neighbours, np.full((7, 2), 0.5), 1, 0.5)
    assert same_partition(clusters, np.array([0, 0, 0, 0, 6, 6, 6]))


def test_points_whose_affinities_underflow_stay_alone() -> None:
    x = np.concatenate([points(40, 3) * 0.1, [[1e3, 0, 0], [0, 1e3, 0], [0, 0, 1e3]]])
    neighbours, distances = make_graph(x, 4)
    clusters = run_pic(neighbours, distances, 0.2, 0.5)
    assert ids_are_consecutive(clusters)
    sizes = np.bincount(clusters)
    assert (sizes[clusters[-3:]] == 1).all()
    assert sizes.max() > 1
    assert same_partition(clusters, transcribed(neighbours, distances, 0.2, 0.5)[1])


@pytest.mark.parametrize("sigma", [1e-3, 1e-170, 1e-300])
def test_without_any_affinity_each_point_is_alone(sigma: float) -> None:
    neighbours, distances = make_graph(points(30), 4)
    clusters = run_pic(neighbours, distances, sigma, 0.5)
    np.testing.assert_array_equal(clusters, np.arange(30))


@pytest.mark.parametrize("sigma", [1e-170, 1e-3, 1.0, 1e300])
def test_no_width_divides_duplicates_by_zero(sigma: float) -> None:
    x = with_duplicates(points(30), 4)
    with np.errstate(all="raise", under="ignore", over="ignore"):
        clusters = run_pic(*make_graph(x, 5), sigma, 0.5)
    assert ids_are_consecutive(clusters)


def test_a_long_chain_is_one_cluster() -> None:
    n = 300  # distances shrink towards one end, so that the mass rises all the way
    neighbours = np.minimum(np.arange(n)[:, None] + [0, 1], n - 1)
    distances = np.stack([np.zeros(n), np.linspace(3, 0.01, n)], axis=1)
    pointer, expected = transcribed(neighbours, distances, 1, 0.4)
    assert (pointer != np.arange(n)).sum() > n - 5
    assert same_partition(run_pic(neighbours, distances, 1, 0.4), expected)


TWO = np.array([[0, 1], [1, 0]])
NEAR = np.array([[0, 0.1], [0, 0.1]])


@pytest.mark.parametrize(
    ("graph", "distances", "sigma", "alpha", "message"),
    [
        (TWO, NEAR, 0, 0.5, "sigma = 0"),
        (TWO, NEAR, -0.2, 0.5, "sigma = -0.2"),
        (TWO, NEAR, np.nan, 0.5, "sigma = nan"),
        (TWO, NEAR, np.inf, 0.5, "sigma = inf"),
        (TWO, NEAR, 1, 0, "alpha = 0"),
        (TWO, NEAR, 1, 1, "alpha = 1"),
        (TWO, NEAR, 1, 1.5, "alpha = 1.5"),
        (TWO, NEAR, 1, np.nan, "alpha = nan"),
        (TWO, NEAR[:, :1], 1, 0.5, r"\(2, 2\) and \(2, 1\)"),
        (TWO[0], NEAR[0], 1, 0.5, r"\(2,\) and \(2,\)"),
        (TWO[:0], NEAR[:0], 1, 0.5, r"\(0, 2\)"),
        (TWO + 1, NEAR, 1, 0.5, r"0\.\.1, not 1\.\.2"),
        (TWO - 1, NEAR, 1, 0.5, r"0\.\.1, not -1\.\.0"),
        (TWO, NEAR - 0.5, 1, 0.5, "not -0.5"),
        (TWO, NEAR * np.nan, 1, 0.5, "not nan"),
    ],
)
def test_bad_arguments_of_the_clustering_raise(
    graph: np.ndarray, distances: np.ndarray, sigma: float, alpha: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run_pic(graph, distances, sigma, alpha)


# Singletons


@pytest.mark.parametrize(
    ("neighbours", "clusters", "joined"),
    [
        # 2 is alone and nearest to 0.
        ([[0, 1], [1, 0], [2, 0]], [0, 0, 1], [0, 0, 0]),
        # 4 is nearest to 3, which is alone, too, then to 1.
        ([[0, 1, 2], [1, 0, 2], [2, 3, 4], [3, 2, 0], [4, 3, 1]], [0, 0, 1, 2, 3], [0, 0, 1, 0, 0]),
        # 2, 3 and 4 have no other neighbours: they stay.
        ([[0, 1], [1, 0], [2, 3], [3, 2], [4, 3]], [0, 0, 1, 2, 3], [0, 0, 1, 2, 3]),
        # 3 joins 0. 4, whose only neighbour is 3, stays: 3 was alone before the joining.
        ([[0, 1], [1, 0], [2, 1], [3, 0], [4, 3]], [0, 0, 0, 1, 2], [0, 0, 0, 0, 1]),
        # 0 joins the nearer of two, and the numbers close the gap that it leaves.
        ([[0, 3, 1], [1, 2, 3], [2, 1, 3], [3, 4, 1], [4, 3, 1]], [0, 1, 1, 2, 2], [1, 0, 0, 1, 1]),
        # No point is alone.
        ([[0, 1], [1, 0], [2, 3], [3, 2]], [0, 0, 1, 1], [0, 0, 1, 1]),
        # All points are.
        ([[0, 1], [1, 0], [2, 0]], [0, 1, 2], [0, 1, 2]),
        # A row filled up with the point itself: 2 has no other neighbour.
        ([[0, 1, 2], [1, 0, 2], [2, 2, 2], [3, 3, 1]], [0, 0, 1, 2], [0, 0, 1, 0]),
    ],
)
def test_singletons_join_the_nearest_neighbour_that_is_not_alone(
    neighbours: list[list[int]], clusters: list[int], joined: list[int]
) -> None:
    before = np.array(clusters)
    result = join_singletons(np.array(neighbours), before)
    np.testing.assert_array_equal(result, joined)
    assert result.dtype == np.int64
    np.testing.assert_array_equal(before, clusters)


@pytest.mark.parametrize("seed", range(3))
def test_joining_equals_a_loop_over_the_points(seed: int) -> None:
    neighbours, _ = make_graph(points(300, 6, seed), 3)
    clusters = np.random.default_rng(seed).integers(0, 250, 300)
    sizes = np.bincount(clusters)
    expected = clusters.copy()
    for i in range(300):
        hosts = [j for j in neighbours[i] if sizes[clusters[j]] > 1]
        if sizes[clusters[i]] == 1 and hosts:
            expected[i] = clusters[hosts[0]]
    joined = join_singletons(neighbours, clusters)
    assert ids_are_consecutive(joined)
    assert same_partition(joined, expected)
    assert not same_partition(joined, clusters)
