"""Measures of a clustering against labels."""

import numpy as np

from cluster.quality import ari, nmi, purity


def test_images_without_a_label_or_a_cluster_do_not_count() -> None:
    clusters = np.array([0, 0, 0, 1, 1, 1, -1, 1, 0])
    labels = np.array([4, 4, 2, 2, 2, 4, 2, -1, -1])
    both = (clusters >= 0) & (labels >= 0)
    for measure in (purity, nmi, ari):
        assert measure(clusters, labels) == measure(clusters[both], labels[both])
    assert purity(clusters, labels) == 4 / 6


def test_purity_without_any_label_is_0() -> None:
    assert purity(np.array([0, 1]), np.array([-1, -1])) == 0
