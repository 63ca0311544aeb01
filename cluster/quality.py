"""Measures of a clustering against labels (NMI, ACC, ARI, AMI, purity) and without (silhouette,
stability, sizes), and its lists of members.

NMI is normalised by the geometric mean of the entropies, as in the paper; AMI by the arithmetic
mean, which is scikit-learn's default for both.
"""

import operator
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, combinations
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, eye, hstack
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from scipy.stats import entropy
from sklearn.metrics import (
    adjusted_rand_score,
    mutual_info_score,
    normalized_mutual_info_score,
)
from sklearn.metrics.cluster import contingency_matrix

from cluster.chance import expected_information
from cluster.kmeans import run_kmeans
from cluster.silhouette import silhouette

SEEDS = range(5)  # of the k-means whose agreement is the stability
CHEAP = 2**20  # rows × clusters up to which the stability is measured unasked

# Measures of the agreement with labels, and their names
AGREEMENT = {
    "nmi_labels": "NMI to the labels",
    "acc": "ACC",
    "ari": "ARI",
    "ami": "AMI",
    "purity": "purity",
}


def nmi(a: np.ndarray, b: np.ndarray) -> float:
    """Normalised mutual information I(A; B) / √(H(A) H(B)), 0..1, of two assignments `(N,) int64`,
    over the images that both assign (≥ 0). The paper's section 4.1 compares with the previous
    epoch's assignment and with labels."""
    both = (a >= 0) & (b >= 0)
    return float(normalized_mutual_info_score(a[both], b[both], average_method="geometric"))


def accuracy(assignment: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy (ACC) of an assignment `(N,) int64`: the fraction of images whose cluster is matched
    with their label, by the best one-to-one matching of clusters and labels (Yang, Xu, Nie, Yan and
    Zhuang, 2010). Only images with a cluster and a label (≥ 0) count. If there are more clusters
    than labels, the images of the clusters that are left over count as wrong."""
    counts = _contingency(assignment, labels)
    images = counts.sum()
    if images == 0:
        return 0.0
    if counts.shape[0] > counts.shape[1]:
        counts = counts.T.tocsr()
    # The solver matches every row and takes only pairs above 0: so a row gets a column of its own
    # in case that no other is left, and each pair counts as one image more.
    counts.data += 1
    pairs = hstack([counts, eye(counts.shape[0], format="csr")], format="csr")
    matched = pairs[min_weight_full_bipartite_matching(pairs, maximize=True)]
    return float((matched.sum() - counts.shape[0]) / images)


def ari(assignment: np.ndarray, labels: np.ndarray) -> float:
    """Adjusted Rand index of two assignments `(N,) int64`, over the images that both assign (≥ 0):
    1 for the same clusters, 0 for what chance gives (Hubert and Arabie, 1985)."""
    both = (assignment >= 0) & (labels >= 0)
    return float(adjusted_rand_score(labels[both], assignment[both]))


def ami(assignment: np.ndarray, labels: np.ndarray) -> float:
    """Adjusted mutual information of two assignments `(N,) int64`, over the images that both assign
    (≥ 0): 1 for the same clusters, 0 for what chance gives, however many clusters there are (Vinh,
    Epps and Bailey, 2010). scikit-learn's, but faster."""
    counts = _contingency(assignment, labels)
    sizes = [counts.sum(axis=axis).A1.astype(np.int64) for axis in (0, 1)]
    alone = [len(each) < 2 for each in sizes]
    if any(alone):  # as in scikit-learn
        return float(all(alone))
    chance = expected_information(*sizes)
    most = sum(map(entropy, sizes)) / 2
    if np.isclose(most, chance, rtol=1e-12):  # each image alone on both sides
        return 1.0
    return float((mutual_info_score(None, None, contingency=counts) - chance) / (most - chance))


def purity(assignment: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of the images that carry the most frequent label of their cluster, of those with a
    cluster and a label (≥ 0)."""
    counts = _contingency(assignment, labels)
    return float(counts.max(axis=0).sum() / counts.sum()) if counts.sum() else 0.0


def _contingency(assignment: np.ndarray, labels: np.ndarray) -> csr_matrix:
    """Number of images by label (rows) and cluster (columns) as float64, of those with both (≥ 0).
    Sparse, as there may be very many labels."""
    both = (assignment >= 0) & (labels >= 0)
    return contingency_matrix(labels[both], assignment[both], sparse=True, dtype=np.float64)


def label_metrics(assignment: np.ndarray, labels: np.ndarray | None) -> dict[str, float | None]:
    """How well an assignment `(N,) int64` agrees with labels `(N,) int64`, over the images that
    have both (≥ 0); by the keys of `AGREEMENT`, all None without labels."""
    measures = {"nmi_labels": nmi, "acc": accuracy, "ari": ari, "ami": ami, "purity": purity}
    return {
        name: None if labels is None else measure(assignment, labels)
        for name, measure in measures.items()
    }


def describe_labels(metrics: Mapping[str, Any]) -> str:
    """`label_metrics` in words; empty without labels."""
    known = {name: words for name, words in AGREEMENT.items() if metrics[name] is not None}
    return ", ".join(f"{words} {metrics[name]:.3f}" for name, words in known.items())


def stability(rows: np.ndarray, k: int, seeds: Iterable[int] = SEEDS) -> float:
    """How far k-means depends on its seed: the mean ARI of all pairs of the clusterings, 1 if all
    are the same, 0 if they agree by chance only.

    Args:
        rows: `(n, d) float32`; under torchrun the rows of this process.
        k: number of clusters.
        seeds: of the first centroids, two or more.

    Raises:
        ValueError: fewer than two seeds; otherwise as `run_kmeans`.
    """
    return agreement([run_kmeans(rows, k, seed=seed)[0] for seed in seeds])


def agreement(clusterings: Sequence[np.ndarray]) -> float:
    """The mean ARI of all pairs of two or more clusterings `(N,) int64`."""
    if len(clusterings) < 2:
        raise ValueError(f"{len(clusterings)} clusterings: agreement needs two or more")
    return float(np.mean([ari(one, other) for one, other in combinations(clusterings, 2)]))


def unlabelled_metrics(
    rows: np.ndarray, clusters: np.ndarray, k: int | None = None
) -> dict[str, float | None]:
    """How good clusters are without labels: `silhouette`, and `stability` if that is cheap, else
    None.

    Args:
        rows, clusters: as of `silhouette`.
        k: number of clusters of k-means; None: the clusters don't come from k-means of these rows,
            and so have no stability.
    """
    found: dict[str, float | None] = {"silhouette": silhouette(rows, clusters), "stability": None}
    if k is not None and k * len(clusters) <= CHEAP:
        found["stability"] = stability(rows, k)
    return found


def describe_unlabelled(metrics: Mapping[str, float | None]) -> str:
    """`unlabelled_metrics` in words, of those that are known."""
    known = {name: value for name, value in metrics.items() if value is not None}
    return ", ".join(f"{name} {value:.3f}" for name, value in known.items())


def size_metrics(assignment: np.ndarray, k: int) -> dict[str, Any]:
    """The number and sizes of the non-empty clusters among k, of an assignment `(N,) int64` of one
    image or more."""
    sizes = np.bincount(assignment)
    sizes = sizes[sizes > 0]
    return {
        "clusters": k,
        "nonempty_clusters": len(sizes),
        "cluster_size": {
            "smallest": int(sizes.min()),
            "median": float(np.median(sizes)),
            "largest": int(sizes.max()),
        },
    }


def clustering_metrics(
    assignment: np.ndarray, previous: np.ndarray, labels: np.ndarray | None, k: int
) -> dict[str, Any]:
    """The numbers of k clusters in a line of `metrics.jsonl`.

    Args:
        assignment: `(N,) int64`, −1 for an image that was left out.
        previous: the assignment before; if it is of other images, it is not compared.
        labels: `(N,) int64`, if there are any.
        k: number of clusters, empty ones included.
    """
    comparable = len(previous) == len(assignment)
    return {
        "nmi_previous": nmi(assignment, previous) if comparable else None,
        **label_metrics(assignment, labels),
        **size_metrics(assignment[assignment >= 0], k),
    }


def super_metrics(
    assignment: np.ndarray, each: int, count: int, labels: np.ndarray | None
) -> dict[str, Any]:
    """The numbers of the super-clusters of clusters on two levels, as in `clustering_metrics`.

    Args:
        assignment: `(N,) int64`, super-cluster · `each` + sub-cluster, −1 for an image left out.
        count: number of super-clusters, empty ones included.
        labels: `(N,) int64`, if there are any.
    """
    supers = assignment // each  # −1 stays −1
    return {**label_metrics(supers, labels), **size_metrics(supers[supers >= 0], count)}


def describe_sizes(metrics: dict[str, Any], noun: str = "clusters") -> str:
    """`size_metrics` in words."""
    size = metrics["cluster_size"]
    return (
        f"{metrics['nonempty_clusters']} of {metrics['clusters']} {noun} not empty, sizes "
        f"{size['smallest']} to {size['largest']}, median {size['median']:g}"
    )


def describe_supers(metrics: dict[str, Any]) -> str:
    """`super_metrics` in words."""
    sizes = describe_sizes(metrics, "super-clusters")
    return ", ".join(filter(None, [sizes, describe_labels(metrics)]))


def group_by_cluster(assignment: np.ndarray, k: int) -> list[list[int]]:
    """The original's `images_lists`: for each of k clusters the ascending list of its members.

    Args:
        assignment: `(N,) int64`, −1 for an image that is left out.
        k: number of clusters.
    """
    members = np.flatnonzero(assignment >= 0)
    members = members[np.argsort(assignment[members], kind="stable")]
    sizes = np.bincount(assignment[members], minlength=k)
    return [part.tolist() for part in np.split(members, np.cumsum(sizes)[:-1])]


def arrange_clustering(images_lists: Sequence[Sequence[int]]) -> np.ndarray:
    """The cluster of each image in data-set order: the inverse of `group_by_cluster`.

    Args:
        images_lists: for each cluster the numbers of its images, in any order.

    Returns:
        `(N,) int64`, where N is the highest number plus 1; −1 for an image in no list.

    Raises:
        ValueError: a number is negative, or occurs twice.
        TypeError: a number is not an integer.
    """
    sizes = [len(members) for members in images_lists]
    images = np.fromiter(map(operator.index, chain.from_iterable(images_lists)), np.int64)
    if images.min(initial=0) < 0:
        raise ValueError(f"images_lists: there is no image {images.min()}; numbers begin with 0")
    times = np.bincount(images)
    if times.max(initial=0) > 1:
        image = times.argmax()
        raise ValueError(f"images_lists: image {image} occurs {times[image]} times; give it once")
    assignment = np.full(len(times), -1, np.int64)
    assignment[images] = np.repeat(np.arange(len(sizes)), sizes)
    return assignment
