"""Learning rates that change with each iteration."""

import math


def warmup_cosine(
    iteration: int,
    per_epoch: int,
    epochs: int,
    base: float,
    final: float,
    warmup_epochs: int,
    start: float,
) -> float:
    """The learning rate of an iteration: first it rises in equal steps from `start` to `base`, both
    included; then it falls from `base` along half a cosine towards `final` (Loshchilov and Hutter,
    ICLR 2017, equation 5, without restarts), which the iteration after the last would have.

    Args:
        iteration: from 0 on, over all epochs.
        per_epoch: iterations in an epoch.
        epochs: in all.
        base, final, start: learning rates.
        warmup_epochs: epochs in which it rises.
    """
    warmup = per_epoch * warmup_epochs
    if iteration < warmup:
        return start + (base - start) * iteration / max(warmup - 1, 1)
    progress = (iteration - warmup) / max(per_epoch * epochs - warmup, 1)
    return final + (base - final) * (1 + math.cos(math.pi * progress)) / 2
