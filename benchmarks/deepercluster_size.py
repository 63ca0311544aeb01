"""A run of DeeperCluster on paper: its memory, what travels between processes, and its hours.

Sub-heads are spread over the processes (`--shard_heads`). Memory is that of each process, beside
the network's activations and the list of the images; not all of it is needed at the same time.
"""

import math
from dataclasses import dataclass

from features.projected import is_large, sample_stride
from methods.two_level_settings import cluster_counts
from training.assignments import MOST_LISTED

HALF, FULL, LONG = 2, 4, 8  # bytes of a float16 or bfloat16, a float32, a float64 or int64
TRAINED = 3 * FULL  # of a weight with its gradient and momentum
SCRATCH = 3 * 2**29  # bytes that Faiss takes on a GPU by default


@dataclass(frozen=True)
class Size:
    """The size of a run.

    Attributes:
        images: N.
        processes: W.
        super_classes: S, four rotations of each super-cluster.
        k: clusters in all.
        dim: D, dimensions of the network's features.
        kept: d, dimensions after whitening.
        network: number of the network's weights.
        batch: images in a batch of all processes.
        epochs, reassignment, niter: as the flags of `main.py`.
    """

    images: int
    processes: int
    super_classes: int
    k: int
    dim: int
    kept: int
    network: int
    batch: int
    epochs: int
    reassignment: int
    niter: int

    @property
    def super_clusters(self) -> int:
        """m"""
        return cluster_counts(self.super_classes, True, self.k)[0]

    @property
    def each(self) -> int:
        """K, sub-clusters of each super-cluster."""
        return cluster_counts(self.super_classes, True, self.k)[1]

    @property
    def share(self) -> float:
        """Images of a process."""
        return self.images / self.processes

    @property
    def sub_heads(self) -> int:
        """Number of weights of all sub-heads."""
        return self.super_classes * self.each * (self.dim + 1)

    @property
    def replicated(self) -> int:
        """Number of weights that all processes have: network and super head."""
        return self.network + self.super_classes * (self.dim + 1)

    @property
    def sample(self) -> int:
        """Images of the pass that the whitening is fitted to; 0 without such a pass."""
        if not is_large(self.images, self.dim):
            return 0
        return self.images // sample_stride(self.images, self.dim)

    @property
    def clusterings(self) -> int:
        """One in each period, and that of the finished network."""
        return math.ceil(self.epochs / self.reassignment) + 1


@dataclass(frozen=True)
class Rates:
    """What a process does in a second: images of the feature pass, images of training, and
    floating-point operations of the search for nearest centroids."""

    features: float
    training: float
    search: float


def device_memory(size: Size) -> dict[str, float]:
    """Bytes on the device of a process."""
    own = size.sub_heads / size.processes
    return {
        "network and super head, with gradients and momentum": TRAINED * size.replicated,
        "sub-heads, 1/W of them, with gradients and momentum": TRAINED * own,
        "their copies in half precision, during a step": HALF * own,
        "their gradients by super-class, before they are put together": FULL * own,
        "a cluster for each image": LONG * size.images,
        "k-means: centroids of a super-cluster, and their sums": (
            (FULL + LONG) * size.each * size.kept
        ),
        "k-means: scratch memory of Faiss": SCRATCH,
    }


def host_memory(size: Size) -> dict[str, float]:
    """Bytes in the memory of a process's machine."""
    centroids = size.each * size.kept
    return {
        "features, whitened, float16": HALF * size.share * size.kept,
        "the same in float32, while they are clustered": FULL * size.share * size.kept,
        "centroids, sums and means of a super-cluster": (2 * FULL + 2 * LONG) * centroids,
        "centroids of all, in the result and in the checkpoint": (
            2 * FULL * size.super_clusters * centroids
        ),
        "clusters of this and the last period, by image": 2 * LONG * size.images,
        "order of an epoch: image and rotation": 2 * LONG * size.images,
        "`clusters`, as lists of Python": (
            (8 + 32) * size.images if size.images <= MOST_LISTED else 0
        ),
        "covariance, float64": 2 * LONG * size.dim**2,
        "a new sub-head, drawn whole": FULL * size.each * size.dim,
    }


def traffic_of_step(size: Size) -> dict[str, float]:
    """Bytes that a process gives or gets in a training step."""
    return {
        "gradients of network and super head, all-reduce": FULL * size.replicated,
        "features of the batch in half precision, all-gather": HALF * size.batch * size.dim,
        "targets, all-gather": 2 * LONG * size.batch,
        "maxima, sums and their gradients, all-reduce": (1 + 2 + 2) * FULL * size.batch,
        "gradients of the features, reduce-scatter": FULL * size.batch * size.dim,
    }


def traffic_of_clustering(size: Size) -> dict[str, float]:
    """Bytes that a process gives or gets in a clustering."""
    centroids = size.super_clusters * (1 + size.each)
    return {
        "covariance, all-reduce": LONG * size.dim**2,
        "first centroids, all-reduce": FULL * centroids * size.kept,
        "sums and counts, all-reduce": LONG * size.niter * centroids * (size.kept + 1),
        "clusters of all images, all-gather": (LONG + 1) * size.images,
    }


def search_operations(size: Size) -> float:
    """Floating-point operations of a process's searches for nearest centroids in a clustering: one
    for each update, and a last one."""
    of_a_pass = 2 * size.share * (size.super_clusters + size.each) * size.kept
    return (size.niter + 1) * of_a_pass


def hours(size: Size, rates: Rates) -> dict[str, float]:
    """Hours of each part of the run, without the time for exchanging data."""
    passes = size.images + size.sample
    of = {
        "feature passes of a clustering": passes / size.processes / rates.features,
        "k-means of a clustering": search_operations(size) / rates.search,
        "training, an epoch": size.share / rates.training,
    }
    features, kmeans, training = of.values()
    of["the whole run"] = size.clusterings * (features + kmeans) + size.epochs * training
    return {name: seconds / 3600 for name, seconds in of.items()}
