"""What every method keeps of its clusters, and the clusters of the finished network."""

import argparse
from typing import Any, ClassVar

import numpy as np
import torch

from cluster.clusters import Clusters
from cluster.quality import unlabelled_metrics
from clustering import CLUSTERINGS
from features.forward import Features
from methods.fitted import fit_clusters
from methods.frozen import frozen_features
from methods.method import Running
from models import ConvNet
from system.device import Compute


class Clustered:
    """The common part of all methods; attributes as in `methods.method.Method`.

    Attributes:
        previous: the assignment before `assignment`.
    """

    form: ClassVar[dict[str, Any]] = {
        "assignment": torch.Tensor,
        "previous": torch.Tensor,
        "clusters": (dict, type(None)),
    }
    algorithms: ClassVar[tuple[str, ...]] = tuple(CLUSTERINGS)  # that its clusters may come from
    network: ConvNet

    def __init__(self, args: argparse.Namespace, compute: Compute) -> None:
        self.args, self.compute = args, compute
        self.assignment = self.previous = np.empty(0, np.int64)
        self.clusters: Clusters | None = None
        self.by_prototypes: np.ndarray | None = None
        self.unlabelled: dict[str, float | None] = {}

    def finish(self, run: Running) -> np.ndarray:
        return self.cluster_finished(run, frozen_features(run, self.network, self.compute))

    def cluster_finished(self, run: Running, features: Features) -> np.ndarray:
        """Cluster this process's features from the finished network. Returns as `finish`."""
        pca = self.args.final_dim_pca
        found = fit_clusters(run, features, self.args, self.compute, pca, quiet=True)
        assignment, _, self.clusters = found
        rows = self.clusters.whitening.apply(features.rows, self.compute.device)
        k = len(self.clusters.centroids) if self.clusters.algorithm == "Kmeans" else None
        self.unlabelled = unlabelled_metrics(rows, assignment[assignment >= 0], k)
        return assignment

    def state_dict(self) -> dict[str, Any]:
        return {
            "assignment": torch.from_numpy(self.assignment),
            "previous": torch.from_numpy(self.previous),
            "clusters": self.clusters and self.clusters.to_plain(),
        }

    def load_state_dict(self, state: dict[str, Any], with_heads: bool) -> None:
        self.assignment = state["assignment"].numpy()
        self.previous = state["previous"].numpy()
        self.clusters = state["clusters"] and Clusters.from_plain(state["clusters"])

    @classmethod
    def is_sound(cls, state: dict[str, Any], step: int) -> bool:
        labels, previous = state["assignment"].numpy(), state["previous"].numpy()
        clusters = state["clusters"] and Clusters.from_plain(state["clusters"])
        return (
            labels.dtype == previous.dtype == np.int64
            and labels.ndim == previous.ndim == 1
            and labels.min(initial=0) >= -1
            and (not clusters or (clusters.is_sound() and clusters.algorithm in cls.algorithms))
        )
