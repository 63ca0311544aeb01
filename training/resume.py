"""A run's state in a checkpoint. `--resume` reads it, checks that it fits, and loads it."""

import argparse
import math
import reprlib
from pathlib import Path
from typing import Any

import torch

from checkpoints.checkpoint import load_weights, network_entries, read_checkpoint, set_input
from checkpoints.torch_file import load_without_weights
from checkpoints.weights import has_sobel
from data.decode import MAX_PIXELS
from data.images import ImageList, check_alike
from methods.method import Method
from parallel.collectives import gather_objects
from system import cli
from system.device import Compute
from system.errors import InputError, shorten
from system.results import plain_settings
from training.optimizers import load_optimizer, make_optimizer
from training.slices import read_slices
from training.state import State

# Settings that the order of an epoch's draws depends on, with every method
ORDER_SETTINGS = ("batch", "seed")

# Settings of a single call, which don't change the result
OWN_SETTINGS = (
    "data", "device", "exp", "no_report", "resume", "start_epoch", "verbose", "workers",
)  # fmt: skip

# `--resume auto` without a checkpoint yet
AUTO = Path("auto")

# Keys of a checkpoint beside the method's, and their types; released checkpoints have none of them
FORM: dict[str, Any] = {
    "step": int,
    "iteration": int,
    "convnet_loss": list,
    "knn_top1": (dict, type(None)),
    "settings": dict,
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """`--start_epoch`, `--resume`, `--checkpoints` and `--keep`."""
    add = parser.add_argument
    start_help = "number of the first epoch; --resume sets it"
    add("--start_epoch", type=cli.whole_number(0), default=0, help=start_help)
    resume_help = (
        "checkpoint to resume from; auto: the newest in --exp, or from the start if there is none"
    )
    add("--resume", metavar="PATH", type=Path, help=resume_help)
    checkpoints_help = "iterations between two numbered checkpoints"
    add("--checkpoints", type=cli.whole_number(1), default=25000, help=checkpoints_help)
    keep_help = "number of numbered checkpoints to keep, the last ones; left out: all"
    add("--keep", metavar="N", type=cli.whole_number(1), help=keep_help)


def read_resume(
    args: argparse.Namespace, images: ImageList, method: type[Method]
) -> dict[str, Any] | None:
    """The checkpoint of `--resume`, or None.

    Raises:
        InputError: it can't be loaded, or doesn't fit these settings.
    """
    if args.resume in (None, AUTO):
        return None
    checkpoint = read_checkpoint(args.resume)
    if not {"step", "method"} & checkpoint.keys() and args.method != "deepcluster":
        raise InputError(
            f"--resume {args.resume}: is no checkpoint of a run; to start from its weights, give "
            "--init instead"
        )
    method_of = checkpoint.get("method", "deepcluster")
    if method_of != args.method:
        raise InputError(
            f"--resume {args.resume}: holds a run of --method {shorten(method_of)}, "
            f"not of {args.method}"
        )
    _check_form(checkpoint, args.resume, method)
    if checkpoint["arch"] != args.arch:
        raise InputError(
            f"--resume {args.resume}: holds a network of --arch {checkpoint['arch']}, "
            f"not of {args.arch}"
        )
    if has_sobel(checkpoint["state_dict"]) != args.sobel:
        found, advice = ("no ", "leave out") if args.sobel else ("", "add")
        raise InputError(
            f"--resume {args.resume}: its network has {found}Sobel filters; {advice} --sobel"
        )
    if checkpoint.get("step", 0) > 0:
        _check_order(args, checkpoint, images, method)
    read_slices(checkpoint, args.resume)
    return checkpoint


def is_finished(checkpoint: dict[str, Any], epochs: int) -> bool:
    """Whether a run has trained all epochs, and has the finished network's clusters."""
    clusters = checkpoint.get("clusters")
    released = "step" not in checkpoint  # has no clusters
    fresh = released if clusters is None else clusters["epoch"] == checkpoint["epoch"]
    return checkpoint["epoch"] > epochs or (checkpoint["epoch"] == epochs and fresh)


def settings_of(path: Path) -> dict[str, Any]:
    """The settings in a checkpoint, which a resumed run keeps unless flags change them. A file that
    isn't a run's checkpoint has none; `read_resume` reports it. Reads no weights."""
    try:
        settings = dict(load_without_weights(path)["settings"])
    except Exception:  # damaged bytes make an unpickler raise almost anything
        return {}
    most = settings.get("max_pixels")
    if isinstance(most, int) and most > MAX_PIXELS:
        del settings["max_pixels"]  # only the flag raises the limit, not a file from elsewhere
    return {name: value for name, value in settings.items() if name not in OWN_SETTINGS}


def check_same_place(
    args: argparse.Namespace, checkpoint: dict[str, Any] | None, images: ImageList
) -> None:
    """Raise InputError unless all processes resume at the same epoch and batch, with the same
    images."""
    check_alike(images)
    place = None if checkpoint is None else (checkpoint["epoch"], checkpoint.get("step", 0))
    places = gather_objects(place)
    if len(set(places)) > 1:
        found = ", ".join("none" if place is None else "{}/{}".format(*place) for place in places)
        raise InputError(
            f"--resume {args.resume}: is not at the same epoch/batch for all processes ({found}); "
            "do they all see the same files?"
        )


def _check_form(checkpoint: dict[str, Any], path: Path, method: type[Method]) -> None:
    epoch = checkpoint.get("epoch")
    if type(epoch) is not int or epoch < 0:
        raise InputError(
            f"--resume {path}: its epoch is {reprlib.repr(epoch)}, not a whole number from 0 on"
        )
    if "step" not in checkpoint and "method" not in checkpoint:
        return  # a released one
    for name, kind in {**FORM, **method.form}.items():
        value = checkpoint.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(f"--resume {path}: its {name!r} is missing or malformed")
    try:
        fits = _is_sound(State.from_plain(checkpoint))
        fits = fits and method.is_sound(checkpoint, checkpoint["step"])
    except Exception:  # a malformed one can raise almost anything
        fits = False
    if not fits:
        raise InputError(f"--resume {path}: its place in the run is malformed")


def _is_sound(state: State) -> bool:
    near, loss = state.knn_top1 or {}, state.convnet_loss
    return (
        isinstance(loss.sum, int | float)
        and type(loss.count) is int
        and math.isfinite(loss.avg)
        and min(state.step, state.iteration) >= 0
        and all(isinstance(count, str) and 0 <= top1 <= 1 for count, top1 in near.items())
    )


def _check_order(
    args: argparse.Namespace, checkpoint: dict[str, Any], images: ImageList, method: type[Method]
) -> None:
    """Check that an unfinished epoch continues with the same draws."""
    before = {**checkpoint["settings"], "images": len(checkpoint["assignment"])}
    now = {**vars(args), "images": len(images)}
    for name in (*sorted({*ORDER_SETTINGS, *method.order_settings}), "images"):
        if now[name] != before.get(name):
            flag = name if name == "images" else f"--{name}"
            raise InputError(
                f"--resume {args.resume}: was saved mid-epoch with {flag} "
                f"{before.get(name)} and can't resume with {now[name]}"
            )
    if checkpoint.get("images_digest") != images.digest:
        raise InputError(
            f"--resume {args.resume}: was saved mid-epoch and can't resume with {args.data}, "
            "whose images have other names or another order"
        )


def set_up(
    args: argparse.Namespace, method: Method, compute: Compute, checkpoint: dict[str, Any] | None
) -> tuple[State, torch.optim.Optimizer]:
    """The state and the optimiser of the network's body, new or loaded from a checkpoint together
    with the weights.

    The top layer is loaded only mid-epoch, or if nothing is left to train: each epoch makes a new
    one.

    Raises:
        InputError: the checkpoint doesn't fit.
    """
    state = State(args.start_epoch) if checkpoint is None else State.from_plain(checkpoint)
    if checkpoint is not None:
        with_heads = state.step > 0 or state.epoch >= args.epochs
        method.load_state_dict(checkpoint, with_heads)
        weights = checkpoint["state_dict"]
        if not with_heads:
            weights = {n: w for n, w in weights.items() if not n.startswith("top_layer.")}
        load_weights(method.network, weights, args.resume)
        set_input(method.network, checkpoint)
    method.trained.to(compute.device).to(memory_format=torch.channels_last)
    optimizer = make_optimizer([group for group in method.groups() if not group.get("reset")])
    state.scaler = compute.grad_scaler()
    if checkpoint is not None:
        scheduled = method.schedule is not None
        load_optimizer(optimizer, state.scaler, checkpoint, args.resume, scheduled)
    return state, optimizer


def to_checkpoint(
    args: argparse.Namespace,
    images: ImageList,
    state: State,
    optimizer: torch.optim.Optimizer,
    method: Method,
) -> dict[str, Any]:
    """All that a run needs to resume bit for bit (`checkpoints/__init__.py` has the layout)."""
    return {
        **state.to_plain(),
        "method": args.method,
        **network_entries(method.network),
        "optimizer": optimizer.state_dict(),
        **method.state_dict(),
        "images_digest": images.digest,
        "settings": plain_settings(vars(args)),
    }
