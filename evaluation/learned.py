"""What a network has learned: several measures of its embedding, beside another's, and a verdict.

Protocol. An embedding is seen in two views: L2-normalised as it is ("plain"), and PCA-whitened by
`auto_dim`'s rule, with the PCA fitted on the train rows, and L2-normalised ("whitened"). In each: 1
and 20 nearest neighbours of the val rows among the train rows (cosine similarity, majority); and
k-means of the train rows, five seeds, against their labels, with k = number of labels (NMI and ARI)
and with the run's k (NMI). A linear probe once, on rows that are standardised and not whitened:
logistic regression, its regularisation chosen on a fifth of the train rows.

No one of them tells all: clusters can get better while nearest neighbours get worse.
"""

from collections.abc import Iterator

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from cluster.kmeans import run_kmeans
from cluster.quality import ari, nmi
from cluster.whitening import AUTO, fit_whitening
from data.loading import ImageDataset

VIEWS = {"plain": 0, "whitened": AUTO}
KMEANS_SEEDS = 5
NEIGHBOURS = (1, 20)
REGULARISATION = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C of the linear probe, the strongest first
PIXELS = 32  # side of an image whose raw pixels are measured
BLOCK = 1024  # val rows that are compared at a time
SIGNIFICANT = 0.01  # p of McNemar's test
CLEAR = 0.01  # least difference of NMI or ARI that counts

Samples = np.ndarray


def measures(
    train: np.ndarray,
    train_labels: np.ndarray,
    val: np.ndarray,
    val_labels: np.ndarray,
    k: int,
    seed: int = 0,
) -> dict[str, Samples]:
    """All measures of an embedding.

    Args:
        train, val: `(N, D)` and `(M, D)` rows of any floating type, neither whitened nor normalised.
        train_labels, val_labels: `(N,)` and `(M,)`, numbers or names.
        k: number of clusters of the run.
        seed: of the first of five k-means; the others have the seeds after it.

    Returns:
        By name, such as `linear` or `whitened_nmi`, the samples whose mean is the figure: for an
        accuracy `(M,) bool`, which val images are right; for NMI and ARI `(5,) float64`, by seed.

    Raises:
        ValueError: fewer rows than clusters, a row is not finite, or there is a single label.
    """
    names, truth = np.unique(train_labels, return_inverse=True)
    found = {"linear": linear_probe(train, train_labels, val) == val_labels}
    for view, pca in VIEWS.items():
        whitening = fit_whitening(train, pca)
        x, queries = whitening.apply(train), whitening.apply(val)
        for count in NEIGHBOURS:
            found[f"{view}_{count}nn"] = nearest(x, truth, queries, count) == _numbers(
                val_labels, names
            )
        for name, clusters in {"labels": len(names), "k": k}.items():
            seeds = range(seed, seed + KMEANS_SEEDS)
            assignments = [run_kmeans(x, clusters, seed=each)[0] for each in seeds]
            found[f"{view}_nmi_{name}"] = np.array([nmi(a, truth) for a in assignments])
            if name == "labels":
                found[f"{view}_ari"] = np.array([ari(a, truth) for a in assignments])
    return found


def linear_probe(train: np.ndarray, labels: np.ndarray, val: np.ndarray) -> np.ndarray:
    """The labels `(M,)` that logistic regression on standardised train rows gives the val rows."""
    scale = StandardScaler().fit(np.asarray(train, np.float32))
    x, queries = (scale.transform(np.asarray(rows, np.float32)) for rows in (train, val))
    counts = np.unique(labels, return_counts=True)[1]
    by_label = labels if counts.min() > 1 else None
    parts = train_test_split(x, labels, test_size=0.2, random_state=0, stratify=by_label)
    own, held_out, own_labels, held_out_labels = parts
    probes = [_logistic(c).fit(own, own_labels) for c in REGULARISATION]
    scores = [probe.score(held_out, held_out_labels) for probe in probes]
    return _logistic(REGULARISATION[int(np.argmax(scores))]).fit(x, labels).predict(queries)


def nearest(rows: np.ndarray, labels: np.ndarray, queries: np.ndarray, count: int) -> np.ndarray:
    """The most frequent label `(M,) int64` among each query's nearest rows; of several that are
    equally frequent, the one with the nearest row.

    Args:
        rows, queries: `(N, d)` and `(M, d) float32` of unit length.
        labels: `(N,) int64` of the rows, from 0 on.
        count: number of neighbours; no more than there are rows.
    """
    count = min(count, len(rows))
    found = [np.empty(0, np.int64)]
    for start in range(0, len(queries), BLOCK):
        similarity = queries[start : start + BLOCK] @ rows.T
        near = np.argpartition(-similarity, count - 1)[:, :count]
        order = np.argsort(-np.take_along_axis(similarity, near, axis=1), kind="stable")
        votes = labels[np.take_along_axis(near, order, axis=1)]
        same = votes[:, :, None] == votes[:, None, :]  # (b, count, count)
        found.append(np.take_along_axis(votes, same.sum(axis=2).argmax(axis=1)[:, None], 1)[:, 0])
    return np.concatenate(found)


def pixels_of(dataset: ImageDataset, size: int) -> Iterator[np.ndarray]:
    raise NotImplementedError


def _logistic(c: float) -> LogisticRegression:
    return LogisticRegression(C=c, max_iter=200)


def _numbers(labels: np.ndarray, names: np.ndarray) -> np.ndarray:
    """The number of each label among sorted names; −1 for one that is not there."""
    at = np.searchsorted(names, labels).clip(max=len(names) - 1)
    return np.where(names[at] == labels, at, -1)
