"""Sinkhorn-Knopp: scores of a batch → soft codes that use all prototypes equally."""

import torch
from torch import Tensor

from parallel.collectives import add_up, take_max


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """The codes of a batch (SwAV, arXiv 2006.09882).

    Starts from exp(scores / ε). Each iteration scales each column, so that all prototypes have the
    same mass in the batch, then each row, so that it sums to 1. All in the log domain: no ε is too
    small. Under torchrun the batch is that of all processes, whose rows are equal to those of one
    process with the whole batch.

    Args:
        scores: `(B, K)`, cosines of B samples with K prototypes. A process may have no rows.
        epsilon: ε; the smaller, the nearer the codes are to 0 and 1.
        iterations: 3 in the paper.

    Returns:
        `(B, K) float32`.
    """
    logs = scores.float() / epsilon
    for _ in range(iterations):
        logs = logs - _log_sum_of_columns(logs)
        logs = logs - logs.logsumexp(dim=1, keepdim=True)
    return logs.exp()


def _log_sum_of_columns(logs: Tensor) -> Tensor:
    """log Σ exp over the rows of all processes, `(K,)`."""
    lowest = logs.new_full((1, logs.shape[1]), -torch.inf)  # of a process without rows
    peak = take_max((logs if len(logs) > 0 else lowest).amax(dim=0))
    return add_up((logs - peak).exp().sum(dim=0)).log() + peak
