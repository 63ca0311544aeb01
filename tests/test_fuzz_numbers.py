"""Properties of samplers, lists of images, PIC, R-MAC's regions and average precisions, on inputs
from Hypothesis; if possible, compared with an independent reference."""

import itertools
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from cluster.pic import join_singletons, make_graph, run_pic
from cluster.pickles import Logger, read_assignment, read_clusters, write_assignment
from cluster.quality import group_by_cluster
from cluster.sampler import UnifLabelSampler, balanced_order, cluster_weights, released_order
from evaluation.metrics import average_precision, interpolated_average_precision
from evaluation.retrieval_ranking import average_precision as trapezoids
from evaluation.retrieval_ranking import precision_at
from evaluation.rmac import get_rmac_region_coordinates

same = settings(max_examples=40, deadline=None, derandomize=True, database=None)

assignments = st.lists(st.integers(-1, 7), min_size=1, max_size=60).map(
    lambda numbers: np.array(numbers, np.int64)
)
images_lists = assignments.map(lambda clusters: group_by_cluster(clusters, 9))
seeds = st.integers(0, 2**32)


@same
@given(assignments, st.integers(1, 200), seeds)
def test_a_balanced_order_draws_every_cluster_equally_often(
    assignment: np.ndarray, length: int, seed: int
) -> None:
    assume((assignment >= 0).any())
    order = balanced_order(assignment, length, np.random.default_rng(seed))
    assert order.shape == (length,)
    met = assignment[order]
    clusters = np.unique(assignment[assignment >= 0])
    assert set(met) <= set(clusters), "only images of clusters"
    quota = length // len(clusters) + 1
    counts = np.array([(met == cluster).sum() for cluster in clusters])
    assert (counts <= quota).all()
    # a cluster can only lack draws that are cut off at the end
    assert quota * len(clusters) - length == (quota - counts).sum()
    for cluster in clusters:
        drawn = order[met == cluster]
        if (assignment == cluster).sum() >= quota:
            assert len(set(drawn)) == len(drawn), "no image twice if there are enough"


@same
@given(assignments, st.integers(1, 100), seeds)
def test_a_released_order_is_that_of_the_released_code(
    assignment: np.ndarray, length: int, seed: int
) -> None:
    """Sample i of its data set is image i of the concatenated clusters; its sampler draws numbers
    by cluster, among the images that have one."""
    assume((assignment >= 0).any())
    found = released_order(assignment, length, np.random.default_rng(seed))
    lists = group_by_cluster(assignment, 9)
    dataset = list(itertools.chain.from_iterable(lists))
    kept = [image for image, cluster in enumerate(assignment) if cluster >= 0]
    drawn = balanced_order(assignment[kept], length, np.random.default_rng(seed))
    assert found.tolist() == [dataset[number] for number in drawn]


@same
@given(images_lists, st.integers(1, 100), seeds)
def test_the_sampler_draws_images_of_its_lists(
    lists: list[list[int]], length: int, seed: int
) -> None:
    known = {image for images in lists for image in images}
    assume(known)
    sampler = UnifLabelSampler(length, lists, seed)
    first, second = list(sampler), list(sampler)
    assert len(sampler) == len(first) == len(second) == length
    assert set(first) | set(second) <= known
    assert list(UnifLabelSampler(length, lists, seed)) == first


@same
@given(assignments)
def test_weights_fall_with_the_square_root_of_the_size(assignment: np.ndarray) -> None:
    assume((assignment >= 0).any())
    weights = cluster_weights(assignment, 9)
    sizes = np.array([(assignment == cluster).sum() for cluster in range(9)])
    assert weights.shape == (9,)
    assert (weights[sizes == 0] == 0).all()
    kept = weights[sizes > 0].astype(np.float64)
    assert kept.mean() == pytest.approx(1)
    same_for_all = kept * np.sqrt(sizes[sizes > 0])
    np.testing.assert_allclose(same_for_all, same_for_all[0], rtol=1e-5)


@same
@given(assignments)
def test_lists_of_images_match_the_assignment(assignment: np.ndarray) -> None:
    lists = group_by_cluster(assignment, 9)
    assert len(lists) == 9
    back = np.full(len(assignment), -1)
    for cluster, images in enumerate(lists):
        assert images == sorted(images)
        back[images] = cluster
    assert back.tolist() == assignment.tolist()


@same
@given(st.lists(images_lists, max_size=4), st.integers(0, 5))
def test_lists_of_images_come_back_from_a_log_and_a_pickle(
    epochs: list[list[list[int]]], protocol: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        logger = Logger(Path(folder, "clusters"))
        for lists in epochs:
            logger.log(lists)
        if epochs:
            assert Logger(logger.path).data == read_clusters(logger.path) == epochs
            assert pickle.loads(logger.path.read_bytes()) == epochs
        logger.path.write_bytes(pickle.dumps(epochs, protocol))
        assert read_clusters(logger.path) == epochs


# Any file name, also of bytes that are not UTF-8.
names = st.binary(min_size=1, max_size=300).filter(lambda name: b"\0" not in name)
pairs = st.tuples(names.map(lambda n: n.decode("utf-8", "surrogateescape")), st.integers(0, 2**40))


@same
@given(st.lists(pairs, max_size=8))
def test_an_assignment_comes_back_with_every_name(table: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_assignment(Path(folder, "a.pickle"), table)
        assert read_assignment(Path(folder, "a.pickle")) == table


def pic_by_hand(I: np.ndarray, D: np.ndarray, sigma: float, alpha: float) -> list[int]:  # noqa: E741, N803
    """The cluster of each point, with plain matrices in float64 and a loop over the points."""
    n = len(I)
    a = np.zeros((n, n))
    for i, j in itertools.product(range(n), range(I.shape[1])):
        if I[i, j] != i:
            a[i, I[i, j]] += np.exp(-float(D[i, j]) / sigma**2)
    w = a + a.T
    v = np.full(n, 1 / n)
    for _ in range(200):
        v = alpha * w.T @ v + (1 - alpha) / n
        v /= v.sum()
    clusters = []
    for point in range(n):
        while True:
            gains = w[point] * (v - v[point])
            if gains.max() <= 0:
                break
            point = int(gains.argmax())
        clusters.append(point)
    return clusters


def partition(clusters: Any) -> set[frozenset[int]]:
    """An assignment without the numbers of the clusters."""
    groups: dict[int, set[int]] = {}
    for image, cluster in enumerate(np.asarray(clusters).tolist()):
        groups.setdefault(cluster, set()).add(image)
    return {frozenset(group) for group in groups.values()}


clouds = st.builds(
    lambda seed, n, d: np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32),
    seeds, st.integers(4, 40), st.integers(1, 5),
)  # fmt: skip


@same
@given(clouds, st.integers(1, 3), st.floats(0.3, 3), st.floats(0.01, 0.99))
def test_pic_matches_plain_matrices_in_float64(
    x: np.ndarray, nnn: int, sigma: float, alpha: float
) -> None:
    neighbours, distances = make_graph(x, nnn, "exact")
    found = run_pic(neighbours, distances, sigma, alpha)
    assert partition(found) == partition(pic_by_hand(neighbours, distances, sigma, alpha))
    assert sorted(set(found)) == list(range(found.max() + 1)), "numbered without a gap"


@same
@given(clouds, st.integers(1, 3))
def test_the_graph_has_the_nearest_neighbours_of_float64(x: np.ndarray, nnn: int) -> None:
    _, distances = make_graph(x, nnn, "exact")
    wide = x.astype(np.float64)
    squares = ((wide[:, None] - wide[None]) ** 2).sum(-1)
    np.fill_diagonal(squares, -1)
    nearest = np.sort(squares, axis=1)[:, : nnn + 1].clip(0)
    np.testing.assert_allclose(distances, nearest, rtol=1e-4, atol=1e-4)


@same
@given(clouds, st.integers(1, 3))
def test_a_single_point_joins_a_cluster_of_its_neighbours(x: np.ndarray, nnn: int) -> None:
    neighbours, distances = make_graph(x, nnn, "exact")
    before = run_pic(neighbours, distances, 0.3, 0.1)
    joined = join_singletons(neighbours[:, 1:], before)
    for point in np.flatnonzero(np.bincount(joined)[joined] == 1):
        own = neighbours[point, 1:]
        assert (np.bincount(before)[before[own]] == 1).all(), "all its neighbours were single, too"


@same
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 5))
def test_regions_lie_in_the_map_and_cover_it(height: int, width: int, scales: int) -> None:
    regions = get_rmac_region_coordinates(height, width, scales)
    x, y, w, h = regions.T
    assert (w == h).all()
    assert (w > 0).all()
    assert (x >= 0).all()
    assert (y >= 0).all()
    assert (x + w <= width).all()
    assert (y + h <= height).all()
    sides = [2 * min(height, width) // (scale + 1) for scale in range(1, scales + 1)]
    assert set(w) == {side for side in sides if side > 0}
    shorter, longer = min(height, width), max(height, width)
    for scale, side in enumerate(sides, start=1):
        if side == 0:
            continue
        of_scale = regions[w == side]
        for places, length in ((set(of_scale[:, 0]), width), (set(of_scale[:, 1]), height)):
            assert min(places) == 0, "from border"
            assert max(places) + side == length, "to border"
        if scale == 1 and longer <= 7 * shorter:  # six more regions reach no further
            covered = np.zeros((height, width), bool)
            for left, top, side_, _ in of_scale:
                covered[top : top + side_, left : left + side_] = True
            assert covered.all()


@same
@given(st.integers(8, 60), st.integers(8, 60))
def test_neighbouring_regions_overlap_by_about_two_fifths(height: int, width: int) -> None:
    """No other number of regions has an overlap closer to that."""
    assume(height != width)
    shorter, longer = min(height, width), max(height, width)
    errors = []
    for extra in range(1, 7):
        step = (longer - shorter) / extra
        errors.append(abs((shorter**2 - shorter * step) / shorter**2 - 0.4))
    regions = get_rmac_region_coordinates(height, width, 1)
    assert errors[len(regions) - 2] == pytest.approx(min(errors))


@same
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4))
def test_regions_of_a_transposed_map_are_transposed(height: int, width: int, scales: int) -> None:
    regions = get_rmac_region_coordinates(height, width, scales)
    turned = get_rmac_region_coordinates(width, height, scales)[:, [1, 0, 3, 2]]
    assert {tuple(row) for row in regions} == {tuple(row) for row in turned}


scored = st.lists(
    st.tuples(st.integers(-20, 20).map(float), st.booleans()), min_size=1, max_size=30
)


def without_equal_scores(rows: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    """Distinct scores in the same order, and whether each is positive."""
    scores, positive = (np.array(column) for column in zip(*rows, strict=True))
    return scores + np.linspace(0, 0.5, len(rows)), positive


@same
@given(scored)
def test_average_precision_of_distinct_scores_matches_scikit_learn(
    rows: list[tuple[float, bool]],
) -> None:
    scores, positive = without_equal_scores(rows)
    found = average_precision(scores, positive)
    expected = average_precision_score(positive, scores) if positive.any() else 0.0
    assert found == pytest.approx(expected)
    assert interpolated_average_precision(scores, positive) >= found - 1e-12


@same
@given(scored)
def test_average_precision_of_equal_scores_is_that_of_their_worst_order(
    rows: list[tuple[float, bool]],
) -> None:
    scores, positive = (np.array(column) for column in zip(*rows, strict=True))
    worst = scores - 1e-6 * positive  # positives last
    assert average_precision(scores, positive) == pytest.approx(average_precision(worst, positive))


@same
@given(scored)
def test_interpolated_precision_is_the_best_at_each_recall_or_beyond(
    rows: list[tuple[float, bool]],
) -> None:
    scores, positive = without_equal_scores(rows)
    hits = positive[np.argsort(-scores)]
    at = [hits[: rank + 1].mean() for rank in range(len(hits))]
    best = [max(at[rank:]) for rank in range(len(hits)) if hits[rank]]
    expected = float(np.mean(best)) if best else 0.0
    assert interpolated_average_precision(scores, positive) == pytest.approx(expected)


@same
@given(st.permutations(list("abcdefghij")), st.sets(st.sampled_from("abcdefghij")), st.data())
def test_oxfords_precision_is_the_area_of_the_trapezoids(
    ranking: list[str], good: set[str], data: st.DataObject
) -> None:
    junk = data.draw(st.sets(st.sampled_from("abcdefghij"))) - good
    kept = [name for name in ranking if name not in junk]
    area, recall, precision = 0.0, 0.0, 1.0
    for rank in range(1, len(kept) + 1):
        found = len(good & set(kept[:rank]))
        area += (found / max(len(good), 1) - recall) * (found / rank + precision) / 2
        recall, precision = found / max(len(good), 1), found / rank
    assert trapezoids(ranking, good, junk) == pytest.approx(area)
    assert 0 <= precision_at(3, ranking, good, junk) <= 1
