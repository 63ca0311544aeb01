"""SwAV: predict the code of one crop of an image from its other crops.

Caron, Misra, Mairal, Goyal, Bojanowski and Joulin, "Unsupervised Learning of Visual Features by
Contrasting Cluster Assignments", NeurIPS 2020. Codes are soft assignments of a batch to prototypes,
which Sinkhorn-Knopp spreads equally. Prototypes are learned with the network.
"""

import argparse
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cluster.sinkhorn import sinkhorn
from data.loading import Batch
from methods.fitting import fit_queue, fit_shared
from methods.health import check_collapse
from methods.method import Running
from methods.multicrop import MultiCropMethod
from methods.queue import Queue
from parallel.collectives import gather_rows
from system import cli
from system.device import Compute, full_float32
from system.errors import InputError


class SwAV(MultiCropMethod):
    """The method and its network; attributes as in `methods.method.Method`.

    `assignment` is each image's prototype of the highest score, of the epoch's first crop.
    """

    form: ClassVar[dict[str, Any]] = {
        **MultiCropMethod.form,
        "queue": (torch.Tensor, type(None)),
        "steps": int,
    }
    signs: ClassVar[tuple[str, ...]] = (*MultiCropMethod.signs, "code_entropy")

    def __init__(self, args: argparse.Namespace, compute: Compute) -> None:
        super().__init__(args, compute, [args.nmb_prototypes], learned=True)
        self.steps = 0
        (self.prototypes,) = self.heads.prototype_sets()
        self._queue: Queue | None = None
        self._seen: list[tuple[Tensor, Tensor]] = []  # images, and their prototypes

    @staticmethod
    def add_flags(parser: argparse.ArgumentParser) -> None:
        """Flags for the crops, the heads, the optimiser, the codes and the queue."""
        MultiCropMethod.add_shared_flags(parser)
        add = parser.add_argument_group("SwAV").add_argument
        prototypes_help = "number of prototypes; left out: --nmb_cluster"
        add("--nmb_prototypes", type=cli.whole_number(2), help=prototypes_help)
        freeze_help = "first iterations in which the prototypes are not learned; left out: an epoch"
        add("--freeze_prototypes_niters", type=cli.whole_number(0), help=freeze_help)
        epsilon_help = (
            "sharpness of the codes: the smaller, the sharper; try 0.03 if the loss stays "
        )
        epsilon_help += "at ln K"
        add("--epsilon", type=cli.positive_number, default=0.05, help=epsilon_help)
        sinkhorn_help = "rounds that spread the codes of a batch equally over the prototypes"
        add("--sinkhorn_iterations", type=cli.whole_number(1), default=3, help=sinkhorn_help)
        queue_help = (
            "earlier samples that join a batch in the codes; 0: none; left out: enough for "
        )
        queue_help += "the number of prototypes"
        add("--queue_length", type=cli.whole_number(0), help=queue_help)
        starts_help = "epoch from which on the queue is filled; left out: a tenth of the epochs, "
        starts_help += "15 at most"
        add("--epoch_queue_starts", type=cli.whole_number(0), help=starts_help)

    @staticmethod
    def fit_settings(args: argparse.Namespace, images: int) -> list[str]:
        lines = fit_shared(args, images)
        if args.nmb_prototypes is None:
            args.nmb_prototypes = args.nmb_cluster
        return lines + fit_queue(args, images)

    @staticmethod
    def check_flags(args: argparse.Namespace, images: int, device: torch.device) -> None:
        MultiCropMethod.check_shared_flags(args, images, device, args.nmb_prototypes)
        if sum(args.nmb_crops) < 2:
            raise InputError("--nmb_crops 1: the code of a crop needs another one; give 2 or more")
        if 0 < args.queue_length < args.batch:
            raise InputError(
                f"--queue_length {args.queue_length}: less than one batch; give {args.batch} "
                "(one batch) or more, or 0 for no queue"
            )

    def find_targets(self, run: Running) -> None:
        """Start a new assignment, and the queue; codes are made of each batch."""
        self.assignment = np.full(run.image_count, -1, np.int64)
        args = self.args
        if self._queue is None and args.queue_length and run.epoch >= args.epoch_queue_starts:
            self._queue = self._new_queue(torch.zeros(0, len(self.assign), args.feat_dim))

    def before_step(self) -> None:
        """Prototypes to unit length."""
        weight = self.prototypes.weight
        with torch.no_grad():
            weight.copy_(F.normalize(weight))

    def losses_of(self, scores: list[Tensor], index: Tensor) -> Tensor:
        args, (parts,) = self.args, scores
        queued = None
        if self._queue is not None and self._queue.is_full:
            with full_float32():
                queued = self._queue.rows.transpose(0, 1) @ self.prototypes.weight.detach().T
        settings = args.temperature, args.epsilon, args.sinkhorn_iterations
        losses, codes = swap(parts, self.assign, *settings, queued)
        entropies = torch.special.entr(codes).sum(dim=2)
        self.note_health(losses, entropies.mean(dim=0))
        self._found = parts[self.assign[0]].argmax(dim=1)
        return losses

    def before_update(self) -> None:
        if self.steps < self.args.freeze_prototypes_niters:
            self.prototypes.weight.grad = None

    def after_step(self, batch: Batch) -> None:
        self.steps += 1
        if self._queue is not None:
            self._queue.push(self.assigned_rows())
        self._seen.append((batch.index[batch.index >= 0], self._found))

    def metrics(self, labels: np.ndarray | None) -> dict[str, Any]:
        self._gather_assignment()
        drawn = len(self.draw(0))  # the others have no prototype in this epoch
        unreadable = drawn - int((self.assignment >= 0).sum())
        return {**super().metrics(labels), "unreadable": unreadable}

    def advice(self, metrics: dict[str, Any]) -> list[str]:
        return check_collapse(metrics, self.args.warmup_epochs)

    def state_dict(self) -> dict[str, Any]:
        self._gather_assignment()
        queue = None if self._queue is None else self._queue.to_plain()
        return {**super().state_dict(), "queue": queue, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any], with_heads: bool) -> None:
        super().load_state_dict(state, with_heads)
        self.steps = state["steps"]
        queue = state["queue"]
        if queue is not None:
            if queue.shape[1:] != (len(self.assign), self.args.feat_dim):
                raise self.misfit("queue does not fit", "crops_for_assign", "feat_dim")
            self._queue = self._new_queue(queue)

    @classmethod
    def is_sound(cls, state: dict[str, Any], step: int) -> bool:
        queue = torch.zeros(0, 0, 0) if state["queue"] is None else state["queue"]
        return (
            super().is_sound(state, step)
            and state["steps"] >= 0
            and (queue.ndim, queue.dtype) == (3, torch.float32)
            and bool(queue.isfinite().all())
        )

    def _new_queue(self, rows: Tensor) -> Queue:
        return Queue(self.args.queue_length, rows.to(self.compute.device))

    def _gather_assignment(self) -> None:
        """Bring together which prototypes all processes have found since the last time."""
        index = [index.numpy() for index, _ in self._seen]
        found = [found.cpu().numpy() for _, found in self._seen]
        none = np.empty(0, np.int64)
        self.assignment[gather_rows(np.concatenate([none, *index]))] = gather_rows(
            np.concatenate([none, *found])
        )
        self._seen.clear()


def swap(
    parts: Tensor,
    assign: list[int],
    temperature: float,
    epsilon: float,
    iterations: int,
    queued: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The loss of each image, `(B,)`, and its codes, `(len(assign), B, K)`.

    Args:
        parts: `(crops, B, K)`, cosines with the prototypes.
        Others: as for `swapped_prediction_loss`.
    """
    parts = parts.float()
    logs = (parts / temperature).log_softmax(dim=2)
    total, codes = torch.zeros_like(logs[0, :, 0]), []
    for number, crop in enumerate(assign):
        rows = parts[crop].detach()
        before = rows[:0] if queued is None else queued[number]
        codes.append(sinkhorn(torch.cat([before, rows]), epsilon, iterations)[len(before) :])
        others = logs.sum(dim=0) - logs[crop]
        total = total - (codes[-1] * others).sum(dim=1) / (len(parts) - 1)
    return total / len(assign), torch.stack(codes)


def swapped_prediction_loss(
    scores: Tensor,
    crops: int,
    assign: list[int],
    temperature: float,
    epsilon: float,
    iterations: int,
    queued: Tensor | None = None,
) -> Tensor:
    """The codes of each crop in `assign` are predicted from every other crop of the same image
    (SwAV, arXiv 2006.09882).

    Args:
        scores: `(crops · B, K)`, cosines with the prototypes: B rows of crop 0, then of crop 1, ….
        crops: number of crops of each image.
        assign: the crops whose codes are predicted.
        temperature: of the softmax.
        epsilon, iterations: of `sinkhorn`.
        queued: `(len(assign), Q, K)`, the scores of earlier samples, which join the batch in
            `sinkhorn`.

    Returns:
        The mean over the images, a scalar.
    """
    parts = scores.unflatten(0, (crops, -1))
    losses, _ = swap(parts, assign, temperature, epsilon, iterations, queued)
    return losses.mean()
