"""Where a run stands: what a checkpoint holds, and how a run goes on from one."""

import argparse
import math
import reprlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.amp import GradScaler

from checkpoints.checkpoint import load_weights, read_checkpoint
from checkpoints.released import has_sobel
from checkpoints.torch_file import load_mapped
from cluster.clusters import Clusters
from data.decode import MAX_PIXELS
from data.images import ImageList
from models import ConvNet, untrained
from system.device import Compute
from system.errors import InputError
from system.results import plain_settings

# Settings that the order of an epoch's draws depends on.
ORDER_SETTINGS = ("batch", "nmb_cluster", "reassign", "sampler", "seed")

# Settings of one call, which say where and how it works but not what it computes.
OWN_SETTINGS = (
    "data", "device", "exp", "no_report", "resume", "start_epoch", "verbose", "workers",
)  # fmt: skip

# `--resume auto`, where there is no checkpoint yet
AUTO = Path("auto")

# What a run goes on from, beside what every checkpoint has; the released ones have none of it.
FORM: dict[str, Any] = {
    "step": int,
    "iteration": int,
    "assignment": torch.Tensor,
    "previous": torch.Tensor,
    "clusters": (dict, type(None)),
    "clustering_loss": (int, float),
    "convnet_loss": list,
    "knn_top1": (dict, type(None)),
    "clusters_end": (int, type(None)),
    "clusters_digest": (str, type(None)),
    "settings": dict,
}


class AverageMeter:
    """A running mean.

    Attributes:
        val: the last value.
        sum, count: of all values, each counted as often as `update` was told.
        avg: sum / count, 0 before the first value.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all values."""
        self.val = self.sum = 0.0
        self.count = 0

    def update(self, val: float, n: int = 1) -> None:
        """Add a value that stands for `n` samples."""
        self.val = val
        self.sum += val * n
        self.count += n

    @property
    def avg(self) -> float:
        return self.sum / self.count if self.count else 0.0


@dataclass
class State:
    """The run's place, beside the network and its optimiser.

    Attributes:
        epoch: the epoch that comes next, or is under way.
        step: its batches that are already trained on.
        iteration: batches trained on in all epochs.
        assignment: `(N,) int64` pseudo-labels, −1 for an image that is left out; those of the epoch
            under way, or of the last one (empty before the first).
        previous: the assignment before that one.
        clusters: how `assignment` came about; None before the first.
        clustering_loss: its k-means loss.
        convnet_loss: mean over the samples of the epoch so far.
        knn_top1: accuracy of the nearest-neighbour probe by the number of neighbours, for the
            network that the epoch begins with; None where it was not asked for.
        scaler: of the gradients, in fp16.
    """

    epoch: int
    step: int = 0
    iteration: int = 0
    assignment: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    previous: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    clusters: Clusters | None = None
    clustering_loss: float = 0.0
    convnet_loss: AverageMeter = field(default_factory=AverageMeter)
    knn_top1: dict[str, float] | None = None
    scaler: GradScaler = field(default_factory=lambda: GradScaler(enabled=False))

    @property
    def k(self) -> int:
        """Number of clusters, with the empty ones: the width of the top layer."""
        assert self.clusters is not None
        return len(self.clusters.centroids)

    def relabel(self, assignment: np.ndarray, loss: float, clusters: Clusters) -> None:
        """Take an epoch's new pseudo-labels."""
        self.previous, self.assignment = self.assignment, assignment
        self.clustering_loss, self.clusters = loss, clusters
        self.convnet_loss.reset()

    def finish_epoch(self) -> None:
        """Go on to the next epoch."""
        self.epoch, self.step = self.epoch + 1, 0


def read_resume(args: argparse.Namespace, images: ImageList) -> dict[str, Any] | None:
    """The checkpoint of `--resume`, or None.

    Raises:
        InputError: it cannot be loaded, or the run cannot go on from it with these settings.
    """
    if args.resume in (None, AUTO):
        return None
    checkpoint = read_checkpoint(args.resume)
    _check_form(checkpoint, args.resume)
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
        before = {**checkpoint["settings"], "images": len(checkpoint["assignment"])}
        now = {**vars(args), "images": len(images)}
        for name in (*ORDER_SETTINGS, "images"):
            if now[name] != before.get(name):
                raise InputError(
                    f"--resume {args.resume}: stands in the middle of an epoch with {name} "
                    f"{before.get(name)}, which cannot go on with {now[name]}"
                )
        if checkpoint.get("images_digest") != images.digest:
            raise InputError(
                f"--resume {args.resume}: stands in the middle of an epoch over images of other "
                f"names or in another order than those of {args.data}"
            )
    return checkpoint


def _check_form(checkpoint: dict[str, Any], path: Path) -> None:
    epoch = checkpoint.get("epoch")
    if type(epoch) is not int or epoch < 0:
        raise InputError(
            f"--resume {path}: its epoch is {reprlib.repr(epoch)}, not a whole number from 0 on"
        )
    if "step" not in checkpoint:
        return
    for name, kind in FORM.items():
        value = checkpoint.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(f"--resume {path}: its {name!r} is missing or malformed")
    try:
        fits = _is_sound(_state_of(checkpoint))
    except Exception:  # there is no end to what a malformed one may raise
        fits = False
    if not fits:
        raise InputError(f"--resume {path}: its place in the run is malformed")


def _is_sound(state: State) -> bool:
    labels, near, loss = state.assignment, state.knn_top1 or {}, state.convnet_loss
    clusters = state.clusters
    return (
        labels.dtype == state.previous.dtype == np.int64
        and labels.ndim == state.previous.ndim == 1
        and (state.step == 0 or -1 <= labels.min() <= labels.max() < state.k)
        and isinstance(loss.sum, int | float)
        and type(loss.count) is int
        and math.isfinite(loss.avg)
        and (clusters is None or _is_whole(clusters))
        and min(state.step, state.iteration) >= 0
        and all(isinstance(count, str) and 0 <= top1 <= 1 for count, top1 in near.items())
    )


def _is_whole(clusters: Clusters) -> bool:
    centroids = clusters.centroids
    return type(clusters.epoch) is int and centroids.ndim == 2 and centroids.size > 0


def is_finished(checkpoint: dict[str, Any], epochs: int) -> bool:
    """Whether nothing is left to do for a run of so many epochs: all are trained, and the clusters
    are the finished network's."""
    clusters = checkpoint.get("clusters")
    fresh = clusters is None or clusters["epoch"] == checkpoint["epoch"]
    return checkpoint["epoch"] > epochs or (checkpoint["epoch"] == epochs and fresh)


def settings_of(path: Path) -> dict[str, Any]:
    """The settings that a run which goes on from a checkpoint takes over, where it is not given
    others. The weights are left on the disk; of what is no checkpoint of a run there are none, and
    `read_resume` will say what is wrong with it."""
    try:
        settings = dict(load_mapped(path)["settings"])
    except Exception:  # damaged bytes make torch.load raise almost anything
        return {}
    most = settings.get("max_pixels")
    if isinstance(most, int) and most > MAX_PIXELS:
        del settings["max_pixels"]  # a file from elsewhere shall not lift the limit; the flag may
    return {name: value for name, value in settings.items() if name not in OWN_SETTINGS}


def set_up(
    args: argparse.Namespace, checkpoint: dict[str, Any] | None, compute: Compute
) -> tuple[ConvNet, torch.optim.SGD, State]:
    """The network, the optimiser of its body, and the state: new ones, or the checkpoint's.

    The top layer is None, unless the checkpoint was saved in the middle of an epoch.

    Raises:
        InputError: the checkpoint does not fit.
    """
    state = State(args.start_epoch) if checkpoint is None else _state_of(checkpoint)
    k = args.nmb_cluster if state.clusters is None else state.k
    model = untrained(args.arch, args.sobel, k, args.seed)
    if state.step == 0 and state.epoch < args.epochs:  # a new epoch makes a new one
        model.top_layer = None
    if checkpoint is not None:
        weights = checkpoint["state_dict"]
        if model.top_layer is None:
            weights = {n: w for n, w in weights.items() if not n.startswith("top_layer.")}
        load_weights(model, weights, args.resume)
    model.to(compute.device).to(memory_format=torch.channels_last)

    optimizer = torch.optim.SGD(
        model.body(),
        lr=args.lr,
        momentum=args.momentum,
        weight_decay=10**args.wd,
        fused=True,  # one pass over the weights; a third more images/s on CPU
    )
    state.scaler = compute.grad_scaler()
    if checkpoint is not None:
        _load_optimizer(optimizer, state.scaler, checkpoint, args.resume)
    return model, optimizer, state


def _load_optimizer(
    optimizer: torch.optim.Optimizer, scaler: GradScaler, checkpoint: dict[str, Any], path: Path
) -> None:
    try:
        saved = checkpoint.get("grad_scaler")
        if scaler.is_enabled() and saved:  # that run was in fp16, too
            scaler.load_state_dict(saved)
        loaded = dict(checkpoint["optimizer"])
        own = optimizer.state_dict()["param_groups"]  # settings are this run's
        pairs = zip(own, list(loaded["param_groups"]), strict=True)
        groups = [{**group, "params": dict(other)["params"]} for group, other in pairs]
        optimizer.load_state_dict({"state": loaded["state"], "param_groups": groups})
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        momenta = [optimizer.state.get(p, {}).get("momentum_buffer") for p in parameters]
        if all(momentum is None for momentum in momenta):
            return
        for parameter, momentum in zip(parameters, momenta, strict=True):
            if momentum.shape != parameter.shape:  # None has none
                raise ValueError(f"a momentum of {momentum.shape} for {parameter.shape}")
    except Exception as error:  # there is no end to what a malformed one may raise
        raise InputError(f"--resume {path}: its optimizer is missing or does not fit") from error


def to_checkpoint(
    args: argparse.Namespace,
    images: ImageList,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: State,
) -> dict[str, Any]:
    """All that a run needs to go on, bit for bit, but for where its logs end.

    The keys `epoch, arch, state_dict, optimizer` are the original's.
    """
    return {
        "epoch": state.epoch,
        "arch": args.arch,
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": state.step,
        "iteration": state.iteration,
        "assignment": torch.from_numpy(state.assignment),
        "previous": torch.from_numpy(state.previous),
        "clusters": state.clusters and state.clusters.to_plain(),
        "clustering_loss": state.clustering_loss,
        "convnet_loss": [state.convnet_loss.sum, state.convnet_loss.count],
        "knn_top1": state.knn_top1,
        "grad_scaler": state.scaler.state_dict(),  # empty but in fp16
        "images_digest": images.digest,
        "settings": plain_settings(vars(args)),
    }


def _state_of(checkpoint: dict[str, Any]) -> State:
    state = State(int(checkpoint["epoch"]))
    if "step" in checkpoint:  # the released checkpoints have none of this
        state.step, state.iteration = checkpoint["step"], checkpoint["iteration"]
        state.assignment = checkpoint["assignment"].numpy()
        state.previous = checkpoint["previous"].numpy()
        plain = checkpoint["clusters"]
        state.clusters = plain and Clusters.from_plain(plain)
        state.clustering_loss = checkpoint["clustering_loss"]
        state.convnet_loss.sum, state.convnet_loss.count = checkpoint["convnet_loss"]
        state.knn_top1 = checkpoint.get("knn_top1")
    return state
