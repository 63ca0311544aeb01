"""Which images an epoch trains on, and in which order.

Orders are `(M,) int64` arrays of image indices, or `(M, 2)` with quarter turns; an assignment is
`(N,) int64` in data-set order, −1 where an image is left out.
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


def two_level_order(
    super_cluster: np.ndarray,
    sub_cluster: np.ndarray,
    shape: tuple[int, int],
    length: int,
    batch: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw every super-class, a super-cluster in one rotation, equally often in each batch, and all
    sub-clusters of a super-class equally often (`balanced_order`).

    A batch has its super-classes one after the other, in another order in each batch: a process,
    which takes every W-th image, gets an even share of each, or if that is less than one image, of
    other super-classes in each batch. An empty super-cluster's draws go to the largest one.

    Args:
        super_cluster: `(N,) int64`, −1 for an image that is left out.
        sub_cluster: `(N,) int64`, the cluster of each image within its super-cluster.
        shape: the numbers of super-clusters and of rotations.
        length: the most draws; only whole batches are drawn.
        batch: a multiple of the number of super-classes.

    Returns:
        `(M, 2) int64`: images, and their quarter turns.
    """
    m, rotations = shape
    batches, each = length // batch, batch // (m * rotations)
    sizes = np.bincount(super_cluster[super_cluster >= 0], minlength=m)
    order = np.empty((batches, m * rotations, each, 2), np.int64)
    places = rng.permuted(np.tile(np.arange(m * rotations), (batches, 1)), axis=1)
    for number, place in enumerate(places.T):
        cluster, turns = divmod(number, rotations)
        source = cluster if sizes[cluster] else sizes.argmax()
        members = np.where(super_cluster == source, sub_cluster, -1)
        drawn = balanced_order(members, batches * each, rng)
        order[np.arange(batches), place, :, 0] = drawn.reshape(batches, each)
        order[np.arange(batches), place, :, 1] = turns
    return order.reshape(-1, 2)


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
