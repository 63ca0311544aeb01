"""Signs that a network doesn't learn from its clusters: each check returns one line of advice, or
nothing."""

from typing import Any

LEAST_GAIN = 0.01
OVERDRIVEN = 1.05  # of the loss of guessing
COLLAPSED = 0.995  # of ln K, the loss of guessing
EVEN = 0.98  # of ln K, the entropy of codes
ALIKE = 0.9  # cosine
LEAST_USED = 0.1  # of the prototypes
MEMORISED = 0.05  # of ln K
FROZEN = 0.95  # NMI to the previous assignment
GUESSED = 0.27  # of the rotations; chance is a fourth
LEAST_FALL = 0.01  # of the accuracy of nearest neighbours


def check_loss(
    loss: float, guessing: float, epoch: int, name: str = "ln k", reassign: str = "--reassign"
) -> list[str]:
    """Warn if the mean convnet loss of an epoch is that of guessing.

    Skips the first epoch: the network has barely started to learn.

    Args:
        guessing: its loss, 0 with a single cluster.
        name: of this loss.
        reassign: the flag that says how long to train between two clusterings.
    """
    if epoch == 0 or guessing == 0 or loss < (1 - LEAST_GAIN) * guessing:
        return []
    return [
        f"the convnet loss {loss:.3f} is not below {name} = {guessing:.3f}, the loss of guessing: "
        "the network does not learn its clusters; if this lasts, try a lower --lr, fewer clusters "
        f"or more training between two reassignments ({reassign})"
    ]


def check_overdriven(loss: float, guessing: float, epoch: int) -> list[str]:
    """Warn if the mean convnet loss of an epoch, DeeperCluster's of both levels, is far above that
    of guessing. Skips the first epoch, as `check_loss` does."""
    if epoch == 0 or loss < OVERDRIVEN * guessing:
        return []
    return [
        f"the convnet loss {loss:.3f} is far above {guessing:.3f}, the loss of guessing: the steps "
        "are too large; if this lasts, start again with a lower --lr"
    ]


def check_collapse(metrics: dict[str, Any], warmup_epochs: int) -> list[str]:
    """Warn if SwAV's loss is that of guessing, and a second sign agrees: all codes are even, all
    embeddings are alike, or few prototypes are used.

    Args:
        metrics: the epoch's line of `metrics.jsonl`.
        warmup_epochs: epochs that are skipped; one at least, as an untrained network's embeddings
            are alike.
    """
    guessing, loss = metrics["ln_k"], metrics["window_loss"]
    early = metrics["epoch"] < max(warmup_epochs, 1)
    if early or loss is None or loss < COLLAPSED * guessing:
        return []
    entropy, cosine = metrics["code_entropy"], metrics["mean_cosine"]
    used, prototypes = metrics["nonempty_clusters"], metrics["clusters"]
    signs = {
        f"codes are even (entropy {entropy:.3f})": entropy > EVEN * guessing,
        f"embeddings of different images have a mean cosine of {cosine:.2f}": cosine > ALIKE,
        f"{used} of {prototypes} prototypes are used": used < LEAST_USED * prototypes,
    }
    if not (found := _present(signs)):
        return []
    return [
        f"SwAV has collapsed: its loss {loss:.3f} in the last steps is that of guessing, ln K = "
        f"{guessing:.3f}, and {found}; start again with a smaller --epsilon (such "
        "as 0.03), a larger --freeze_prototypes_niters or a lower --lr"
    ]


def check_memorised(metrics: dict[str, Any], best: float | None, probed: float | None) -> list[str]:
    """Warn if DeepCluster-v2 knows its labels by heart: the loss is near 0, and clusters no longer
    change, or nearest neighbours get worse.

    Args:
        metrics: the epoch's line of `metrics.jsonl`.
        best, probed: the best accuracy of nearest neighbours before, and that of this epoch, if
            they were probed.
    """
    loss, same = metrics["window_loss"], metrics["nmi_previous"]
    if loss is None or loss > MEMORISED * metrics["ln_k"]:
        return []
    fall = 0.0 if best is None or probed is None else best - probed
    signs = {
        f"clusters hardly change (NMI {same or 0:.3f} to the previous)": (same or 0) > FROZEN,
        f"nearest neighbours got worse by {fall:.3f}": fall > LEAST_FALL,
    }
    if not (found := _present(signs)):
        return []
    return [
        f"the labels are memorised: the loss {loss:.3f} in the last steps is near 0, and "
        f"{found}; give fewer --epochs, more clusters (--nmb_cluster) or smaller "
        "crops (--min_scale_crops)"
    ]


def check_rotations(accuracy: float | None, epoch: int) -> list[str]:
    """Warn if after two epochs or more the rotations are recognised no better than by guessing;
    None for the accuracy if images are not turned."""
    if accuracy is None or epoch < 1 or accuracy > GUESSED:
        return []
    return [
        f"the rotations are not learned: {accuracy:.3f} of them were recognised in epoch {epoch}, "
        "and guessing gives 0.250; try another --lr, or --rotnet false for images that have no "
        "upright side"
    ]


def _present(signs: dict[str, bool]) -> str:
    """The signs that are there, in words; empty if none is."""
    return ", and ".join(sign for sign, there in signs.items() if there)
