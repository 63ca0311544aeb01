"""Early signs that a run is going wrong: each check returns one line of advice, or nothing."""

import math

import numpy as np

SAMPLE = 1000  # rows that are checked, in float64
LEAST_SPREAD = 1e-3
LARGEST_SHARE = 0.5
LEAST_SIZE = 2  # images in a cluster, on average
LEAST_GAIN = 0.01


def feature_spread(features: np.ndarray) -> float:
    """Standard deviation of features `(N, D)` around their mean, divided by the root mean square of
    the row norms; 0 if all rows are equal."""
    rows = features[:: -(-len(features) // SAMPLE)].astype(np.float64)
    size = (rows**2).sum(axis=1).mean()
    return float(np.sqrt(rows.var(axis=0).sum() / size)) if size > 0 else 0.0


def check_features(features: np.ndarray) -> list[str]:
    """Warn if features `(N, D)` are nearly equal."""
    if len(features) == 0:  # the other processes have them
        return []
    spread = feature_spread(features)
    if spread >= LEAST_SPREAD:
        return []
    return [
        f"the features are nearly the same for all images (spread {spread:.1e} of their size): the "
        "network has collapsed, or the images do not differ; try a lower --lr from the start"
    ]


def check_assignment(assignment: np.ndarray, k: int) -> list[str]:
    """Warn if an assignment `(N,)` to k clusters has tiny clusters, or one with most images."""
    sizes = np.bincount(assignment[assignment >= 0], minlength=k)
    mean_size = sizes.sum() / np.count_nonzero(sizes)
    if mean_size < LEAST_SIZE:
        return [
            f"a cluster has {mean_size:.2g} images on average, too few to learn from; give fewer "
            "--nmb_cluster, or for PIC a larger --sigma"
        ]
    share = sizes.max() / sizes.sum()
    if share <= LARGEST_SHARE:
        return []
    return [
        f"one cluster holds {share:.0%} of the images: the clustering is trivial; look at the "
        "images, and try another --nmb_cluster or a lower --lr"
    ]


def check_loss(loss: float, clusters: int, epoch: int) -> list[str]:
    """Warn if the mean convnet loss of an epoch is that of guessing among non-empty clusters.

    Skips the first epoch: the network has barely started to learn.
    """
    chance = math.log(clusters)
    if epoch == 0 or clusters == 1 or loss < (1 - LEAST_GAIN) * chance:
        return []
    return [
        f"the convnet loss {loss:.3f} is not below ln k = {chance:.3f}, the loss of guessing: "
        "the network does not learn its clusters; if this lasts, try a lower --lr, fewer clusters "
        "or more training between two reassignments (--reassign)"
    ]
