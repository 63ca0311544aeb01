"""`--init`: a new run that starts from the weights of another network. `--freeze`: its first stages
keep their weights for a while."""

import argparse
import logging
from pathlib import Path
from typing import Any

import torch

from checkpoints.checkpoint import load_weights, set_input
from checkpoints.networks import init_checkpoint
from checkpoints.released import as_checkpoint, describe
from checkpoints.torch_file import load_torch_file
from checkpoints.weights import has_sobel, some
from models import MODELS, ConvNet
from models.timm_names import timm_name
from system import cli, flags
from system.errors import InputError

log = logging.getLogger("deepcluster")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """`--init`, `--key`, `--freeze` and `--freeze_epochs`."""
    add = parser.add_argument
    init_help = (
        "start a new run from the network in this file, which may be another program's, or from "
        "timm:NAME, with a new top layer or new heads; --arch and --sobel are the network's; left "
        "out: random weights"
    )
    add("--init", metavar="FILE", type=Path, help=init_help)
    flags.add_key(parser)
    freeze_help = (
        "the first N conv layers (of a ResNet: the stem, then its stages) keep their weights and "
        "batch-norm statistics in the first epochs"
    )
    number = cli.whole_number(0)
    add("--freeze", metavar="N", type=number, default=0, help=freeze_help)
    epochs_help = "number of epochs for which --freeze holds, from epoch 0 on"
    add("--freeze_epochs", metavar="E", type=number, default=1, help=epochs_help)


def network_flags(path: Path, key: str | None) -> dict[str, Any]:
    """`arch` and `sobel` of the network in a file; empty if it can't be read, which `read_init`
    reports."""
    try:
        if timm_name(path):
            state = init_checkpoint(path, key)
        else:  # without `read_checkpoint`'s warnings, which `read_init` gives
            state = as_checkpoint(load_torch_file(path), path, key)
    except InputError:
        return {}
    return {"arch": state["arch"], "sobel": has_sobel(state["state_dict"])}


def read_init(
    args: argparse.Namespace, resumed: dict[str, Any] | None = None
) -> dict[str, Any] | None:
    """The checkpoint of `--init`; None without the flag, and for a resumed run, which has its own
    weights.

    Args:
        resumed: the checkpoint of `--resume`, if there is one.

    Raises:
        InputError: the file can't be read, or its network isn't one of `--arch` and `--sobel`;
            the resumed run started from another file; or there are fewer stages than `--freeze`.
    """
    if args.freeze:
        _check_freeze(args)
    if args.init is None:
        if args.network_key is not None:
            raise InputError(f"--key {args.network_key}: names a network of --init; add --init")
        return None
    if resumed is not None:
        before = resumed.get("settings", {}).get("init")
        if before != str(args.init):
            began = "random weights" if before is None else before
            raise InputError(
                f"--init {args.init}: the run of --resume started from {began}; leave out --init"
            )
        return None
    state = init_checkpoint(args.init, args.network_key)
    if state["arch"] != args.arch:
        raise InputError(
            f"--init {args.init}: holds a network of --arch {state['arch']}, not of {args.arch}; "
            "leave out --arch"
        )
    if args.sobel and not has_sobel(state["state_dict"]):
        raise InputError(f"--init {args.init}: its network has no Sobel filters; leave out --sobel")
    return state


def take_weights(network: ConvNet, state: dict[str, Any], path: Path) -> str:
    """Copy the weights of a checkpoint, all but the top layer's, and the `std` and `margin` that
    they go with, into a network without top layer.

    Returns:
        A line on what was taken and what was not.

    Raises:
        InputError: weights are missing, or don't fit.
    """
    weights = {n: w for n, w in state["state_dict"].items() if not n.startswith("top_layer.")}
    load_weights(network, weights, path)
    set_input(network, state)
    rest = [name for name in state["state_dict"] if name not in weights]
    but = f", not {some(rest)}" if rest else ""
    return (
        f"--init {path}: {describe(state)}; took {len(weights)} tensors{but}; heads, momenta and "
        "clusters are new"
    )


def hold_stages(
    args: argparse.Namespace, epoch: int, network: ConvNet, optimizer: torch.optim.Optimizer
) -> None:
    """Freeze or free the network's first stages, as `--freeze` says of an epoch. Call it before the
    network is wrapped for several processes.

    Frozen weights have no gradient, and so neither decay nor momentum. All momenta start as zeros,
    which trains the same: so a checkpoint has all of them.
    """
    if args.freeze == 0:
        return
    stages = args.freeze if epoch < args.freeze_epochs else 0
    network.freeze(stages)
    if stages:
        log.info("epoch %d: stages 1 to %d keep their weights", epoch, stages)
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get("momentum") else ():
            state = optimizer.state[parameter]
            if not parameter.requires_grad or state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            if not parameter.requires_grad:
                parameter.grad = None


def _check_freeze(args: argparse.Namespace) -> None:
    with torch.device("meta"):
        stages = MODELS[args.arch](sobel=args.sobel).conv_layers
    if args.freeze > stages:
        raise InputError(f"--freeze {args.freeze}: {args.arch} has {stages} stages; give fewer")
