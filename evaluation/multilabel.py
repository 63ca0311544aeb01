"""Several labels for each image, as in VOC 2007: the loss and the average precisions.

Targets are `(N, 20)`: 1 for a class that the image shows, −1 for one that it does not, 0 for one
that does not count, because it is marked difficult.
"""

from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from data.voc import CLASSES, VocSplit
from evaluation.metrics import average_precision
from system.errors import InputError


def multilabel_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of logits `(N, 20)`: the sum over classes, the mean over images."""
    known, shown = (targets != 0).float(), (targets > 0).float()
    losses = F.binary_cross_entropy_with_logits(scores, shown, weight=known, reduction="sum")
    return losses / len(scores)


def average_precisions(scores: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    """`AP` by class, over the images whose target is not 0, and the mean, `mAP`.

    Args:
        scores: `(N, 20)`.
    """
    found = {}
    for name, own, target in zip(CLASSES, scores.T, targets.T, strict=True):
        known = target != 0
        found[name] = average_precision(own[known], target[known] > 0)
    return {"mAP": float(np.mean(list(found.values()))), "AP": found}


def check_classes(split: VocSplit, use: str) -> None:
    """Check that each class has an average precision.

    Args:
        use: the images' use, for the message, such as "trained on".

    Raises:
        InputError: no image shows a class.
    """
    for name, target in zip(CLASSES, split.targets.T, strict=True):
        if not (target > 0).any():
            raise InputError(
                f"{split.images.root}: none of the {len(target)} images that are {use} shows the "
                f"class {name}, so that it has no average precision"
            )
