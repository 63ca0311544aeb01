"""The place of every image on a map: t-SNE of some, and the others between those near them."""

import numpy as np

from visu.feature_map import place, sample

NEIGHBOURS = 5  # placed images between which another one lies
LEAST = 4  # images that t-SNE needs
BLOCK = 4096  # rows at a time


def place_all(rows: np.ndarray, points: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The places of rows `(N, d) float32` on a map. t-SNE takes at most `points` of them, at
    random; any other row is put at the mean of its 5 nearest ones of these, weighted by the inverse
    of the distance.

    Returns:
        The numbers of the rows that t-SNE placed, `(P,) int64` ascending, and all places, `(N, 2)`
        from 0 to 1. Fewer than 4 rows are put in a line.
    """
    chosen = sample(len(rows), points, seed)
    if len(rows) < LEAST:
        return chosen, np.stack([np.linspace(0, 1, len(rows)), np.full(len(rows), 0.5)], axis=1)
    xy = np.empty((len(rows), 2))
    xy[chosen] = place(rows[chosen], "tsne", seed)
    others = np.setdiff1d(np.arange(len(rows)), chosen)
    for start in range(0, len(others), BLOCK):
        block = others[start : start + BLOCK]
        xy[block] = between(rows[block], rows[chosen], xy[chosen])
    return chosen, xy


def between(rows: np.ndarray, placed: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """The places `(B, 2)` of rows `(B, d)` of unit length between placed ones.

    Args:
        placed: `(P, d)`, of unit length.
        xy: `(P, 2)`, where they are.
    """
    cosines = rows @ placed.T
    count = min(NEIGHBOURS, len(placed))
    near = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
    squares = 2 - 2 * np.take_along_axis(cosines, near, axis=1)
    weights = 1 / np.sqrt(np.maximum(squares, 1e-6))
    return np.einsum("bn,bnc->bc", weights / weights.sum(axis=1, keepdims=True), xy[near])
