"""The class-balanced sampler, and the released code's unbalanced one."""

from collections import Counter

import numpy as np
import pytest

from cluster.sampler import (
    UnifLabelSampler,
    balanced_order,
    cluster_weights,
    released_order,
    two_level_order,
)


def draw(assignment: list[int] | np.ndarray, length: int, seed: int = 0) -> np.ndarray:
    return balanced_order(np.asarray(assignment), length, np.random.default_rng(seed))


def skewed_assignment() -> np.ndarray:
    """1,000 images in ten clusters of 10 to 500 images, in random order."""
    sizes = [500, 200, 100, 60, 50, 40, 20, 10, 10, 10]
    return np.random.default_rng(0).permutation(np.repeat(np.arange(10), sizes))


def test_every_cluster_is_drawn_equally_often() -> None:
    assignment = skewed_assignment()
    counts = np.bincount(assignment[draw(assignment, 1000)])
    # 101 draws each, and ten of the 1,010 cut off at random
    assert counts.sum() == 1000
    assert counts.min() >= 91
    assert counts.max() <= 101


def test_the_released_order_follows_the_cluster_sizes() -> None:
    """The image ids of each cluster are spread over all positions, so that each cluster is drawn
    in proportion to its size."""
    assignment = skewed_assignment()
    sizes = np.bincount(assignment)
    paper = np.zeros(10)
    released = np.zeros(10)
    for seed in range(30):
        paper += np.bincount(assignment[draw(assignment, 1000, seed)], minlength=10)
        order = released_order(assignment, 1000, np.random.default_rng(seed))
        released += np.bincount(assignment[order], minlength=10)
    np.testing.assert_allclose(paper / paper.sum(), 0.1, atol=0.002)
    np.testing.assert_allclose(released / released.sum(), sizes / 1000, atol=0.04)


def test_the_released_order_takes_image_indices_as_positions() -> None:
    assignment = np.array([2, 0, 1, 0, 2, 2])
    data_set_by_cluster = [1, 3, 2, 0, 4, 5]
    ids = draw(assignment, 9, seed=4)
    order = released_order(assignment, 9, np.random.default_rng(4))
    assert order.tolist() == [data_set_by_cluster[i] for i in ids]


def test_large_clusters_are_drawn_without_replacement() -> None:
    assignment = [0] * 50 + [1] * 50
    assert max(Counter(draw(assignment, 60).tolist()).values()) == 1


def test_small_clusters_are_drawn_with_replacement() -> None:
    order = draw([0] * 99 + [1], 100)
    assert Counter(order.tolist())[99] >= 49


@pytest.mark.parametrize("length", [1, 7, 1000, 2345])
def test_the_length_is_exact(length: int) -> None:
    assert len(draw(skewed_assignment(), length)) == length
    assert len(released_order(skewed_assignment(), length, np.random.default_rng(0))) == length


def test_empty_clusters_and_left_out_images_are_skipped() -> None:
    assignment = np.array([5, -1, 5, 9, -1, 9])
    for order in (balanced_order, released_order):
        drawn = order(assignment, 100, np.random.default_rng(0))
        assert set(drawn.tolist()) == {0, 2, 3, 5}


def test_no_image_with_a_cluster_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        draw([-1, -1], 5)


def test_draws_follow_the_generator() -> None:
    assignment = skewed_assignment()
    assert np.array_equal(draw(assignment, 99, 3), draw(assignment, 99, 3))
    assert not np.array_equal(draw(assignment, 99, 3), draw(assignment, 99, 4))


def test_unif_label_sampler_takes_the_originals_arguments() -> None:
    sampler = UnifLabelSampler(300, [[0, 4], [], [1, 2, 3, 7]])
    first, second = list(sampler), list(sampler)
    assert len(sampler) == len(first) == 300
    assert first != second, "another order in the next epoch"
    counts = Counter(first)
    assert set(counts) == {0, 4, 1, 2, 3, 7}
    assert abs(counts[0] + counts[4] - 150) <= 1


def test_weights_fall_with_the_root_of_the_cluster_size() -> None:
    assignment = np.array([0] * 16 + [1] * 4 + [3] * 1 + [-1] * 5)
    weights = cluster_weights(assignment, 4)
    roots = np.array([1 / 4, 1 / 2, 0, 1])  # cluster 2 is empty
    np.testing.assert_allclose(weights, roots / (1.75 / 3), rtol=1e-6)


def two_levels(
    supers: np.ndarray, subs: np.ndarray, batch: int = 24, rotations: int = 4
) -> np.ndarray:
    rng = np.random.default_rng(0)
    shape = int(supers.max()) + 1, rotations
    return two_level_order(supers, subs, shape, len(supers), batch, rng)


def hierarchy() -> tuple[np.ndarray, np.ndarray]:
    """1,000 images in two super-clusters of 700 and 270, the rest left out; five sub-clusters of
    unequal sizes in the first, three in the second."""
    sizes = [[300, 200, 100, 60, 40], [200, 60, 10]]
    labels = np.full((1000, 2), -1)
    labels[:970] = [
        [c, z] for c, each in enumerate(sizes) for z, n in enumerate(each) for _ in range(n)
    ]
    supers, subs = np.random.default_rng(1).permutation(labels).T
    return supers, subs


def test_each_batch_has_equally_many_images_of_each_super_class() -> None:
    supers, subs = hierarchy()
    order = two_levels(supers, subs)
    assert order.shape == (1000 // 24 * 24, 2)
    images, turns = order.T
    classes = supers[images] * 4 + turns
    for batch in classes.reshape(-1, 24):
        assert np.bincount(batch, minlength=8).tolist() == [3] * 8
        for part in range(3):  # of three processes
            assert np.bincount(batch[part::3], minlength=8).tolist() == [1] * 8


def test_more_processes_than_a_batch_has_images_of_a_super_class() -> None:
    """Batches of two images of each super-class on four processes, which get four images each: over
    the epoch they all see every super-class equally often."""
    supers, subs = hierarchy()
    images, turns = two_levels(supers, subs, batch=16).T
    batches = (supers[images] * 4 + turns).reshape(-1, 16)
    assert all(np.bincount(batch, minlength=8).tolist() == [2] * 8 for batch in batches)
    for part in range(4):
        own = batches[:, part::4]
        assert all(len(set(batch.tolist())) == 4 for batch in own)
        counts = np.bincount(own.ravel(), minlength=8)
        assert counts.sum() == 62 * 4
        assert counts.min() > 31 - 12, "three standard deviations"
        assert counts.max() < 31 + 12
        assert len({tuple(sorted(batch)) for batch in own.tolist()}) > 30


def test_in_a_super_class_each_sub_cluster_is_drawn_equally_often() -> None:
    supers, subs = hierarchy()
    images, turns = two_levels(supers, subs).T
    for number, count in ((0, 5), (1, 3)):
        for quarters in range(4):
            drawn = images[(supers[images] == number) & (turns == quarters)]
            assert len(drawn) == 1000 // 24 * 3
            counts = np.bincount(subs[drawn], minlength=count)
            assert counts.max() <= 123 // count + 1
            assert counts.min() >= 123 // count + 1 - count, "cut off at random"
            assert len(np.unique(drawn[subs[drawn] == 0])) == counts[0], "without replacement"


def test_rotations_draw_their_own_images() -> None:
    images, turns = two_levels(*hierarchy()).T
    one, other = (set(images[turns == quarters].tolist()) for quarters in (0, 1))
    assert one != other


def test_without_rotations_an_epoch_has_as_many_draws() -> None:
    supers, subs = hierarchy()
    images, turns = two_levels(supers, subs, batch=10, rotations=1).T
    assert len(images) == 1000
    assert not turns.any()
    assert np.bincount(supers[images]).tolist() == [500, 500]


def test_an_empty_super_clusters_draws_go_to_the_largest_one() -> None:
    supers, subs = hierarchy()
    supers[supers == 1] = 2
    images, turns = two_levels(supers, subs).T
    assert np.bincount(supers[images]).tolist() == [656, 0, 328]
    assert np.bincount(turns).tolist() == [246] * 4
