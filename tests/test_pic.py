"""Power Iteration Clustering against scikit-learn, SciPy and a transcription of its formulas."""

import logging

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.datasets import make_blobs
from sklearn.neighbors import NearestNeighbors
from test_kmeans import sphere

import pic
from pic import join_singletons, make_graph, run_pic


def transcription(
    neighbours: np.ndarray, distances: np.ndarray, sigma: float, alpha: float
) -> list[int]:
    """The root of each point, by the formulas with dense matrices and loops."""
    n = len(neighbours)
    a = np.zeros((n, n))
    for i in range(n):
        for j, d in zip(neighbours[i], distances[i], strict=True):
            if i != j:
                a[i, j] += np.exp(-float(d) / sigma**2)
    w = a + a.T
    v = np.full(n, 1 / n)
    for _ in range(200):
        v = alpha * w.T @ v + (1 - alpha) / n
        v = v / v.sum()
    to = []
    for i in range(n):
        gains = [w[i, j] * (v[j] - v[i]) for j in range(n)]
        to.append(int(np.argmax(gains)) if max(gains) > 0 else i)
    roots = []
    for i in range(n):
        while to[i] != i:
            i = to[i]
        roots.append(i)
    return roots


def same_partition(one: np.ndarray, other: np.ndarray | list[int]) -> bool:
    pairs = set(zip(one.tolist(), np.asarray(other).tolist(), strict=True))
    return len(pairs) == len(set(one.tolist())) == len(set(np.asarray(other).tolist()))


@pytest.mark.parametrize("n", [7, 500])
def test_the_exact_graph_is_scikit_learns(n: int) -> None:
    x = sphere(n)
    neighbours, distances = make_graph(x, 5)
    assert neighbours.shape == distances.shape == (n, 6)
    assert (neighbours.dtype, distances.dtype) == (np.int64, np.float32)
    squared, reference = NearestNeighbors(n_neighbors=6, algorithm="brute").fit(x).kneighbors(x)
    np.testing.assert_array_equal(neighbours, reference)
    np.testing.assert_allclose(distances, squared**2, atol=1e-5)


@pytest.mark.parametrize("copies", [2, 3, 9])
@pytest.mark.parametrize("method", ["exact", "approximate"])
def test_a_point_comes_first_also_among_its_duplicates(copies: int, method: str) -> None:
    x = np.repeat(sphere(40), copies, axis=0)
    neighbours, distances = make_graph(x, 4, method)
    np.testing.assert_array_equal(neighbours[:, 0], np.arange(len(x)))
    assert not distances[:, 0].any()
    for i, row in enumerate(neighbours):
        assert len(set(row)) == 5
        duplicates = set(range(i // copies * copies, (i // copies + 1) * copies))
        if copies <= 5:
            assert duplicates <= set(row)
        else:
            assert set(row) <= duplicates
    np.testing.assert_allclose(
        distances, np.take_along_axis(cdist(x, x) ** 2, neighbours, axis=1), atol=1e-5
    )
    assert (np.diff(distances) >= -1e-6).all()


def test_the_approximate_graph_tells_its_recall(caplog: pytest.LogCaptureFixture) -> None:
    x, _ = make_blobs(6000, 32, centers=40, random_state=0)
    x = x.astype(np.float32)
    with caplog.at_level(logging.INFO, "deepcluster"):
        neighbours, _ = make_graph(x, 5, "approximate")
    exact, _ = make_graph(x, 5, "exact")
    found = np.mean([len(set(a) & set(b)) - 1 for a, b in zip(neighbours, exact, strict=True)]) / 5
    told = float(caplog.messages[0].removeprefix("the approximate graph has a recall of "))
    assert found > 0.95
    assert told == pytest.approx(found, abs=0.02)


def test_neighbours_that_the_approximate_graph_does_not_find_are_the_point_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pic, "PROBES", 1)
    x = np.concatenate([sphere(300) * 0.01 + offset for offset in np.eye(16, dtype=np.float32)])
    x = np.concatenate([x, -np.eye(16, dtype=np.float32) * 9])  # far away, alone in their cells
    neighbours, distances = make_graph(x, 5, "approximate")
    assert (neighbours >= 0).all()
    own = neighbours == np.arange(len(x))[:, None]
    assert own[-1].sum() > 1
    assert not distances[own].any()
    assert len(run_pic(neighbours, distances, 0.2, 0.001)) == len(x)


def test_auto_is_approximate_for_many_points(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "deepcluster"):
        make_graph(sphere(400), 3)
        assert not caplog.messages
        monkeypatch.setattr(pic, "EXACT_UP_TO", 399)
        make_graph(sphere(400), 3)
        assert len(caplog.messages) == 1


def test_progress_counts_the_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pic, "BLOCK", 30)
    steps: list[int] = []
    whole = make_graph(sphere(100), 3, advance=steps.append)
    assert steps == [30, 30, 30, 10]
    monkeypatch.undo()
    for ours, reference in zip(whole, make_graph(sphere(100), 3), strict=True):
        np.testing.assert_allclose(ours, reference, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.2, 0.7, 3.0])
@pytest.mark.parametrize("alpha", [0.001, 0.3])
def test_pic_is_its_formulas(sigma: float, alpha: float) -> None:
    for seed in range(4):
        x = sphere(120, 3 + seed, seed)
        x[:10] = x[20:30]  # duplicates
        graph = make_graph(x, 3 + seed)
        clusters = run_pic(*graph, sigma, alpha)
        assert clusters.dtype == np.int64
        assert set(clusters) == set(range(clusters.max() + 1))
        assert 1 < clusters.max() + 1 < 120
        assert same_partition(clusters, transcription(*graph, sigma, alpha))


def test_self_edges_are_dropped_wherever_they_stand() -> None:
    x = sphere(80, 4)
    neighbours, distances = make_graph(x, 5)
    reference = run_pic(neighbours, distances, 0.5, 0.001)
    for shift in (1, 3):
        rolled = (np.roll(neighbours, shift, axis=1), np.roll(distances, shift, axis=1))
        np.testing.assert_array_equal(run_pic(*rolled, 0.5, 0.001), reference)
    without = run_pic(neighbours[:, 1:], distances[:, 1:], 0.5, 0.001)
    np.testing.assert_array_equal(without, reference)


def test_points_without_affinity_are_alone() -> None:
    distances = np.full((6, 2), 1e4, np.float32)  # exp(−1e4/0.04) is 0 in float64
    neighbours = np.array([[1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4]])
    assert run_pic(neighbours, distances, 0.2, 0.001).tolist() == [0, 1, 2, 3, 4, 5]


def test_a_star_is_one_cluster() -> None:
    """By hand: all mass flows to the centre, which every other point points to."""
    neighbours = np.array([[1], [0], [0], [0], [0]])
    distances = np.full((5, 1), 0.1, np.float32)
    assert run_pic(neighbours, distances, 1.0, 0.001).tolist() == [0] * 5


def test_blobs_are_not_mixed() -> None:
    x, truth = make_blobs(400, 8, centers=5, cluster_std=0.3, random_state=1)
    clusters = run_pic(*make_graph(x.astype(np.float32), 5), 2.0, 0.001)
    for cluster in range(clusters.max() + 1):
        assert len(set(truth[clusters == cluster])) == 1


def test_a_cluster_of_one_joins_its_nearest_neighbour_in_company() -> None:
    clusters = np.array([0, 0, 1, 2, 2, 3])
    neighbours = np.array(
        [[0, 1, 2], [1, 0, 2], [2, 5, 3], [3, 4, 0], [4, 3, 0], [5, 2, 0]]
    )  # 2: its nearest, 5, is alone too, so it joins 3; 5: 2 is alone, so it joins 0
    assert join_singletons(neighbours, clusters).tolist() == [0, 0, 1, 1, 1, 0]


def test_a_cluster_of_one_among_others_alone_stays() -> None:
    neighbours = np.array([[0, 1], [1, 0], [2, 3], [3, 2], [4, 2]])
    clusters = np.array([4, 2, 7, 7, 0])
    assert join_singletons(neighbours, clusters).tolist() == [1, 0, 2, 2, 2]


@pytest.mark.parametrize(
    ("points", "nnn", "message"),
    [
        (np.zeros((5, 2)), 5, "nnn = 5 for N = 5 points"),
        (np.zeros((5, 2)), 0, "nnn = 0 for N = 5 points"),
        (np.zeros((1, 2)), 1, "nnn = 1 for N = 1 points"),
        (np.zeros(5), 1, r"not one of shape \(5,\)"),
        (np.array([[1.0], [np.nan], [2.0]]), 1, "NaN or infinity"),
    ],
)
def test_an_impossible_graph_is_refused(points: np.ndarray, nnn: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_graph(points.astype(np.float32), nnn)


def test_an_unknown_kind_of_graph_is_refused() -> None:
    with pytest.raises(ValueError, match="graph 'fast': give one of auto, exact, approximate"):
        make_graph(sphere(9), 2, "fast")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0.0}, "sigma = 0.0"),
        ({"sigma": -1.0}, "sigma = -1.0"),
        ({"sigma": np.nan}, "sigma = nan"),
        ({"alpha": 1.0}, "alpha = 1.0"),
        ({"alpha": 0.0}, "alpha = 0.0"),
        ({"I": np.zeros((3, 2), int)}, r"not \(3, 2\) and \(2, 1\)"),
        ({"I": np.array([[1], [2]])}, r"neighbours in 0\.\.1, not 1\.\.2"),
        ({"D": np.array([[0.5], [-0.1]])}, "distances of 0 or more, not -0.1"),
        ({"D": np.array([[0.5], [np.nan]])}, "distances of 0 or more, not nan"),
    ],
)
def test_impossible_input_of_pic_is_refused(change: dict[str, object], message: str) -> None:
    good = {"I": np.array([[1], [0]]), "D": np.array([[0.5], [0.5]]), "sigma": 0.2, "alpha": 0.1}
    with pytest.raises(ValueError, match=message):
        run_pic(**{**good, **change})  # type: ignore[arg-type]
