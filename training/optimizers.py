"""The optimisers of a run, new or resumed."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.amp import GradScaler

from system import cli
from system.errors import InputError


def add_flags(parser: argparse.ArgumentParser) -> None:
    """`--lr`, `--wd` and `--momentum`."""
    add = parser.add_argument
    add("--lr", type=cli.positive_number, default=0.05, help="learning rate")
    wd_help = "weight decay, as an exponent of ten: -5 for 1e-5"
    add("--wd", type=cli.number, default=-5.0, help=wd_help)
    add("--momentum", type=cli.fraction, default=0.9, help="momentum of the network's SGD")


def check_flags(args: argparse.Namespace) -> None:
    """Raise InputError if `--wd` is a weight decay and no exponent."""
    if args.wd > 0:
        raise InputError(
            f"--wd {args.wd:g}: is an exponent of ten; give -5 for a weight decay of 1e-5"
        )


def sgd(groups: Sequence[dict[str, Any]]) -> torch.optim.SGD:
    """SGD on a method's groups of parameters (see `methods.method.Method.groups`).

    Fused: one pass over the weights, which trains a third more images/s on a CPU.
    """
    return torch.optim.SGD(
        [{name: value for name, value in group.items() if name != "reset"} for group in groups],
        fused=True,
    )


class LARS(torch.optim.Optimizer):
    """SGD whose step of each tensor is in proportion to the tensor's norm (You, Gitman and
    Ginsburg, arXiv 1708.03888), by the rule with which SwAV and DeepCluster-v2 were trained.

    With a gradient g and a tensor p of norms above zero:

        g ← (g + wd·p) · trust·‖p‖ / (‖g‖ + wd·‖p‖ + eps)

    If either norm is zero, g stays as it is, without weight decay: so a batch norm's bias, which
    starts at zero, takes its first step unscaled. Then v ← momentum·v + g and p ← p − lr·v.
    Tensors without a gradient are left alone.

    Args:
        params: tensors, or groups of them.
        lr, momentum, weight_decay: of SGD.
        trust: the trust coefficient.
        eps: added to the denominator.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float,
        weight_decay: float,
        trust: float = 0.001,
        eps: float = 1e-8,
    ) -> None:
        settings = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, {**settings, "trust": trust, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step. `closure`, if given, computes the gradients and returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if tensors := [p for p in group["params"] if p.grad is not None]:
                self._update(tensors, group)
        return loss

    def _update(self, tensors: list[Tensor], group: dict[str, Any]) -> None:
        gradients: list[Any] = [p.grad for p in tensors]
        norms = torch.stack(torch._foreach_norm(tensors))
        lengths = torch.stack(torch._foreach_norm(gradients))
        both = (norms > 0) & (lengths > 0)
        decay = both * group["weight_decay"]
        scale = group["trust"] * norms / (lengths + decay * norms + group["eps"])
        scale = torch.where(both, scale, torch.ones_like(scale))  # for a number, a GPU waits
        scaled = torch._foreach_mul(tensors, list(decay))
        torch._foreach_add_(scaled, gradients)
        torch._foreach_mul_(scaled, list(scale))
        for p in tensors:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in tensors]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, scaled)
        torch._foreach_add_(tensors, buffers, alpha=-group["lr"])


def make_optimizer(groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
    """LARS for groups that have a `trust`, else SGD."""
    if "trust" not in groups[0]:
        return sgd(groups)
    return LARS(groups, **{name: groups[0][name] for name in ("lr", "momentum", "weight_decay")})


def load_optimizer(
    optimizer: torch.optim.Optimizer,
    scaler: GradScaler,
    checkpoint: dict[str, Any],
    path: Path,
    scheduled: bool,
) -> None:
    """Load the momenta, and in fp16 the loss scale, of a checkpoint. Settings stay this run's, but
    for rates that are `scheduled`: each step sets them, and a run without any more keeps the last.

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
        kept = ("params", "lr") if scheduled else ("params",)
        groups = [{**group, **{name: dict(other)[name] for name in kept}} for group, other in pairs]
        optimizer.load_state_dict({"state": loaded["state"], "param_groups": groups})
        for group in optimizer.param_groups:
            momenta = [optimizer.state.get(p, {}).get("momentum_buffer") for p in group["params"]]
            if all(momentum is None for momentum in momenta):
                continue  # nothing was trained yet, or this group is still frozen
            for parameter, momentum in zip(group["params"], momenta, strict=True):
                if momentum.shape != parameter.shape:  # None raises AttributeError
                    raise ValueError(f"a momentum of {momentum.shape} for {parameter.shape}")
    except Exception as error:  # a malformed one can raise almost anything
        raise InputError(f"--resume {path}: its optimizer is missing or does not fit") from error
