"""DeeperCluster: rotations × clusters on two levels, for many images of any kind.

Caron, Bojanowski, Mairal and Joulin, "Unsupervised Pre-Training of Image Features on Non-Curated
Data", ICCV 2019. Every few epochs, the features of all images are clustered on two levels
(`relabel`). Each training image is turned by a multiple of 90° (`draw`). The super-cluster and the
rotation together are the super-class, which one head learns; each super-class has a head of its own
for the sub-clusters (`losses`). With one cluster, only the rotations are learned: RotNet (Gidaris,
Singh and Komodakis, ICLR 2018).
"""

import argparse
import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from cluster import components
from cluster.clusters import HIERARCHICAL, Clusters
from cluster.components import Components
from cluster.hierarchy import hierarchical_kmeans
from cluster.quality import clustering_metrics, super_metrics, unlabelled_metrics
from cluster.sampler import two_level_order
from cluster.whitening import Whitening
from data.loading import Batch
from data.transforms import random_crop, to_input
from methods import two_level_settings as settings
from methods.clustered import Clustered
from methods.fitted import log_dimensions
from methods.fitting import clusters_for
from methods.frozen import frozen_features, whitened_features
from methods.health import check_loss, check_overdriven, check_rotations
from methods.method import Running, Schedule
from methods.sharded import make_heads, with_own_rows
from methods.two_level import TwoLevelNet, two_level_losses
from methods.two_level_settings import TURNS, cluster_counts
from models import untrained
from parallel.collectives import all_reduce, gather_rows, rank, synchronised
from system.device import Compute
from system.errors import InputError
from system.seeding import derive_seed

__all__ = ["DeeperCluster", "two_level_losses"]


class DeeperCluster(Clustered):
    """The method and its network; attributes as in `methods.clustered.Clustered`.

    A cluster's number is super-cluster · `each` + sub-cluster; a super-class's is super-cluster ·
    `rotations` + quarter turns.

    Args:
        args: the flags of `main.py`.
        compute: device and precision.

    Attributes:
        super_clusters: their number m.
        each: K, number of sub-clusters of each.
        rotations: 4, or 1 without rotations.
    """

    schedule: Schedule | None = None
    order_settings: ClassVar[tuple[str, ...]] = ("nmb_cluster", "super_classes", "rotnet")
    form: ClassVar[dict[str, Any]] = {**Clustered.form, "heads": dict, "tally": list}
    algorithms: ClassVar[tuple[str, ...]] = ("Kmeans", HIERARCHICAL)

    def __init__(self, args: argparse.Namespace, compute: Compute) -> None:
        super().__init__(args, compute)
        counts = cluster_counts(args.super_classes, args.rotnet, args.nmb_cluster)
        self.super_clusters, self.each = counts
        self.rotations = TURNS if args.rotnet else 1
        self.network = untrained(args.arch, args.sobel, 2, args.seed, plain_linear=True)
        self.network.top_layer = None
        size = self.network.embedding_dim, args.super_classes, self.each
        self.heads = make_heads(args, *size, compute.device)
        self.heads.reset(args.seed, 0, with_super=True)
        self.net: nn.Module = TwoLevelNet(self.network, self.heads)
        if args.sync_bn == "pytorch":
            self.net = synchronised(self.net, compute.device)
        self.net = with_own_rows(self.net, self.heads)
        self._images_digest = ""  # of the images in the assignment
        self._remarked: str | None = None  # the last remark on the whitening
        self._tally = self._counted([0.0] * 4)

    @staticmethod
    def add_flags(parser: argparse.ArgumentParser) -> None:
        settings.add_flags(parser)

    @staticmethod
    def fit_settings(args: argparse.Namespace, images: int) -> list[str]:
        return settings.fit(args, images)

    @staticmethod
    def check_flags(args: argparse.Namespace, images: int, device: torch.device) -> None:
        settings.check(args, images)

    @property
    def trained(self) -> nn.Module:
        return self.net

    @property
    def k(self) -> int:
        """Number of clusters, empty ones included."""
        return self.super_clusters * self.each

    def view(self, size: int) -> v2.Transform:
        return random_crop(size)

    def groups(self) -> list[dict[str, Any]]:
        """The body and the super head; and the sub-heads, each of which learns from the mean over
        its own super-class, a part 1/S of the batch: S times the learning rate and 1/S of the
        weight decay are the same under SGD."""
        lr, decay, parts = self.args.lr, 10**self.args.wd, self.args.super_classes
        sgd = {"lr": lr, "momentum": self.args.momentum, "weight_decay": decay}
        return [
            {"params": self.network.body(), **sgd},
            {"params": self.heads.super.parameters(), **sgd},
            self.heads.group({**sgd, "lr": lr * parts, "weight_decay": decay / parts}),
        ]

    def relabel(self, run: Running) -> None:
        """Every `--reassignment` epochs, or if a resumed run has other images: features → whitening
        → clusters on two levels, and new heads."""
        self.previous = self.assignment
        self._tally = self._counted([0.0] * 4)
        probe = self.args.probe
        if self.k > 1 and self._is_due(run):
            self._reassign(run)
        elif probe and run.epoch % probe == 0:
            frozen_features(run, self.network, self.compute)
        if self.k == 1:
            self.assignment = np.zeros(run.image_count, np.int64)
        self._set_targets()

    def draw(self, epoch: int) -> np.ndarray:
        """Each image once on average, in one rotation; whole batches only."""
        rng = np.random.default_rng(derive_seed(self.args.seed, "sampler", epoch))
        levels = self.assignment // self.each, self.assignment % self.each
        shape = self.super_clusters, self.rotations
        return two_level_order(*levels, shape, len(self.assignment), self.args.batch, rng)

    def before_step(self) -> None: ...

    def losses(self, forward: nn.Module, batch: Batch) -> Tensor:
        """The sum of the cross-entropies of both levels."""
        device = self.compute.device
        index, turns = (each.to(device, non_blocking=True) for each in (batch.index, batch.turns))
        cluster = self._targets[index]
        super_target = cluster // self.each * self.rotations + turns
        with self.compute.autocast():
            scores = forward(to_input(batch.pixels, device, self.network.std), super_target)
            parts = self.heads.losses(scores, super_target, cluster % self.each)
        right = scores[0].argmax(dim=1) % self.rotations == turns
        real = index >= 0  # not a blank image
        counts = torch.stack([real, right & real, *(parts.detach() * real)])
        self._tally += counts.to(self._tally.dtype).sum(dim=1)
        return parts.sum(dim=0)

    def before_update(self) -> None: ...

    def after_step(self, batch: Batch) -> None: ...

    def finish(self, run: Running) -> np.ndarray:
        each = self.each if self.k > 1 else clusters_for(run.image_count)
        assignment, self.clusters, rows = self._cluster(run, self.args.final_dim_pca, each)
        self.unlabelled = unlabelled_metrics(rows, assignment[assignment >= 0])
        return assignment

    def metrics(self, labels: np.ndarray | None) -> dict[str, Any]:
        images, right, *losses = all_reduce(self._tally.cpu().double().numpy()).tolist()
        super_loss, sub_loss = (loss / max(images, 1) for loss in losses)
        m, previous = self.super_clusters, self.previous
        if self.k == 1:  # one cluster tells nothing
            labels = None
        if np.array_equal(previous, self.assignment):  # within a period, clusters stay the same
            previous = np.empty(0, np.int64)
        levels = super_metrics(self.assignment, self.each, m, labels)
        return {
            "kmeans_loss": None,
            "ln_k": math.log(self.args.super_classes) + math.log(self.each),
            **clustering_metrics(self.assignment, previous, labels, self.k),
            "super_clusters": levels if m > 1 else None,
            "rotation_accuracy": right / max(images, 1) if self.args.rotnet else None,
            "super_loss": super_loss,
            "sub_loss": sub_loss,
            "unreadable": int((self.assignment < 0).sum()),
        }

    def advice(self, metrics: dict[str, Any]) -> list[str]:
        loss, guessing, epoch = (metrics[name] for name in ("convnet_loss", "ln_k", "epoch"))
        found = check_overdriven(loss, guessing, epoch)
        found = found or check_rotations(metrics["rotation_accuracy"], epoch)
        if found or self.k == 1:
            return found
        return check_loss(loss, guessing, epoch, "ln S + ln K", "--reassignment")

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            **self.heads.to_plain(),
            "tally": all_reduce(self._tally.cpu().double().numpy()).tolist(),
        }

    def load_state_dict(self, state: dict[str, Any], with_heads: bool) -> None:
        """Heads live on between two clusterings, so they are always loaded."""
        super().load_state_dict(state, with_heads)
        self._images_digest = state["images_digest"]
        if rank() == 0:  # the sums of all processes
            self._tally = self._counted(state["tally"])
        try:
            self.heads.load_plain(state)
            if self.assignment.max(initial=-1) >= self.k:
                raise RuntimeError("more clusters than the heads have")
        except RuntimeError as error:
            raise InputError(
                f"--resume {self.args.resume}: its heads do not fit --super_classes "
                f"{self.args.super_classes}, --k {self.args.nmb_cluster} and --rotnet "
                f"{str(self.args.rotnet).lower()}"
            ) from error
        self._set_targets()

    @classmethod
    def is_sound(cls, state: dict[str, Any], step: int) -> bool:
        tally = np.array(state["tally"], np.float64)
        return (
            super().is_sound(state, step)
            and isinstance(state["images_digest"], str)
            and tally.shape == (4,)
            and bool(np.isfinite(tally).all())
            and all(weight.isfinite().all() for weight in state["heads"].values())
            and all(each.isfinite().all() for each in state.get("momentum", {}).values())
        )

    def _is_due(self, run: Running) -> bool:
        other_images = self._images_digest != run.images_digest
        return other_images or run.epoch % self.args.reassignment == 0

    def _reassign(self, run: Running) -> None:
        """New clusters and sub-heads. With a single super-cluster, the super-classes are rotations
        and keep their meaning, so the super head stays."""
        self.assignment, self.clusters, _ = self._cluster(run, self.args.dim_pca, self.each)
        self._images_digest = run.images_digest
        self._log_dimensions()
        with_super = self.super_clusters > 1
        self.heads.reset(self.args.seed, run.epoch, with_super)
        run.forget_momentum((self.heads if with_super else self.heads.sub).parameters())

    def _log_dimensions(self) -> None:
        """Log a remark on the whitening, if it is another than the last."""
        assert self.clusters is not None
        whitening, pca = self.clusters.whitening, self.args.dim_pca
        if isinstance(whitening, Whitening):
            rows, dim = int((self.assignment >= 0).sum()), len(whitening.mean)
            line = components.remark(pca, whitening.components, rows, dim)
            if line != self._remarked:
                log_dimensions(pca, line)
            self._remarked = line

    def _cluster(
        self, run: Running, pca: Components, each: int
    ) -> tuple[np.ndarray, Clusters, np.ndarray]:
        """The clusters of all images, `(N,) int64`, −1 for an unreadable one, by the features of
        upright images, with `each` sub-clusters in each super-cluster; and this process's whitened
        rows."""
        rows, present, whitening = whitened_features(run, self.network, self.compute, pca)
        m, updates = self.super_clusters, self.args.niter
        with run.stage("clustering", updates * (m + 1), "iterations") as advance:
            seed = derive_seed(self.args.seed, "k-means", run.epoch)
            device = self.compute.device
            found = hierarchical_kmeans(
                rows, m, each, updates, seed, device=device, advance=advance
            )
            everywhere = gather_rows(present)
            assignment = np.full(len(everywhere), -1, np.int64)
            assignment[everywhere] = gather_rows(found.super * each + found.sub)
        return assignment, Clusters.of_hierarchy(found, each, whitening, run.epoch), rows

    def _set_targets(self) -> None:
        # a blank image has number −1 and so takes the last label, which may be −1
        self._targets = torch.from_numpy(self.assignment.clip(min=0)).to(self.compute.device)

    def _counted(self, values: list[float]) -> Tensor:
        """Sums over the epoch's images so far: 1, whether the rotation was recognised, and the
        losses of both levels."""
        device = self.compute.device
        dtype = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        return torch.tensor(values, dtype=dtype, device=device)
