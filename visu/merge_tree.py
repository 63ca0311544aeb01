"""The picture of clusters that are merged to groups."""

import numpy as np
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import dendrogram

from cluster.merging import ward_tree

LEAF, REST, HEIGHT = 0.16, 1.0, 4.0  # width of a leaf, of the rest, and the height, in inches
MOST_LEAVES = 200  # below them, clusters are counted
DPI = 110


def draw_merge_tree(centroids: np.ndarray, counts: np.ndarray, groups: int) -> Figure:
    """Ward's tree of the clusters that have rows, with the cut that leaves so many groups; the
    branches of a group have one colour. A number in brackets is that of clusters in a leaf.

    Args:
        centroids, counts, groups: as of `merge_centroids`.
    """
    full = np.flatnonzero(counts)
    tree = ward_tree(centroids[full], counts[full])
    cut = (tree[-groups, 2] + tree[1 - groups, 2]) / 2 if groups > 1 else 1.01 * tree[-1, 2]
    width = REST + LEAF * min(len(full), MOST_LEAVES)
    figure = Figure(figsize=(max(width, HEIGHT), HEIGHT), dpi=DPI, layout="constrained")
    ax = figure.subplots()
    dendrogram(
        tree, ax=ax, p=MOST_LEAVES, truncate_mode="lastp", color_threshold=cut,
        above_threshold_color="C7", labels=full.astype(str), leaf_rotation=90, leaf_font_size=7,
    )  # fmt: skip
    ax.axhline(cut, color="C3", linestyle="--", linewidth=1)
    ax.set_ylabel("Ward's distance")
    ax.set_xlabel("cluster")
    return figure
