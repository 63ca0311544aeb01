"""SwAV's loss for now."""

import torch
from torch import Tensor

from cluster.sinkhorn import sinkhorn


def swapped_prediction_losses(
    scores: Tensor,
    crops: int,
    assign: list[int],
    temperature: float,
    epsilon: float,
    iterations: int,
    queued: Tensor | None = None,
) -> Tensor:
    """`swapped_prediction_loss` of each image, `(B,)`."""
    parts = scores.float().unflatten(0, (crops, -1))  # (crops, B, K)
    logs = (parts / temperature).log_softmax(dim=2)
    total = torch.zeros_like(logs[0, :, 0])
    for number, crop in enumerate(assign):
        rows = parts[crop].detach()
        before = rows[:0] if queued is None else queued[number]
        codes = sinkhorn(torch.cat([before, rows]), epsilon, iterations)[len(before) :]
        others = logs.sum(dim=0) - logs[crop]
        total = total - (codes * others).sum(dim=1) / (crops - 1)
    return total / len(assign)


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
    (SwAV, arXiv 2006.09882, equations 1, 2 and 6).

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
    return swapped_prediction_losses(
        scores, crops, assign, temperature, epsilon, iterations, queued
    ).mean()
