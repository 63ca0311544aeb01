"""R-MAC: the regions by hand, the vectors against loops and scikit-learn's PCA."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from cluster.whitening import fit_whitening
from evaluation.rmac import get_rmac_region_coordinates, regional_vectors, rmac


def squares(tops: list[int], lefts: list[int], side: int) -> list[list[int]]:
    return [[x, y, side, side] for y, x in itertools.product(tops, lefts)]


@pytest.mark.parametrize(
    ("height", "width", "scales"),
    [
        (
            7,
            7,
            [squares([0], [0], 7), squares([0, 3], [0, 3], 4), squares([0, 2, 4], [0, 2, 4], 3)],
        ),
        (
            12,
            9,
            [
                squares([0, 3], [0], 9),
                squares([0, 3, 6], [0, 3], 6),
                squares([0, 2, 5, 8], [0, 2, 5], 4),
            ],
        ),
        (
            9,
            12,
            [
                squares([0], [0, 3], 9),
                squares([0, 3], [0, 3, 6], 6),
                squares([0, 2, 5], [0, 2, 5, 8], 4),
            ],
        ),
        (
            4,
            20,
            [
                squares([0], [0, 2, 5, 8, 10, 13, 16], 4),
                squares([0, 2], [0, 2, 5, 7, 10, 12, 15, 18], 2),
                squares([0, 1, 2], [0, 2, 4, 6, 9, 11, 13, 15, 18], 2),
            ],
        ),
        (
            5,
            2,
            [
                squares([0, 1, 2, 3], [0], 2),
                squares([0, 1, 2, 3, 4], [0, 1], 1),
                squares([0, 0, 1, 2, 3, 4], [0, 0, 1], 1),
            ],
        ),
        (1, 2, [squares([0], [0, 0, 1], 1)]),  # further scales' squares would have no side
    ],
)
def test_regions_by_hand(height: int, width: int, scales: list[list[list[int]]]) -> None:
    for count in (1, 2, 3):
        regions = get_rmac_region_coordinates(height, width, count)
        assert regions.dtype == np.int64
        assert regions.tolist() == list(itertools.chain(*scales[:count]))


@pytest.mark.parametrize(
    ("longer", "extra"),
    [(10, 0), (11, 1), (14, 1), (16, 1), (22, 2), (28, 3), (34, 4), (40, 5), (46, 6), (90, 6)],
)
def test_places_along_the_longer_side_by_hand(longer: int, extra: int) -> None:
    """With a shorter side of 10, e more places overlap by 1 − (longer − 10) / (10 e): by 0.4 for
    longer = 10 + 6e, and the number ends at 6."""
    assert len(get_rmac_region_coordinates(10, longer, 1)) == 1 + extra
    assert len(get_rmac_region_coordinates(longer, 10, 1)) == 1 + extra


def test_regions_reach_the_border_and_not_beyond() -> None:
    for height, width, scales in itertools.product(range(1, 25), range(1, 25), range(1, 6)):
        x, y, w, h = get_rmac_region_coordinates(height, width, scales).T
        assert x.min() == y.min() == 0
        assert (x + w).max() == width
        assert (y + h).max() == height
        assert (w == h).all()
        assert w.min() > 0
        previous = len(get_rmac_region_coordinates(height, width, scales - 1))
        last = get_rmac_region_coordinates(height, width, scales)[previous:]
        if len(last) > 0 and scales > 1:
            assert (last[:, 0] + last[:, 2]).max() == width
            assert (last[:, 1] + last[:, 3]).max() == height


def test_an_empty_map_is_an_error() -> None:
    with pytest.raises(ValueError, match="a map of 0 × 3 has no regions"):
        get_rmac_region_coordinates(0, 3, 1)


def regions_by_loops(features: np.ndarray, scales: int) -> np.ndarray:
    """`(C, H, W)` → `(R, C)`, one value at a time."""
    rows = []
    for x, y, w, h in get_rmac_region_coordinates(features.shape[1], features.shape[2], scales):
        row = np.full(len(features), -np.inf)
        for channel, i, j in itertools.product(range(len(features)), range(h), range(w)):
            row[channel] = max(row[channel], features[channel, y + i, x + j])
        rows.append(row / max(np.linalg.norm(row), 1e-12))
    return np.array(rows)


@pytest.mark.parametrize("shape", [(6, 6), (9, 5), (4, 13)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_rmac_equals_the_sum_of_the_regions_maxima(
    shape: tuple[int, int], layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 5, *shape).relu().contiguous(memory_format=layout)
    found = rmac(maps, 3)
    for one, vector in zip(maps.numpy(), found, strict=True):
        total = regions_by_loops(one, 3).sum(axis=0)
        np.testing.assert_allclose(vector, total / np.linalg.norm(total), atol=1e-6)


def test_whitened_rmac_against_scikit_learn() -> None:
    """The signs of the axes may differ, which does not change scores."""
    torch.manual_seed(0)
    others = torch.randn(30, 6, 8, 11).relu()
    other_regions = regional_vectors(others, 2).flatten(0, 1).numpy()
    reference = PCA(n_components=4, whiten=True).fit(other_regions)
    maps = torch.randn(3, 6, 7, 10).relu()
    vectors = rmac(maps, 2, fit_whitening(other_regions, 4)).numpy()
    expected = []
    for one in maps.numpy():
        white = reference.transform(regions_by_loops(one, 2))
        total = (white / np.linalg.norm(white, axis=1, keepdims=True)).sum(axis=0)
        expected.append(total / np.linalg.norm(total))
    assert vectors.shape == (3, 4)
    np.testing.assert_allclose(
        vectors @ vectors.T, np.array(expected) @ np.array(expected).T, atol=1e-4
    )
    np.testing.assert_allclose(np.abs(vectors), np.abs(expected), atol=1e-4)


def test_a_region_without_activation_adds_nothing() -> None:
    maps = torch.zeros(1, 3, 4, 4)
    maps[0, 1, 0, 0] = 5.0
    assert rmac(maps, 2)[0].tolist() == [0, 1, 0]
    assert rmac(torch.zeros(1, 3, 4, 4), 2)[0].tolist() == [0, 0, 0]
