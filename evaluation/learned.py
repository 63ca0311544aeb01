"""What a network has learned: measures of its embedding against labels.

Protocol. The embedding is seen in two views: L2-normalised only ("plain"), and PCA-whitened to the
`auto_dim` of the train rows, on which the PCA is fitted, and L2-normalised ("whitened"). In each
view: the 1 and the 20 nearest neighbours of the val rows among the train rows (cosine similarity,
majority vote); k-means of the train rows, five seeds, against their labels, with k = number of
labels (NMI, ACC, ARI, AMI and purity) and with the run's k (NMI). A linear probe once, on rows that
are standardised and not whitened: logistic regression, with the regularisation that is best on a
fifth of the train rows.

No single one of these measures tells all: clusters can get better where neighbours get worse.
`verdict.py` compares two networks.
"""

import math
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from cluster.components import AUTO, Components
from cluster.kmeans import run_kmeans
from cluster.quality import accuracy, ami, ari, nmi, purity
from cluster.whitening import prepare

VIEWS: dict[str, Components] = {"plain": 0, "whitened": AUTO}
SEEDS = 5  # of k-means
NEIGHBOURS = (1, 20)
REGULARISATION = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # scikit-learn's C, the strongest first
ITERATIONS, TOLERANCE = 200, 1e-3  # of the linear probe
PIXELS = 32  # largest side of an image whose raw pixels are measured
# Measures of clusters, with k = number of labels
WITH_LABELS = {"nmi": nmi, "acc": accuracy, "ari": ari, "ami": ami, "purity": purity}
BLOCK = 1024  # val rows that are compared at a time

Samples = np.ndarray


def measures(
    train: np.ndarray,
    train_labels: np.ndarray,
    val: np.ndarray,
    val_labels: np.ndarray,
    k: int | None,
    seed: int = 0,
) -> dict[str, Samples]:
    """All measures of an embedding.

    Args:
        train, val: `(N, D)` and `(M, D)` rows of any floating type, as the network gives them.
        train_labels, val_labels: `(N,)` and `(M,)`, numbers or names.
        k: number of clusters in the run, at most N; None leaves out the measure `nmi_k`.
        seed: of the first of the five k-means; the next ones follow it.

    Returns:
        The samples whose mean is the figure: of an accuracy `(M,) bool`, whether each val row is
        right; of NMI, ACC, ARI, AMI and purity `(5,) float64`, one for each seed. Keys: `linear`,
        and for the views `plain` and `whitened` `<view>_1nn`, `_20nn`, and `<view>_` with a key of
        `WITH_LABELS` or `nmi_k`.

    Raises:
        ValueError: there are fewer train rows than clusters, or a row is not finite.
    """
    train, val = grey_once(train, val)
    names, truth = np.unique(train_labels, return_inverse=True)
    found = {"linear": fit_probe(train, train_labels).predict(val) == val_labels}
    for view, components in VIEWS.items():
        whitening = prepare(train, components)
        x, queries = whitening.apply(train), whitening.apply(val)
        for count in NEIGHBOURS:
            found[f"{view}_{count}nn"] = names[nearest(x, truth, queries, count)] == val_labels
        seeds = range(seed, seed + SEEDS)
        by_label = [run_kmeans(x, len(names), seed=each)[0] for each in seeds]
        for name, measure in WITH_LABELS.items():
            found[f"{view}_{name}"] = np.array([measure(clusters, truth) for clusters in by_label])
        if k is not None:
            by_k = [run_kmeans(x, k, seed=each)[0] for each in seeds]
            found[f"{view}_nmi_k"] = np.array([nmi(clusters, truth) for clusters in by_k])
    return found


def grey_once(train: np.ndarray, val: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows `(N, D)` and `(M, D)`; if these are the raw pixels of grey images, with one of the
    three equal channels. Neighbours and clusters stay what they are, in a third of the time; of the
    probe, the same C then regularises three times as much."""
    for rows in (train, val):
        if rows.shape[1] % 3 or any((rows[:, 0::3] != rows[:, c::3]).any() for c in (1, 2)):
            return train, val
    return train[:, ::3], val[:, ::3]


@dataclass(frozen=True)
class LinearProbe:
    """Logistic regression on standardised rows; `fit_probe` makes it.

    Attributes:
        held_out: accuracy on the held-out fifth of the train rows by scikit-learn's C; empty if it
            could not be chosen so.
    """

    scaler: StandardScaler
    classifier: LogisticRegression
    held_out: dict[float, float]

    @property
    def regularisation(self) -> float:
        """scikit-learn's C, the chosen one."""
        return float(self.classifier.C)

    @property
    def converged(self) -> bool:
        """Whether the solver reached its tolerance in time."""
        return bool(self.classifier.n_iter_.max() < ITERATIONS)

    @property
    def labels(self) -> np.ndarray:
        """The L labels of the train rows, ascending."""
        return self.classifier.classes_

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """Rows `(M, D)` → `(M, L) float32`, the highest for the likeliest of `labels`."""
        scores = self.classifier.decision_function(self.scaler.transform(rows.astype(np.float32)))
        return np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """The likeliest label `(M,)` of each row `(M, D)`."""
        return self.labels[self.scores(rows).argmax(axis=1)]


def fit_probe(train: np.ndarray, labels: np.ndarray, seed: int = 0) -> LinearProbe:
    """Fit logistic regression to the standardised rows `(N, D)`, with the regularisation that is
    best on a fifth of them when fitted to the others.

    Args:
        labels: `(N,)`, two different ones or more.
        seed: of the fifth, which has its share of each label.
    """
    scaler = StandardScaler()
    x = scaler.fit_transform(train.astype(np.float32))
    classifier = LogisticRegression(max_iter=ITERATIONS, tol=TOLERANCE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        held_out = _try_regularisations(x, labels, seed)
        middle = REGULARISATION[len(REGULARISATION) // 2]
        best = max(held_out, key=held_out.__getitem__, default=middle)
        return LinearProbe(scaler, classifier.set_params(C=best).fit(x, labels), held_out)


def _try_regularisations(x: np.ndarray, labels: np.ndarray, seed: int) -> dict[float, float]:
    """The accuracy of a probe of four fifths of the rows `(N, D)` on the others, by C, from the
    smallest until two in a row are worse than the best; empty if a label has too few rows to be on
    both sides."""
    counts = np.unique(labels, return_counts=True)[1]
    held_out = max(math.ceil(0.2 * len(x)), len(counts))
    if counts.min() == 1 or len(x) - held_out < len(counts):
        return {}
    own, others, own_labels, other_labels = train_test_split(
        x, labels, test_size=held_out, random_state=seed, stratify=labels
    )
    probe = LogisticRegression(max_iter=ITERATIONS, tol=TOLERANCE, warm_start=True)
    found: dict[float, float] = {}
    for c in REGULARISATION:
        found[c] = float(probe.set_params(C=c).fit(own, own_labels).score(others, other_labels))
        if max(found.values()) > max(list(found.values())[-2:]):
            break  # the next would take the longest
    return found


def nearest(rows: np.ndarray, labels: np.ndarray, queries: np.ndarray, count: int) -> np.ndarray:
    """The most frequent label `(M,) int64` among the nearest rows of each query. Of labels that are
    equally frequent, the one with the nearest row wins.

    Args:
        rows, queries: `(N, d)` and `(M, d) float32`, of unit length.
        labels: `(N,) int64`.
        count: number of neighbours; with fewer rows, all of them.
    """
    count = min(count, len(rows))
    found = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), BLOCK):
        similarity = queries[start : start + BLOCK] @ rows.T
        near = np.argpartition(-similarity, count - 1)[:, :count]
        order = np.argsort(-np.take_along_axis(similarity, near, 1), kind="stable")
        votes = labels[np.take_along_axis(near, order, 1)]  # (b, count), the nearest first
        frequency = (votes[:, :, None] == votes[:, None, :]).sum(axis=2)
        winner = frequency.argmax(axis=1)  # the first of the most frequent
        found[start : start + BLOCK] = votes[np.arange(len(votes)), winner]
    return found


def raw_pixels(pixels: np.ndarray) -> np.ndarray:
    """Rows without a network: images `(B, 3, S, S) uint8`, resized with a box filter to `PIXELS` at
    most, as `(B, 3·s·s) float32`."""
    side = min(pixels.shape[-1], PIXELS)
    images = [Image.fromarray(image) for image in pixels.transpose(0, 2, 3, 1)]
    small = [np.asarray(image.resize((side, side), Image.Resampling.BOX)) for image in images]
    return np.stack(small).reshape(len(small), -1).astype(np.float32)
