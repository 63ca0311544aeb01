"""Groups of rows that are nearly the same."""

import numpy as np
import pytest
from arrays import sphere
from sklearn.cluster import DBSCAN

from cluster import duplicates
from cluster.duplicates import near_duplicates


def at_angles(*degrees: float) -> np.ndarray:
    """Unit rows `(N, 2)` at these angles."""
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def test_groups_by_hand() -> None:
    """20° is a distance of 1 − cos 20° = 0.0603; 10° and 40° are linked by 25°."""
    rows = at_angles(180, 10, 270, 25, 271, 40, 90)
    assert near_duplicates(rows, 0.061).tolist() == [-1, 0, 1, 0, 1, 0, -1]
    assert near_duplicates(rows, 0.03).tolist() == [-1, -1, 0, -1, 0, -1, -1], "15° is 0.034"


def test_rows_that_are_the_same_are_at_distance_0() -> None:
    rows = sphere(50)[np.arange(100) % 50]
    assert near_duplicates(rows, 0).tolist() == [*range(50), *range(50)]


@pytest.mark.parametrize("cosines", [1, 700, 2**24])
def test_groups_are_dbscans(cosines: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """DBSCAN with two rows for a core finds the same: components, and noise."""
    monkeypatch.setattr(duplicates, "COSINES", cosines)
    monkeypatch.setattr(duplicates, "LINKS", 40)
    rows = sphere(300, 6)
    expected = DBSCAN(eps=0.05, min_samples=2, metric="cosine").fit_predict(rows)
    assert expected.max() > 5
    assert (expected == -1).sum() > 20
    steps = list[int]()
    np.testing.assert_array_equal(near_duplicates(rows, 0.05, steps.append), expected)
    assert sum(steps) == 300


def test_no_rows_have_no_duplicates() -> None:
    assert near_duplicates(np.empty((0, 3), np.float32), 0.1).tolist() == []
    with pytest.raises(ValueError, match="distance 1: give a cosine distance from 0 to below 1"):
        near_duplicates(sphere(3), 1)
