"""Two protocols: the method that a run trains, and the run that a method sees.

`main.py` has the loop that calls both.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from cluster.clusters import Clusters
from data.loading import Batch
from models import ConvNet
from system.device import Compute


class FrozenPass(NamedTuple):
    """A pass of the frozen network over this process's images.

    Attributes:
        loader: batches of central crops, in data-set order.
        images: numbers of the images in the data set.
        report: called with images that can't be read, and the reason for each.
        stop_on_infinite: called with the number of a batch and `(b,)` its images with NaN or
            infinite features; raises InputError.
        advance: called with the number of images done in each step; raises Stopped after a signal.
    """

    loader: DataLoader[Batch]
    images: range
    report: Callable[[dict[int, str]], None]
    stop_on_infinite: Callable[[int, np.ndarray], None]
    advance: Callable[[int], None]


class Schedule(NamedTuple):
    """A learning rate that rises, then falls along half a cosine (`training.schedules`).

    Attributes:
        base: the highest.
        final: that of the end.
        warmup_epochs: epochs in which it rises.
        start: that of the first iteration, if it rises.
    """

    base: float
    final: float
    warmup_epochs: int
    start: float


class Running(Protocol):
    """The run, as a method sees it."""

    @property
    def epoch(self) -> int:
        """The current epoch, or the next one."""
        ...

    @property
    def image_count(self) -> int:
        """Number of images in the data set, over all processes."""
        ...

    @property
    def images_digest(self) -> str:
        """Digest of the images' names, in order."""
        ...

    def frozen_pass(self, every: int = 1) -> AbstractContextManager[FrozenPass]:
        """A timed pass over this process's images, with a progress bar.

        Args:
            every: of the data set's images, only each whose number is a multiple of this.
        """
        ...

    def augmented_pass(self, order: np.ndarray) -> AbstractContextManager[Iterator[Batch]]:
        """A timed pass over this process's share of training images, without training on them.

        Args:
            order: `(M,) int64`, the images of all processes, in order.
        """
        ...

    def forget_momentum(self, parameters: Iterable[nn.Parameter]) -> None:
        """Drop the momentum of parameters that have new values, in groups without `reset`: all of a
        group."""
        ...

    def stage(
        self, name: str, total: int, unit: str
    ) -> AbstractContextManager[Callable[[int], None]]:
        """A timed stage with a progress bar. Yields a function to call with the number of units
        done in each step; it raises Stopped after a signal."""
        ...

    def inspect(self, features: Any) -> None:
        """Check the health of the network's `Features`, and probe them if `--probe` says so."""
        ...


class Method(Protocol):
    """A way to train a network without labels.

    Attributes:
        network: the one whose weights a checkpoint's `state_dict` holds, and which is evaluated.
        trained: network and heads.
        assignment: `(N,) int64`, the clusters that the epoch trains on; −1 for an image left out.
        k: number of clusters, empty ones included.
        clusters: the last clustering, with all that is needed to assign new images.
        by_prototypes: `(N,) int64`, from `finish` on: each image's prototype of the largest score,
            by the finished network in eval mode, −1 for an unreadable image; None without
            prototypes.
        unlabelled: `cluster.quality.unlabelled_metrics` of the finished network's clusters, from
            `finish` on.
        schedule: of the learning rate of all groups without `reset`; None: it stays the same.
        order_settings: flags that the order of an epoch's draws depends on.
        form: keys of `state_dict()` and the types of their values.
    """

    network: ConvNet
    assignment: np.ndarray
    clusters: Clusters | None
    by_prototypes: np.ndarray | None
    unlabelled: dict[str, float | None]
    schedule: Schedule | None
    order_settings: ClassVar[tuple[str, ...]]
    form: ClassVar[dict[str, Any]]

    def __init__(self, args: argparse.Namespace, compute: Compute) -> None: ...

    @staticmethod
    def add_flags(parser: argparse.ArgumentParser) -> None:
        """The method's own flags of `main.py`."""
        ...

    @staticmethod
    def fit_settings(args: argparse.Namespace, images: int) -> list[str]:
        """Choose settings that were not given, from the number of images. Returns a line for each,
        with its reason."""
        ...

    @staticmethod
    def check_flags(args: argparse.Namespace, images: int, device: torch.device) -> None:
        """Check the method's flags against the number of images; raises InputError."""
        ...

    @staticmethod
    def is_sound(state: dict[str, Any], step: int) -> bool:
        """Whether `load_state_dict` can load a state saved after `step` steps of an epoch. May
        raise anything if it can't."""
        ...

    @property
    def trained(self) -> nn.Module: ...

    @property
    def k(self) -> int: ...

    def view(self, size: int) -> v2.Transform:
        """The transform of training images: random crop, flip, colours."""
        ...

    def groups(self) -> Sequence[dict[str, Any]]:
        """Groups of parameters with their `lr`, `momentum` and `weight_decay`; with `trust`, LARS
        trains them instead of SGD. A group with `reset` has new parameters in each epoch: it gets a
        new optimiser, and no momentum, as checkpoints don't keep it; or its own `optimizer`."""
        ...

    def relabel(self, run: Running) -> None:
        """New targets and new heads, before an epoch."""
        ...

    def draw(self, epoch: int) -> np.ndarray:
        """The images that the epoch trains on, in order, `(M,) int64`; or `(M, 2)`: images, and the
        quarter turns of each view, which come back as `Batch.turns`."""
        ...

    def before_step(self) -> None:
        """Called before the forward pass of each step."""
        ...

    def losses(self, forward: nn.Module, batch: Batch) -> Tensor:
        """The loss of each image of a batch, `(B,)`.

        Args:
            forward: `trained`, wrapped if there are several processes.
            batch: of images, or of one blank image of number −1 in a process without images.
        """
        ...

    def before_update(self) -> None:
        """Called when the gradients are there, before the optimiser's step."""
        ...

    def after_step(self, batch: Batch) -> None:
        """Called after the update of each step; a blank image (number −1) leaves no trace."""
        ...

    def finish(self, run: Running) -> np.ndarray:
        """Cluster with the finished network, for new images. Returns the assignment `(N,) int64`;
        `assignment` stays the last epoch's."""
        ...

    def metrics(self, labels: np.ndarray | None) -> dict[str, Any]:
        """Metrics of the epoch's clusters for `metrics.jsonl`, against labels `(N,) int64` if there
        are any."""
        ...

    def advice(self, metrics: dict[str, Any]) -> list[str]:
        """Warnings about an epoch that goes wrong, from its line of `metrics.jsonl`."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The method's keys of a checkpoint, beside the network's weights. Other code reads two of
        them: `assignment` and `clusters` (`Clusters.to_plain`, or None)."""
        ...

    def load_state_dict(self, state: dict[str, Any], with_heads: bool) -> None:
        """Load a state.

        Args:
            with_heads: make heads, whose weights are loaded next. Otherwise the next `relabel`
                makes new ones.
        """
        ...
