"""Nearest-neighbour classification: a probe without training, cheap enough to run during
pretraining.

Protocol (after Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance
Discrimination", CVPR 2018). Features are L2-normalised. A query takes its k nearest neighbours by
cosine similarity, each votes for its label with the weight exp(similarity / 0.07), and the label
with the most votes wins.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from features.forward import Features
from parallel.collectives import gather_objects, gather_rows, rank, shard_of
from system.device import full_float32
from system.seeding import derive_seed

NEIGHBOURS = (10, 20, 100, 200)
TEMPERATURE = 0.07
BLOCK = 4096  # rows compared at a time
QUERIES = 1024  # queries whose votes are counted at a time
MOST_QUERIES = 10_000  # of `classify_each_other`
CPU = torch.device("cpu")


def make_probe(
    labels: np.ndarray | None, seed: int, device: torch.device
) -> Callable[[Features], dict[str, float]] | None:
    """`classify_each_other` with these labels, seed and device; None without labels."""
    if labels is None:
        return None
    known = labels
    return lambda features: classify_each_other(features, known, seed, device)


def classify_each_other(
    features: Features, labels: np.ndarray, seed: int, device: torch.device = CPU
) -> dict[str, float]:
    """Classify each labelled image of a data set by all the others. Of more than 10,000, 10,000 are
    drawn at random.

    Returns the top-1 accuracy, a fraction of 1, by the number of neighbours: those of `NEIGHBOURS`
    for which there are enough other images, or all others if there are fewer than 10.

    Args:
        features: of this process's share of the images.
        labels: `(N,) int64` of all images, −1 for an image without a label.
    """
    own = shard_of(len(labels))
    labelled = labels[own.start : own.stop] >= 0
    rows = features.rows if labelled.all() else features.rows[labelled[features.present]]
    has_row = features.present & labelled
    present = gather_rows(has_row)
    row_of = np.cumsum(present) - 1  # rows of all processes
    images = np.flatnonzero(present)
    if len(images) > MOST_QUERIES:
        rng = np.random.default_rng(derive_seed(seed, "nearest neighbours"))
        images = np.sort(rng.choice(images, MOST_QUERIES, replace=False))
    others = int(present.sum()) - 1
    enough = [count for count in NEIGHBOURS if count <= others]
    mine = images[(images >= own.start) & (images < own.stop)]
    of_own = row_of[mine] - present[: own.start].sum()
    found = knn_accuracy(
        rows,
        labels[own.start : own.stop][has_row],
        gather_rows(rows[of_own]),
        labels[images],
        enough or NEIGHBOURS[:1],
        themselves=row_of[images],
        device=device,
    )
    return {str(count): accuracy for count, accuracy in found.items()}


@torch.inference_mode()
def knn_accuracy(
    rows: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    query_labels: np.ndarray,
    neighbours: Sequence[int] = NEIGHBOURS,
    themselves: np.ndarray | None = None,
    device: torch.device = CPU,
) -> dict[int, float]:
    """Top-1 accuracy, a fraction of 1, by the number of neighbours that voted: more than there are
    count as all.

    Args:
        rows: `(M, D)` features of any floating type; under torchrun those of this process, perhaps
            none.
        labels: `(M,) int64` of the rows, from 0 on.
        queries: `(Q, D)`, the same in each process.
        query_labels: `(Q,) int64`.
        neighbours: numbers of neighbours.
        themselves: `(Q,) int64`, each query's own row, which has no vote. Rows are numbered over
            all processes in the order of their ranks.
    """
    first = sum(gather_objects(len(rows))[: rank()])
    own = None if themselves is None else torch.from_numpy(themselves - first).to(device)
    x = F.normalize(torch.from_numpy(queries).to(device).float())
    near, which = _nearest(rows, x, max(neighbours), own)
    everyone = gather_objects((near.cpu(), torch.from_numpy(labels)[which.cpu()]))
    near, votes = (torch.cat(parts, dim=1) for parts in zip(*everyone, strict=True))
    near, order = near.topk(min(max(neighbours), near.shape[1]))
    votes = votes.gather(1, order)
    classes = max(int(votes.max()), int(query_labels.max())) + 1
    truth = torch.from_numpy(query_labels)
    voters = int((near > -torch.inf).sum(dim=1).min())
    used = dict.fromkeys(min(k, voters) for k in neighbours)
    return {k: _accuracy(near[:, :k], votes[:, :k], truth, classes) for k in used}


def _nearest(
    rows: np.ndarray, x: Tensor, count: int, themselves: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Similarities `(Q, c)` of the c ≤ count nearest rows, the nearest first, and their numbers."""
    near = torch.empty(len(x), 0, device=x.device)
    which = torch.empty(len(x), 0, dtype=torch.int64, device=x.device)
    for start in range(0, len(rows), BLOCK):
        block = F.normalize(torch.from_numpy(rows[start : start + BLOCK]).to(x.device).float())
        with full_float32():
            similar = x @ block.T
        if themselves is not None:
            at = themselves - start
            here = ((at >= 0) & (at < len(block))).nonzero()[:, 0]
            similar[here, at[here]] = -torch.inf
        numbers = torch.arange(start, start + len(block), device=x.device).expand(len(x), -1)
        near, which = torch.cat([near, similar], 1), torch.cat([which, numbers], 1)
        near, order = near.topk(min(count, near.shape[1]))
        which = which.gather(1, order)
    return near, which


def _accuracy(near: Tensor, labels: Tensor, truth: Tensor, classes: int) -> float:
    right = 0
    for part in torch.arange(len(near)).split(QUERIES):
        votes = torch.zeros(len(part), classes)
        votes.scatter_add_(1, labels[part], torch.exp(near[part] / TEMPERATURE))
        right += int((votes.argmax(dim=1) == truth[part]).sum())
    return right / len(near)
