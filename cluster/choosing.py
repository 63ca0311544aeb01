"""How many clusters: k-means with several k and seeds, and a suggestion."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cluster.kmeans import KmeansOptions, KmeansResult, train_kmeans
from cluster.quality import agreement
from cluster.silhouette import SAMPLE, silhouettes
from system.errors import InputError
from system.seeding import derive_seed

SEEDS = (0, 1, 2, 3, 4)
EACH = 20  # rows of a cluster on average, at least
FEWEST = 2 * EACH  # rows to choose among
MOST = 20_000  # rows to choose by: the cost grows with their square
# With random first centroids, k-means of clear groups depends on these more than on k
OPTIONS = KmeansOptions("kmeans++")


@dataclass(frozen=True)
class Tried:
    """k-means with one k.

    Attributes:
        loss: sum of squared distances to the centroids, the mean over the seeds.
        silhouette, deviation: its mean and standard deviation over the seeds; each has a sample of
            its own.
        stability: the mean ARI between the seeds.
    """

    k: int
    loss: float
    silhouette: float
    deviation: float
    stability: float


@dataclass(frozen=True)
class Choice:
    """A suggested number of clusters.

    Attributes:
        reason: a sentence.
        table: all that were tried, ascending in k.
    """

    k: int
    reason: str
    table: list[Tried]


def numbers_to_try(rows: int, what: str = "rows") -> list[int]:
    """The k that `choose_k` tries for so many rows: 2 · √2ⁱ, rounded, up to a twentieth of the rows
    that it takes.

    Args:
        what: a row is, for the message, such as "images".

    Raises:
        InputError: fewer than 40 rows.
    """
    if rows < FEWEST:
        raise InputError(
            f"too few {what} to choose a number of clusters: {rows}, and {FEWEST} are needed; give "
            "a number as --k"
        )
    powers = (round(2 * 2 ** (i / 2)) for i in range(2 * rows.bit_length()))
    return [k for k in powers if k <= min(rows, MOST) // EACH]


def choose_k(
    rows: np.ndarray,
    *,
    seeds: Sequence[int] = SEEDS,
    sample: int = SAMPLE,
    device: torch.device | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> Choice:
    """Try some k with k-means++, and suggest the most stable one of those whose silhouette is
    within one standard deviation of the best. Of more than 20,000 rows it takes so many, at random.

    Args:
        rows: `(N, d) float32`, as they will be clustered.
        seeds: of the k-means, two or more.
        sample: rows whose silhouette is measured, for each k-means.
        device: of the k-means; None takes a GPU if there is one.
        advance: called with 1 after each of `len(seeds)` k-means of each of `numbers_to_try`.

    Raises:
        InputError: fewer than 40 rows.
        ValueError: a row is not finite.
    """
    ks = numbers_to_try(len(rows))
    if len(rows) > MOST:
        rng = np.random.default_rng(derive_seed(0, "rows to choose k by"))
        rows = rows[np.sort(rng.choice(len(rows), MOST, replace=False))]
    found: list[list[KmeansResult]] = [[] for _ in ks]
    by_seed = []  # the silhouettes of all k
    for seed in seeds:
        for k, own in zip(ks, found, strict=True):
            own.append(train_kmeans(rows, k, seed=seed, options=OPTIONS, device=device))
            advance(1)
        by_seed.append(silhouettes(rows, [own[-1].assignment for own in found], sample, seed))
    means, deviations = np.mean(by_seed, axis=0), np.std(by_seed, axis=0, ddof=1)
    table = [
        Tried(
            k,
            float(np.mean([each.loss for each in own])),
            float(mean),
            float(deviation),
            agreement([each.assignment for each in own]),
        )
        for k, own, mean, deviation in zip(ks, found, means, deviations, strict=True)
    ]
    return suggest(table)


def suggest(table: list[Tried]) -> Choice:
    """The most stable k of those whose silhouette is within one standard deviation of the best; of
    equally stable ones that with the better silhouette."""
    best = max(table, key=lambda tried: tried.silhouette)
    near = [tried for tried in table if tried.silhouette >= best.silhouette - best.deviation]
    chosen = max(near, key=lambda tried: (tried.stability, tried.silhouette))
    scores = f"silhouette {chosen.silhouette:.3f}, stability {chosen.stability:.3f}"
    reason = f"the best silhouette, by more than its deviation ({scores})"
    if len(near) > 1:
        reason = (
            f"the most stable of the {len(near)} numbers whose silhouette is within one deviation "
            f"of the best ({scores}; best: {best.silhouette:.3f} ± {best.deviation:.3f} with "
            f"{best.k})"
        )
    return Choice(chosen.k, reason, table)
