"""DeepCluster: a convnet and its own clusters train each other.

Caron, Bojanowski, Joulin and Douze, "Deep Clustering for Unsupervised Learning of Visual Features",
ECCV 2018, section 3. Before each epoch, the features of all images are clustered (`relabel`).
The cluster numbers are the labels that a new top layer learns (`losses`). Images are drawn so that
each cluster is drawn equally often (`draw`).
"""

import argparse
import logging
import math
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

from cluster import components
from cluster.components import AUTO, PCA, Components
from cluster.quality import clustering_metrics
from cluster.sampler import ORDERS, cluster_weights
from clustering import (
    CLUSTERINGS,
    add_clustering_flags,
    check_clustering,
    make_clustering,
)
from data.loading import Batch
from data.transforms import TRAINING_VIEWS, to_input
from methods.clustered import Clustered
from methods.fitted import fit_clusters
from methods.frozen import frozen_features
from methods.health import check_loss
from methods.method import Running, Schedule
from models import untrained
from models.convnet import initialise
from system import cli
from system.device import Compute
from system.errors import InputError
from system.seeding import derive_seed

log = logging.getLogger("deepcluster")

MOST_DRAWN = 2**31  # images an epoch; their order is kept in memory
DIM_PCA_HELP = (
    "dimensions that features are whitened to for the pseudo-labels; auto: as many as suit the "
    "number of images; 0: no whitening"
)
FINAL_DIM_PCA_HELP = "the same for the finished network's clusters, which are the run's result"


class DeepCluster(Clustered):
    """The method and its network.

    Args:
        args: the flags of `main.py`.
        compute: device and precision.

    Attributes:
        clustering_loss: the k-means loss of `assignment`.
        auto_dim: the number that `--dim_pca auto` became at its first clustering, which later
            epochs and resumes keep; None with a number.
        Others: see `methods.clustered.Clustered`.
    """

    schedule: Schedule | None = None
    order_settings: ClassVar[tuple[str, ...]] = ("nmb_cluster", "reassign", "sampler")
    form: ClassVar[dict[str, Any]] = {
        **Clustered.form,
        "clustering_loss": (int, float),
        "auto_dim": (int, type(None)),
    }

    def __init__(self, args: argparse.Namespace, compute: Compute) -> None:
        super().__init__(args, compute)
        self.network = untrained(args.arch, args.sobel, args.nmb_cluster, args.seed)
        self.network.top_layer = None
        self.clustering_loss = 0.0
        self.auto_dim: int | None = None
        self._described: Components | None = None  # the dimensions that were logged

    @staticmethod
    def add_flags(parser: argparse.ArgumentParser) -> None:
        """Flags for clustering, sampling and the loss."""
        add_clustering_flags(parser)
        cli.replace_helps(parser, {"--lr": "learning rate; on small data: try 0.005"})
        group = parser.add_argument_group("DeepCluster")
        components.add_flag(group, PCA, DIM_PCA_HELP)
        components.add_flag(group, AUTO, FINAL_DIM_PCA_HELP, "--final_dim_pca")
        add = group.add_argument
        reassign_help = "epochs of training between two reassignments of clusters"
        add("--reassign", type=cli.positive_number, default=1.0, help=reassign_help)
        sampler_help = (
            "paper: all clusters equally often; released: unbalanced, as in the released code"
        )
        add("--sampler", choices=list(ORDERS), default="paper", help=sampler_help)
        views_help = "transforms of training images: paper: crop and flip; modelzoo: and colours"
        add("--transforms", choices=list(TRAINING_VIEWS), default="paper", help=views_help)
        reweight_help = "weight each cluster in the loss by one over the root of its size"
        add("--reweight", action="store_true", help=reweight_help)

    @staticmethod
    def fit_settings(args: argparse.Namespace, images: int) -> list[str]:
        return []

    @staticmethod
    def check_flags(args: argparse.Namespace, images: int, device: torch.device) -> None:
        """Fail early on flags that don't fit each other or the number of images.

        Raises:
            InputError: naming the flag, its value and what would be right.
        """
        check_clustering(args, images, f"images of {args.data}")
        if args.reassign * images > MOST_DRAWN:
            raise InputError(
                f"--reassign {args.reassign:g}: of {images:,} images that would be more than "
                f"{MOST_DRAWN:,} an epoch; give less, and more --epochs"
            )
        make_clustering(args, 0, device, args.dim_pca)  # fail early on bad clustering flags

    @property
    def trained(self) -> nn.Module:
        return self.network

    @property
    def k(self) -> int:
        """Width of the top layer: the number of clusters, empty ones included."""
        return self.args.nmb_cluster if self.clusters is None else len(self.clusters.centroids)

    def view(self, size: int) -> v2.Transform:
        return TRAINING_VIEWS[self.args.transforms](size)

    def groups(self) -> list[dict[str, Any]]:
        """The body with momentum, and the top layer without: it is new in each epoch."""
        sgd = {"lr": self.args.lr, "weight_decay": 10**self.args.wd}
        body = {"params": self.network.body(), "momentum": self.args.momentum, **sgd}
        top = self.network.top_layer
        return [body] if top is None else [body, {"params": top.parameters(), "reset": True, **sgd}]

    def relabel(self, run: Running) -> None:
        """Features → whitening → clusters → pseudo-labels, and a new top layer, as cluster numbers
        change from epoch to epoch."""
        self.previous = self.assignment
        auto = self.args.dim_pca == AUTO
        pca = self.auto_dim or AUTO if auto else self.args.dim_pca
        # 256 is the default, however few the images
        quiet = pca in (PCA, self.auto_dim, self._described)
        features = frozen_features(run, self.network, self.compute)
        found = fit_clusters(run, features, self.args, self.compute, pca, quiet)
        self.assignment, self.clustering_loss, self.clusters = found
        self.auto_dim = self.clusters.whitening.components if auto else None
        self._described = pca
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.args.seed, "top layer", run.epoch))
            self.network.top_layer = self._new_top_layer().to(self.compute.device)
        self._set_targets()

    def draw(self, epoch: int) -> np.ndarray:
        length = max(int(self.args.reassign * (self.assignment >= 0).sum()), 1)
        rng = np.random.default_rng(derive_seed(self.args.seed, "sampler", epoch))
        return ORDERS[self.args.sampler](self.assignment, length, rng)

    def before_step(self) -> None: ...

    def losses(self, forward: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy with the pseudo-labels."""
        target = self._targets[batch.index.to(self.compute.device, non_blocking=True)]
        with self.compute.autocast():
            logits = forward(to_input(batch.pixels, self.compute.device, self.network.std))
            return F.cross_entropy(logits, target, self._weights, reduction="none")

    def before_update(self) -> None: ...

    def after_step(self, batch: Batch) -> None: ...

    def metrics(self, labels: np.ndarray | None) -> dict[str, Any]:
        assert self.clusters is not None
        has_loss = CLUSTERINGS[self.clusters.algorithm].has_loss
        return {
            "kmeans_loss": self.clustering_loss if has_loss else None,
            "ln_k": math.log(self.k),
            **clustering_metrics(self.assignment, self.previous, labels, self.k),
            "unreadable": int((self.assignment < 0).sum()),
        }

    def advice(self, metrics: dict[str, Any]) -> list[str]:
        guessing = math.log(metrics["nonempty_clusters"])
        return check_loss(metrics["convnet_loss"], guessing, metrics["epoch"])

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "clustering_loss": self.clustering_loss,
            "auto_dim": self.auto_dim,
        }

    def load_state_dict(self, state: dict[str, Any], with_heads: bool) -> None:
        if "assignment" in state:  # the released checkpoints have none
            super().load_state_dict(state, with_heads)
            self.clustering_loss = state["clustering_loss"]
            self.auto_dim = state.get("auto_dim")
        if with_heads:
            self.network.top_layer = self._new_top_layer()
            self._set_targets()

    @classmethod
    def is_sound(cls, state: dict[str, Any], step: int) -> bool:
        return (
            super().is_sound(state, step)
            and 1 <= (state.get("auto_dim") or 1) <= PCA
            and (step == 0 or state["assignment"].max() < len(state["clusters"]["centroids"]))
        )

    def _new_top_layer(self) -> nn.Linear:
        return nn.Linear(self.network.embedding_dim, self.k).apply(initialise)

    def _set_targets(self) -> None:
        device, self._weights = self.compute.device, None
        # a blank image has number −1 and so takes the last label, which may be −1
        self._targets = torch.from_numpy(self.assignment.clip(min=0)).to(device)
        if self.args.reweight:
            found = cluster_weights(self.assignment, self.k)
            self._weights = torch.from_numpy(found).to(device)
