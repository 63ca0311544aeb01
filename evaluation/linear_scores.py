"""The loss and the scores of a classifier, for images with one label each or with several.

One label: targets `(B,) int64`. Several: `(B, C) int8`, see `multilabel.py`.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.multilabel import average_precisions, multilabel_loss
from parallel.collectives import all_reduce

CENTRE = 4  # which of ten crops is the central one
TOP = 5


def mean_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over the images of the cross-entropy, or of the binary cross-entropies' sum.

    Args:
        logits: `(B, C)`.
    """
    several = target.ndim == 2
    return multilabel_loss(logits, target) if several else F.cross_entropy(logits, target)


class Accuracy:
    """Adds up a classifier's hits and losses, for images with one label each.

    Args:
        labels: `(N,) int64` of all images, on the device.
    """

    def __init__(self, labels: Tensor) -> None:
        self.sums = torch.zeros(3, device=labels.device)

    def add(self, index: Tensor, logits: Tensor, target: Tensor) -> None:
        """Take the logits `(B, crops, C)` of images, given by number."""
        crops, classes = logits.shape[1:]
        # for a single crop compare logits: softmax rounds small scores to zero
        scores = logits.softmax(dim=2).mean(dim=1) if crops > 1 else logits[:, 0]
        ranked = scores.topk(min(TOP, classes)).indices
        hits = ranked == target[:, None]
        loss = F.cross_entropy(_central(logits), target, reduction="sum")
        self.sums += torch.stack([hits[:, 0].sum(), hits.sum(), loss]).float()

    def found(self, shown: int, readable: int) -> dict[str, Any]:
        """`top1` and `top5` of the shown images, and the `loss` of the readable ones, of all
        processes, which call this together."""
        top1, top5, loss = all_reduce(np.array(self.sums.tolist(), np.float64)).tolist()
        return {"top1": top1 / shown, "top5": top5 / shown, "loss": loss / readable}


class Precision:
    """Collects a classifier's logits, for images with several labels each.

    Args:
        labels: `(N, C) int8` of all images, on the device.
    """

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels
        self.rows = torch.zeros(len(labels), labels.shape[1] + 1, device=labels.device)
        self.loss = torch.zeros((), device=labels.device)

    def add(self, index: Tensor, logits: Tensor, target: Tensor) -> None:
        """Take the logits `(B, crops, C)` of images, given by number."""
        self.rows[index, :-1] = logits.mean(dim=1)
        self.rows[index, -1] = 1
        self.loss += multilabel_loss(_central(logits), target) * len(target)

    def found(self, shown: int, readable: int) -> dict[str, Any]:
        """`mAP`, `AP` by class, and the `loss` of the readable images, of all processes, which call
        this together. Unreadable images are ranked last."""
        rows = all_reduce(self.rows.cpu().double().numpy())
        scores = np.where(rows[:, -1:] > 0, rows[:, :-1], -np.inf)
        loss = all_reduce(np.array([self.loss.item()], np.float64)).item()
        return average_precisions(scores, self.labels.cpu().numpy()) | {"loss": loss / readable}


def _central(logits: Tensor) -> Tensor:
    """`(B, crops, C)` → `(B, C)`: those of the central crop."""
    return logits[:, CENTRE if logits.shape[1] == 10 else 0]
