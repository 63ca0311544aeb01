"""The places of images that t-SNE did not see."""

import numpy as np
import pytest

from visu.placing import between, place_all


def test_an_image_lies_between_its_nearest_neighbours() -> None:
    """Weighted by the inverse of the distance; the sixth neighbour does not count."""
    angles = np.array([0.1, -0.2, 0.3, -0.4, 0.5, 3.0])
    placed = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    xy = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [0.5, 0.5], [9, 9]], float)
    weights = 1 / (2 * np.sin(np.abs(angles[:5]) / 2))  # of chords
    expected = (weights[:, None] * xy[:5]).sum(axis=0) / weights.sum()
    np.testing.assert_allclose(between(np.array([[1.0, 0.0]]), placed, xy)[0], expected)


def test_all_images_have_a_place_and_groups_stay_together() -> None:
    rng = np.random.default_rng(0)
    group = np.arange(300) % 3
    rows = np.eye(3)[group] * 5 + rng.normal(0, 0.1, (300, 3))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    chosen, xy = place_all(rows, 60, seed=0)
    assert (len(chosen), xy.shape) == (60, (300, 2))
    assert (np.diff(chosen) > 0).all()
    centres = np.stack([xy[group == number].mean(axis=0) for number in range(3)])
    nearest = np.linalg.norm(xy[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == group).mean() > 0.98
    again = place_all(rows, 60, seed=0)
    assert np.array_equal(again[0], chosen)
    assert not np.array_equal(place_all(rows, 60, seed=1)[0], chosen)


def test_images_that_are_all_alike_and_features_of_one_dimension() -> None:
    """t-SNE crashes for the first."""
    assert (place_all(np.zeros((9, 4), np.float32), 10, seed=0)[1] == 0.5).all()
    rows = np.repeat([[1.0], [-1.0]], 5, axis=0).astype(np.float32)
    one, other = np.split(place_all(rows, 10, seed=0)[1][:, 0], 2)
    assert one.min() > other.max() or one.max() < other.min()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_very_few_images(count: int) -> None:
    chosen, xy = place_all(np.eye(4, dtype=np.float32)[:count], 10, seed=0)
    assert len(chosen) == len(np.unique(xy, axis=0)) == count
