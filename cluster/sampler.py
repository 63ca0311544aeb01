"""Which images an epoch trains on, and in which order.

Orders are `(M,) int64` arrays of image indices; an assignment is `(N,) int64` in data-set order,
−1 where an image is left out.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from cluster.quality import arrange_clustering


def cluster_weights(assignment: np.ndarray, k: int) -> np.ndarray:
    """The weight of each cluster in the loss with `--reweight`, `(k,) float32`: proportional to
    (1 / (size + 1e-10))^0.5 as in the model zoo's recipe, with a mean of 1 over the non-empty
    clusters, and 0 for empty ones."""
    sizes = np.bincount(assignment[assignment >= 0], minlength=k)
    weights = np.where(sizes > 0, (1 / (sizes + 1e-10)) ** 0.5, 0)
    return (weights / weights[sizes > 0].mean()).astype(np.float32)


def balanced_order(assignment: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Draw every non-empty cluster equally often (paper, section 3.3).

    Each of the n non-empty clusters gives ⌊length/n⌋ + 1 images, with replacement where it has
    fewer; these are shuffled and cut to `length`.

    Args:
        assignment: `(N,) int64`, the cluster of each image or −1.
        length: number of draws M.

    Returns:
        `(length,) int64` image indices.

    Raises:
        ValueError: no image has a cluster.
    """
    images = rng.permutation(np.flatnonzero(assignment >= 0))
    if len(images) == 0:
        raise ValueError("no image has a cluster: nothing to draw from")
    images = images[np.argsort(assignment[images], kind="stable")]
    _, starts, sizes = np.unique(assignment[images], return_index=True, return_counts=True)
    quota = length // len(sizes) + 1

    rank = np.arange(len(images)) - np.repeat(starts, sizes)
    without_replacement = images[(rank < quota) & np.repeat(sizes >= quota, sizes)]

    small = sizes < quota
    offsets = rng.integers(sizes[small, None], size=(small.sum(), quota))
    with_replacement = images[starts[small, None] + offsets].ravel()

    return rng.permutation(np.concatenate([without_replacement, with_replacement]))[:length]


def released_order(assignment: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Draw images as the released code does, which does not balance the clusters: it takes the
    sampler's image indices as positions in a list of images that is sorted by cluster.

    Arguments, result and errors as in `balanced_order`.
    """
    kept = np.flatnonzero(assignment >= 0)
    by_cluster = kept[np.argsort(assignment[kept], kind="stable")]
    positions = balanced_order(assignment[kept], length, rng)
    return by_cluster[positions]


ORDERS = {"paper": balanced_order, "released": released_order}


class UnifLabelSampler(Sampler[int]):
    """`balanced_order` under the original's name, for any DataLoader. Each iteration draws anew.

    Args:
        N: number of draws in an epoch.
        images_lists: for each cluster the list of its image indices; empty lists are skipped.
        seed: of all iterations.
    """

    def __init__(self, N: int, images_lists: Sequence[Sequence[int]], seed: int = 0) -> None:  # noqa: N803
        self.length = N
        self.assignment = arrange_clustering(images_lists)
        self.rng = np.random.default_rng(seed)

    def __iter__(self) -> Iterator[int]:
        return iter(balanced_order(self.assignment, self.length, self.rng).tolist())

    def __len__(self) -> int:
        return self.length
