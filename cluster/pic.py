"""Power Iteration Clustering on a nearest-neighbour graph (Lin and Cohen, ICML 2010; the paper's
appendix).

The mass of a random walk settles in the dense regions of the graph. Each point climbs to a local
maximum of the mass; points that reach the same maximum form a cluster.
"""

import logging
from typing import Any

import faiss
import numpy as np
import scipy.sparse

from cluster.kmeans import Advance

log = logging.getLogger("deepcluster")

GRAPHS = ("auto", "exact", "approximate")
# `auto` builds the exact graph of up to so many points on the CPU: 29 to 37 s on two cores, where
# the approximate one takes half the time and finds 0.89 to 0.98 of the neighbours.
EXACT_UP_TO = 100_000
ITERATIONS = 200  # of the power iteration
BLOCK = 8192  # points that are added to an index, or searched for, at a time
LINKS, SEARCHED = 32, 64  # of HNSW: links of a point, and points visited in a search
SAMPLE = 1000  # points to measure the approximate graph's recall on


def make_graph(
    xb: np.ndarray,
    nnn: int,
    method: str = "auto",
    advance: Advance | None = None,
    use_gpus: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest-neighbour graph, on the CPU or all GPUs that Faiss sees.

    Args:
        xb: `(N, d) float32`.
        nnn: number of neighbours of a point.
        method: `exact` compares all pairs; `approximate` searches a hierarchical small-world graph
            (HNSW, on the CPU) and logs its recall; `auto` is exact on GPUs and up to `EXACT_UP_TO`
            points.
        advance: called with the number of points in each block.
        use_gpus: if Faiss sees any.

    Returns:
        Indices `(N, nnn + 1) int64` and squared L2 distances `(N, nnn + 1) float32`: each point
        itself, then its neighbours, the nearest first. If an approximate search finds too few, the
        row is filled up with the point itself.

    Raises:
        ValueError: xb is not two-dimensional or not finite, nnn is not in 1..N−1, or the method is
            unknown.
    """
    if xb.ndim != 2:
        raise ValueError(f"the graph needs an (N, d) array, not one of shape {xb.shape}")
    n = len(xb)
    check_neighbours(nnn, n)
    check_graph(method)
    xb = np.ascontiguousarray(xb, np.float32)
    if not np.isfinite(xb).all():
        raise ValueError("the graph needs finite points: NaN or infinity among them")
    gpus = use_gpus and faiss.get_num_gpus() > 0
    if method == "exact" or (method == "auto" and (gpus or n <= EXACT_UP_TO)):
        index: Any = faiss.IndexFlatL2(xb.shape[1])
        if gpus:
            index = faiss.index_cpu_to_all_gpus(index)
        index.add(xb)
        return _search(index, xb, nnn, advance)
    graph = _search(_SmallWorld(xb), xb, nnn, advance)
    log.info("the approximate graph has a recall of %.3f", _recall(xb, graph[0]))
    return graph


def run_pic(
    I: np.ndarray,  # noqa: E741, N803
    D: np.ndarray,  # noqa: N803
    sigma: float,
    alpha: float,
) -> np.ndarray:
    """Cluster a nearest-neighbour graph.

    Args:
        I: `(N, m)` int, the neighbours of each point; the point itself among them is skipped.
        D: `(N, m)` float, the squared L2 distances to them.
        sigma: width of the affinity exp(−d/σ²).
        alpha: weight of the graph in the power iteration, above 0 and below 1.

    Returns:
        The cluster of each point, `(N,) int64`, numbered from 0 without a gap.

    Raises:
        ValueError: sigma or alpha is out of range; I and D are empty or differ in shape; I has
            indices outside 0..N−1, or D negative distances.
    """
    check_widths(sigma, alpha)
    if I.ndim != 2 or I.shape != D.shape or len(I) == 0:
        raise ValueError(f"PIC needs I and D of shape (N, m), not {I.shape} and {D.shape}")
    if I.size and not (I.min() >= 0 and I.max() < len(I)):
        raise ValueError(f"PIC needs neighbours in 0..{len(I) - 1}, not {I.min()}..{I.max()}")
    if not (D >= 0).all():
        raise ValueError(f"PIC needs distances of 0 or more, not {D.min()}")
    graph = _affinities(I, D, sigma)
    mass = _power_iteration(graph, alpha)
    return _roots(_uphill(graph, mass))


def join_singletons(I: np.ndarray, clusters: np.ndarray) -> np.ndarray:  # noqa: E741, N803
    """Move each point that is alone in its cluster into the cluster of its nearest neighbour that
    is not alone; it stays if there is none.

    Args:
        I: `(N, m)` int, the neighbours of each point, the nearest first.
        clusters: `(N,)` int.

    Returns:
        `(N,) int64`, numbered from 0 without a gap.
    """
    alone = (np.bincount(clusters) == 1)[clusters]
    singletons = np.flatnonzero(alone)
    hosts = ~alone[I[singletons]]
    nearest = I[singletons, hosts.argmax(axis=1)]
    joined = clusters.astype(np.int64)
    joined[singletons] = np.where(hosts.any(axis=1), clusters[nearest], clusters[singletons])
    return _renumbered(joined)


def check_neighbours(nnn: int, n: int) -> None:
    """Raise a ValueError if n points don't have nnn neighbours each."""
    if not 1 <= nnn < n:
        raise ValueError(f"the graph needs 1 <= nnn < N, not nnn = {nnn} for N = {n} points")


def check_graph(method: str) -> None:
    """Raise a ValueError for an unknown kind of graph."""
    if method not in GRAPHS:
        raise ValueError(f"graph {method!r}: give one of {', '.join(GRAPHS)}")


def check_widths(sigma: float, alpha: float) -> None:
    """Raise a ValueError for a sigma or an alpha out of range."""
    if not 0 < sigma < np.inf:
        raise ValueError(f"PIC needs sigma > 0, not sigma = {sigma}")
    if not 0 < alpha < 1:
        raise ValueError(f"PIC needs 0 < alpha < 1, not alpha = {alpha}")


class _SmallWorld:
    """HNSW with the interface of a Faiss index. It stores points in half precision to save memory;
    the distances that it returns are exact."""

    def __init__(self, xb: np.ndarray) -> None:
        self.xb, self.scale = xb, np.abs(xb).max() or np.float32(1)  # into float16's range
        half: Any = faiss.ScalarQuantizer.QT_fp16
        self.index: Any = faiss.IndexHNSWSQ(xb.shape[1], half, LINKS)
        self.index.hnsw.efSearch = SEARCHED
        for start in range(0, len(xb), BLOCK):  # in blocks, the threads don't change the graph
            scaled: Any = xb[start : start + BLOCK] / self.scale
            self.index.add(scaled)

    def search(self, points: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Distances and neighbours, the nearest first."""
        neighbours = self.index.search(points / self.scale, count)[1]
        distances = np.stack(
            [np.square(self.xb[column] - points).sum(axis=1) for column in neighbours.T], axis=1
        )
        order = distances.argsort(axis=1, kind="stable")
        return np.take_along_axis(distances, order, 1), np.take_along_axis(neighbours, order, 1)


def _search(
    index: Any, xb: np.ndarray, nnn: int, advance: Advance | None
) -> tuple[np.ndarray, np.ndarray]:
    parts = []
    for start in range(0, len(xb), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(xb)))
        parts.append(_self_first(rows, *index.search(xb[rows], nnn + 1)))
        if advance is not None:
            advance(len(rows))
    neighbours, distances = zip(*parts, strict=True)
    return np.concatenate(neighbours), np.concatenate(distances)


def _self_first(
    rows: np.ndarray, distances: np.ndarray, neighbours: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Put each point before its neighbours. Duplicates have distance 0 as well, so Faiss may list
    them before the point or omit the point."""
    missing = neighbours < 0
    neighbours = np.where(missing, rows[:, None], neighbours)
    itself = neighbours == rows[:, None]
    distances = np.where(itself, 0, np.maximum(distances, 0)).astype(np.float32)
    lost = ~itself.any(axis=1)
    neighbours[lost, -1], distances[lost, -1], itself[lost, -1] = rows[lost], 0, True
    first = itself & (itself.cumsum(axis=1) == 1)
    order = np.argsort(np.where(first, 0, np.where(missing, 2, 1)), axis=1, kind="stable")
    return np.take_along_axis(neighbours, order, 1), np.take_along_axis(distances, order, 1)


def _recall(xb: np.ndarray, neighbours: np.ndarray) -> float:
    """The fraction of a sample's exact neighbours that are in the graph."""
    n, width = neighbours.shape
    sample = np.random.default_rng(0).choice(n, min(SAMPLE, n), replace=False)
    exact, _ = _self_first(sample, *faiss.knn(xb[sample], xb, width))
    found = (neighbours[sample][:, :, None] == exact[:, None, 1:]).any(axis=1)
    return float(found.mean())


def _affinities(
    I: np.ndarray,  # noqa: E741, N803
    D: np.ndarray,  # noqa: N803
    sigma: float,
) -> scipy.sparse.csr_matrix:
    """W = A + Aᵀ `(N, N) float64` with A_ij = exp(−d_ij/σ²) for each edge between two points."""
    n, width = I.shape
    points, neighbours = np.repeat(np.arange(n), width), I.ravel()
    edges = points != neighbours
    with np.errstate(over="ignore"):
        exponents = D.astype(np.float64).ravel()[edges] / sigma / sigma  # σ² may underflow to 0
    weights = np.exp(-exponents)
    a = scipy.sparse.csr_matrix((weights, (points[edges], neighbours[edges])), shape=(n, n))
    return (a + a.T).tocsr()


def _power_iteration(graph: scipy.sparse.csr_matrix, alpha: float) -> np.ndarray:
    """v ← αWᵀv + (1 − α)/N, normalised, 200 times from v = 1/N."""
    n = graph.shape[0]
    mass = np.full(n, 1 / n)
    for _ in range(ITERATIONS):
        before = mass
        mass = alpha * (graph @ before) + (1 - alpha) / n  # W is symmetric
        mass /= mass.sum()
        if np.array_equal(mass, before):
            break  # further iterations would give the same bits
    return mass


def _uphill(graph: scipy.sparse.csr_matrix, mass: np.ndarray) -> np.ndarray:
    """The neighbour j of each point i that maximises W_ij (v_j − v_i), if that is positive (the
    lowest j, where several do), else i itself."""
    uphill = np.arange(graph.shape[0])
    points = np.repeat(uphill, np.diff(graph.indptr))
    gains = graph.copy()
    gains.data *= mass[graph.indices] - mass[points]
    best = gains.max(axis=1).toarray().ravel()
    edges = np.flatnonzero((gains.data > 0) & (gains.data == best[points]))
    climbers, first = np.unique(points[edges], return_index=True)  # a row's indices ascend
    uphill[climbers] = graph.indices[edges[first]]
    return uphill


def _roots(uphill: np.ndarray) -> np.ndarray:
    """The cluster of each point: the local maximum at the end of its path. Mass grows along a path,
    so there is no circle; each round doubles the steps that a pointer spans."""
    while True:
        further = uphill[uphill]
        if np.array_equal(further, uphill):
            return _renumbered(uphill)
        uphill = further


def _renumbered(clusters: np.ndarray) -> np.ndarray:
    return np.unique(clusters, return_inverse=True)[1].astype(np.int64)
