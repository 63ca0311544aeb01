"""DeepCluster-v2: classify the crops of an image by the cluster of its last embedding.

Caron, Misra, Mairal, Goyal, Bojanowski and Joulin, "Unsupervised Learning of Visual Features by
Contrasting Cluster Assignments", NeurIPS 2020, appendix. Embeddings of the training crops are kept
in a memory. Before each epoch, spherical k-means of the memory gives each image a label for each
head; the centroids are the head's prototypes, which gradients do not change.
"""

import argparse
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cluster.spherical import UPDATES, spherical_kmeans
from data.batch import blank_batch
from data.loading import Batch
from methods.fitting import fit_shared
from methods.health import check_memorised
from methods.memory import Memory
from methods.method import Running
from methods.multicrop import MultiCropMethod
from parallel.collectives import add_up
from system import cli
from system.device import Compute
from system.seeding import derive_seed

HEADS = 3
MEMORIES = ("float32", "float16")


class DeepClusterV2(MultiCropMethod):
    """The method and its network; attributes as in `methods.method.Method`.

    `assignment` is that of the first head.
    """

    form: ClassVar[dict[str, Any]] = {
        **MultiCropMethod.form,
        "memory": dict,
        "targets": torch.Tensor,
    }

    def __init__(self, args: argparse.Namespace, compute: Compute) -> None:
        super().__init__(args, compute, args.nmb_prototypes, learned=False)
        self._memory: Memory | None = None
        self._images_digest = ""  # of the images in the memory
        self._targets = torch.empty(len(args.nmb_prototypes), 0, dtype=torch.int64)

    @staticmethod
    def add_flags(parser: argparse.ArgumentParser) -> None:
        """Flags for the crops, the heads, the optimiser and the memory."""
        MultiCropMethod.add_shared_flags(parser)
        add = parser.add_argument_group("DeepCluster-v2").add_argument
        prototypes_help = f"clusters of each head; left out: --nmb_cluster for each of {HEADS}"
        add("--nmb_prototypes", type=cli.whole_number(2), nargs="+", help=prototypes_help)
        empty_help = "an empty cluster keeps its centroid, or takes half of the largest cluster"
        add("--empty", choices=["keep", "split"], default="keep", help=empty_help)
        memory_help = "type of the embeddings in the memory; float16 takes half the room"
        add("--memory", choices=MEMORIES, default="float32", help=memory_help)

    @staticmethod
    def fit_settings(args: argparse.Namespace, images: int) -> list[str]:
        lines = fit_shared(args, images)
        if args.nmb_prototypes is None:
            args.nmb_prototypes = [args.nmb_cluster] * HEADS
        return lines

    @staticmethod
    def check_flags(args: argparse.Namespace, images: int, device: torch.device) -> None:
        MultiCropMethod.check_shared_flags(args, images, device, max(args.nmb_prototypes))

    def find_targets(self, run: Running) -> None:
        """Fill the memory, before the first epoch and if a resumed run has other images; then
        cluster it."""
        if self._memory is None or self._images_digest != run.images_digest:
            self._memory = self._new_memory(run.image_count)
            self._images_digest = run.images_digest
            self._fill(run, self._memory)
        counts, device = self.args.nmb_prototypes, self.compute.device
        self._targets = torch.empty(len(counts), run.image_count, dtype=torch.int64)
        with run.stage("clustering", UPDATES * len(counts), "iterations") as advance:
            for head, layer in enumerate(self.heads.prototype_sets()):
                bank = head % len(self.assign)
                seed = derive_seed(self.args.seed, "spherical k-means", run.epoch, head)
                first = self._memory.draw(counts[head], bank, np.random.default_rng(seed))
                found, centroids = spherical_kmeans(
                    self._memory.bank(bank),
                    first,
                    split_empty=self.args.empty == "split",
                    device=device,
                    advance=advance,
                )
                self._targets[head] = torch.from_numpy(self._memory.of_all(found))
                with torch.no_grad():
                    layer.weight.copy_(torch.from_numpy(centroids))
        self._use_targets()

    def before_step(self) -> None: ...

    def before_update(self) -> None: ...

    def losses_of(self, scores: list[Tensor], index: Tensor) -> Tensor:
        """Cross-entropy of every crop with its image's cluster, the mean over heads and crops."""
        targets = self._on_device[:, index.to(self.compute.device, non_blocking=True)]
        known = (targets[0] >= 0).float()
        losses = torch.zeros_like(known)
        for target, parts in zip(targets.clamp(min=0), scores, strict=True):
            logits = (parts / self.args.temperature).permute(1, 2, 0)  # (B, K, crops)
            same = target[:, None].expand(-1, len(parts))
            losses = losses + F.cross_entropy(logits, same, reduction="none").mean(dim=1)
        # images without a cluster have no loss; those with one, in all processes, weigh more for it
        images, clustered = add_up(torch.stack([torch.ones_like(known), known]).sum(dim=1))
        losses = losses * known * (images / clustered.clamp(min=1)) / len(scores)
        self.note_health(losses)
        return losses

    def after_step(self, batch: Batch) -> None:
        assert self._memory is not None
        self._memory.write(batch.index[batch.index >= 0], self.assigned_rows())

    def advice(self, metrics: dict[str, Any]) -> list[str]:
        best, probed = self._best, None
        if metrics["knn_top1"]:
            probed = max(metrics["knn_top1"].values())
            self._best = max(probed, best or 0.0)
        return check_memorised(metrics, best, probed)

    def state_dict(self) -> dict[str, Any]:
        assert self._memory is not None
        memory = self._memory.to_plain()
        return {**super().state_dict(), "memory": memory, "targets": self._targets}

    def load_state_dict(self, state: dict[str, Any], with_heads: bool) -> None:
        super().load_state_dict(state, with_heads)
        memory, targets, args = state["memory"], state["targets"], self.args
        if memory["rows"].shape[1:] != (len(self.assign), args.feat_dim):
            raise self.misfit("memory does not fit", "crops_for_assign", "feat_dim")
        clusters = torch.tensor(args.nmb_prototypes)
        if len(targets) != len(clusters) or (targets >= clusters[:, None]).any():
            raise self.misfit("targets do not fit", "nmb_prototypes")
        self._memory = self._new_memory(len(memory["known"]))
        self._images_digest = state["images_digest"]
        self._memory.load(memory)
        self._targets = targets
        self._use_targets()

    @classmethod
    def is_sound(cls, state: dict[str, Any], step: int) -> bool:
        rows, known = state["memory"]["rows"], state["memory"]["known"]
        targets, images = state["targets"], len(state["assignment"])
        return (
            super().is_sound(state, step)
            and targets.shape[1:] == known.shape == rows.shape[:1] == (images,)
            and (targets.dtype, known.dtype) == (torch.int64, torch.bool)
            and rows.dtype in (torch.float32, torch.float16)
            and int(targets.min()) >= -1
            and bool(rows.isfinite().all())
        )

    def _new_memory(self, images: int) -> Memory:
        args = self.args
        return Memory(images, len(self.assign), args.feat_dim, np.dtype(args.memory))

    def _use_targets(self) -> None:
        self._on_device = self._targets.to(self.compute.device)
        self.assignment = self._targets[0].numpy()

    @torch.no_grad()
    def _fill(self, run: Running, memory: Memory) -> None:
        """One pass over all images in training mode, each clustered crop by itself. The last batch
        is filled up with images of the first, whose embeddings are left out."""
        rng = np.random.default_rng(derive_seed(self.args.seed, "memory"))
        order = rng.permutation(run.image_count)
        again = order[: -len(order) % self.args.batch]
        whole = len(order) // self.args.batch
        self.net.train()
        with run.augmented_pass(np.concatenate([order, again])) as batches:
            for number, batch in enumerate(batches):
                if len(batch.index) < 2:  # too few for batch norm, which may wait for all processes
                    batch = blank_batch(batch.pixels.new_empty(self.crops.packed), 2)
                kept = batch.index >= 0
                if number == whole:
                    kept &= ~torch.isin(batch.index, torch.from_numpy(again))
                memory.write(batch.index[kept], self._embed(batch)[kept.to(self.compute.device)])

    def _embed(self, batch: Batch) -> Tensor:
        """The embeddings `(B, assign, d)` of the crops that are clustered."""
        crops = [crop for group in self.inputs(batch) for crop in group.split(len(batch.index))]
        with self.compute.autocast():
            return torch.stack([self.net([crops[crop]])[0] for crop in self.assign], dim=1)
