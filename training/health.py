"""Early signs that a run is going wrong: each check returns one line of advice, or nothing."""

import numpy as np

SAMPLE = 1000  # rows that are checked, in float64
LEAST_SPREAD = 1e-3
LARGEST_SHARE = 0.5
LEAST_SIZE = 2  # images in a cluster, on average


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
    """Warn if an assignment `(N,)` to k clusters has tiny clusters, or one with most images. It may
    have no images yet."""
    sizes = np.bincount(assignment[assignment >= 0], minlength=k)
    if not sizes.any():
        return []
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
