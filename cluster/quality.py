"""Measures of a clustering (NMI, purity, sizes), and its lists of members.

NMI is normalised by the geometric mean of the entropies, as in the paper; scikit-learn's default is
the arithmetic mean.
"""

import operator
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix


def nmi(a: np.ndarray, b: np.ndarray) -> float:
    """Normalised mutual information I(A; B) / √(H(A) H(B)), 0..1, of two assignments `(N,) int64`,
    over the images that both assign (≥ 0). The paper's section 4.1 compares with the previous
    epoch's assignment and with labels."""
    both = (a >= 0) & (b >= 0)
    return float(normalized_mutual_info_score(a[both], b[both], average_method="geometric"))


def ari(assignment: np.ndarray, labels: np.ndarray) -> float:
    """Adjusted Rand index of two assignments `(N,) int64`, over the images that both assign (≥ 0):
    1 for the same clusters, 0 for what chance gives (Hubert and Arabie, 1985)."""
    both = (assignment >= 0) & (labels >= 0)
    return float(adjusted_rand_score(labels[both], assignment[both]))


def purity(assignment: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of the images that carry the most frequent label of their cluster, of those with a
    cluster and a label (≥ 0)."""
    both = (assignment >= 0) & (labels >= 0)
    counts = contingency_matrix(labels[both], assignment[both])
    return float(counts.max(axis=0, initial=0).sum() / max(counts.sum(), 1))


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
        "nmi_labels": None if labels is None else nmi(assignment, labels),
        "purity": None if labels is None else purity(assignment, labels),
        **size_metrics(assignment[assignment >= 0], k),
    }


def describe_sizes(metrics: dict[str, Any]) -> str:
    """`size_metrics` in words."""
    size = metrics["cluster_size"]
    return (
        f"{metrics['nonempty_clusters']} of {metrics['clusters']} clusters not empty, sizes "
        f"{size['smallest']} to {size['largest']}, median {size['median']:g}"
    )


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
