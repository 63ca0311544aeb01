"""Clusters fitted to the features of all images."""

import argparse
import logging

import numpy as np

from cluster.clusters import Clusters
from cluster.components import AUTO, Components
from clustering import check_clustering, cluster_steps, make_clustering
from features.forward import Features
from methods.method import Running
from parallel.collectives import gather_rows
from system.device import Compute
from system.seeding import derive_seed

log = logging.getLogger("deepcluster")


def fit_clusters(
    run: Running,
    features: Features,
    args: argparse.Namespace,
    compute: Compute,
    pca: Components,
    quiet: bool = False,
) -> tuple[np.ndarray, float, Clusters]:
    """Features → whitening → clusters, with the clustering that the flags ask for.

    Args:
        features: of this process's images, from the frozen network.
        pca: dimensions of the whitening.
        quiet: log no remark on them.

    Returns:
        The assignment `(N,) int64` (−1 for an unreadable image), the clustering's loss, and the
        clusters.

    Raises:
        InputError: too few images can be read.
        Stopped: a signal came.
    """
    total, unit = cluster_steps(args, run.image_count, "images")
    with run.stage("clustering", total, unit) as advance:
        present = gather_rows(features.present)
        check_clustering(args, int(present.sum()), "images with features")
        seed = derive_seed(args.seed, "k-means", run.epoch)
        clustering = make_clustering(args, seed, compute.device, pca)
        loss = clustering.cluster(features.rows, moments=features.moments, advance=advance)
    if not quiet:
        log_dimensions(pca, clustering.remark())
    assignment = np.full(len(present), -1, np.int64)
    assignment[present] = clustering.assignments
    return assignment, loss, Clusters.of(clustering, run.epoch)


def log_dimensions(pca: Components, remark: str | None) -> None:
    """Log a remark on the dimensions of a whitening, if there is one: a warning if they were given.

    Args:
        pca: what was asked for.
    """
    if remark is not None:
        log.log(logging.INFO if pca == AUTO else logging.WARNING, remark)
