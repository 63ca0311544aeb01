"""The optimisers of a run, new or resumed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.amp import GradScaler

from system.errors import InputError


def sgd(groups: Sequence[dict[str, Any]]) -> torch.optim.SGD:
    """SGD on a method's groups of parameters (see `methods.method.Method.groups`).

    Fused: one pass over the weights, which trains a third more images/s on a CPU.
    """
    return torch.optim.SGD(
        [{name: value for name, value in group.items() if name != "reset"} for group in groups],
        fused=True,
    )


def load_optimizer(
    optimizer: torch.optim.Optimizer, scaler: GradScaler, checkpoint: dict[str, Any], path: Path
) -> None:
    """Load the momenta, and in fp16 the loss scale, of a checkpoint. Rates stay this run's.

    Raises:
        InputError: they are missing or do not fit.
    """
    try:
        saved = checkpoint.get("grad_scaler")
        if scaler.is_enabled() and saved:  # empty if that run wasn't in fp16
            scaler.load_state_dict(saved)
        loaded = dict(checkpoint["optimizer"])
        own = optimizer.state_dict()["param_groups"]
        pairs = zip(own, list(loaded["param_groups"]), strict=True)
        groups = [{**group, "params": dict(other)["params"]} for group, other in pairs]
        optimizer.load_state_dict({"state": loaded["state"], "param_groups": groups})
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        momenta = [optimizer.state.get(p, {}).get("momentum_buffer") for p in parameters]
        if all(momentum is None for momentum in momenta):
            return
        for parameter, momentum in zip(parameters, momenta, strict=True):
            if momentum.shape != parameter.shape:  # None raises AttributeError
                raise ValueError(f"a momentum of {momentum.shape} for {parameter.shape}")
    except Exception as error:  # a malformed one can raise almost anything
        raise InputError(f"--resume {path}: its optimizer is missing or does not fit") from error
