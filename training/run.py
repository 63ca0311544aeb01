"""A run: its optimisers, data, place and folder, and the work between two steps: checkpoints,
signals, NaN, progress.

`main.py` has the loop. A method sees a run as a `methods.method.Running`.
"""

import argparse
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from checkpoints.folder import NEWEST
from data.images import ImageList
from data.loading import Batch
from methods.method import FrozenPass, Method
from parallel.collectives import (
    broadcast_buffers,
    rank,
    shard_of,
    world_size,
)
from parallel.signals import Stopping
from system import cli
from system.device import Compute
from system.progress import progress
from system.seeding import derive_seed
from training import health, summary
from training.experiment import open_experiment
from training.finite import PendingLosses, check_weights, stop
from training.initial import hold_stages
from training.loaders import Loaders
from training.logs import warn
from training.resume import set_up, to_checkpoint
from training.slices import slices_apart
from training.updates import Updates

log = logging.getLogger("deepcluster")

STAGES = ("features", "clustering", "training")

# `--probe`: the network's features → accuracy by number of nearest neighbours
Probe = Callable[[Any], dict[str, float]]


class Run:
    """A run of a method, new or resumed. Entering it opens the experiment folder.

    Args:
        args: the flags of `main.py`.
        images: all images.
        method: a new one, which loads the checkpoint.
        checkpoint: contents of the file `--resume`.
        probe: called with the features every `--probe` epochs.

    Raises:
        InputError: the checkpoint doesn't fit, the folder holds another run's results, or can't be
            written.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        images: ImageList,
        method: Method,
        compute: Compute,
        stopping: Stopping,
        checkpoint: dict[str, Any] | None = None,
        probe: Probe | None = None,
    ) -> None:
        self.args, self.images, self.method = args, images, method
        self.compute, self.stopping, self.probe = compute, stopping, probe
        self.state, self.optimizer = set_up(args, method, compute, checkpoint)
        hold_stages(args, self.state.epoch, method.network, self.optimizer)
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._tried = -1  # the epoch whose first pass has begun
        self.result = ""  # the finished network's clusters in words
        self.shard = shard_of(len(images))
        view, follow = method.view(args.size), stopping.while_waiting()
        to_train = stopping.while_waiting_to_train(self._save_in_epoch)
        self.loaders = Loaders(args, images, view, compute.device, follow, to_train)
        self.folder = open_experiment(args, images, checkpoint)

    def __enter__(self) -> "Run":
        self.folder.__enter__()
        processes = f"{world_size()} processes, " if world_size() > 1 else ""
        place = f"{processes}on {self.compute.device} in {self.compute.precision}"
        log.info("%s, %d images, %s", self.args.arch, len(self.images), place)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        cli.end_workers()  # a worker may wait for a disk
        self.folder.__exit__(kind, error, trace)

    @property
    def epoch(self) -> int:
        """The current epoch, or the next one."""
        return self.state.epoch

    @property
    def step(self) -> int:
        """Number of batches done in this epoch."""
        return self.state.step

    @property
    def epochs(self) -> int:
        """Number of epochs in all."""
        return self.args.epochs

    @property
    def image_count(self) -> int:
        return len(self.images)

    @property
    def images_digest(self) -> str:
        return self.images.digest

    @contextlib.contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        with self._timed(name, total, unit) as advance:
            yield self.stopping.checked(advance)

    @contextlib.contextmanager
    def frozen_pass(self, every: int = 1) -> Iterator[FrozenPass]:
        unreadable, images = self.folder.unreadable, self.shard[-self.shard.start % every :: every]
        self._try_images()
        with self.stage("features", len(images), self._unit) as advance:
            loader = self.loaders.central(images)
            yield FrozenPass(loader, images, unreadable.report, self._stop, advance)
            unreadable.gather()

    @contextlib.contextmanager
    def augmented_pass(self, order: np.ndarray) -> Iterator[Iterator[Batch]]:
        self._try_images()
        self.loaders.start(self.epoch, order)
        with self._timed("features", -(-len(order) // world_size()), self._unit) as advance:
            yield self._pass_over(advance)
            self.folder.unreadable.gather()

    def _pass_over(self, advance: Callable[[int], None]) -> Iterator[Batch]:
        for number, batch in enumerate(self.loaders.augmented):
            self.folder.unreadable.report(batch.unreadable)
            draw = number * world_size() + rank()
            torch.manual_seed(derive_seed(self.args.seed, "dropout of a pass", self.epoch, draw))
            yield batch
            advance(len(batch.index) + len(batch.unreadable))
            if self.stopping.agreed():  # all processes stop at the same batch
                self.stopping.check()

    def forget_momentum(self, parameters: Iterable[nn.Parameter]) -> None:
        for parameter in parameters:
            self.optimizer.state.pop(parameter, None)

    def inspect(self, features: Any) -> None:
        warn(health.check_features(features.rows))
        self.state.knn_top1 = None
        if self.probe is not None and self.epoch % self.args.probe == 0:
            self.state.knn_top1 = self.probe(features)

    def batches(self, order: np.ndarray) -> Iterator[Batch]:
        """This process's share of the epoch's batches, from `step` on. Asking for the next batch
        finishes the step: a checkpoint may be saved, or the run may stop.

        Args:
            order: `(M,)` or `(M, 2) int64`, the draws of the whole epoch, as from `Method.draw`.

        Raises:
            InputError: a loss, a gradient or a weight is NaN or infinite.
            Stopped: a signal came, and a checkpoint was saved.
            Fault: a worker was killed, or a signal came while one of several processes waited.
        """
        self._begin_epoch(order)
        self.loaders.start(self.epoch, order, self.step)
        done = self.step * self.args.batch  # the last batch may be smaller
        self._drawn = max(len(order) - done, 0)
        with self._timed("training", -(-self._drawn // world_size()), self._unit) as advance:
            for batch in self.loaders.augmented:
                self.folder.unreadable.report(batch.unreadable)
                if (ready := self._prepare(batch)) is not None:
                    yield ready
                self._finish_step()
                advance(len(batch.index) + len(batch.unreadable))
            self._pending.flush()
            check_weights(self.method.trained, self.state, self.folder)
            broadcast_buffers(self.method.trained)
            self.folder.unreadable.gather()

    def update(self, losses: Tensor) -> None:
        """Backward and SGD on the losses `(B,)` of the last batch."""
        size = len(self._index)  # 0 for a placeholder
        self._updates.backward(losses, size)
        self._pending.add(losses[:size])
        self._updates.step()

    def finish_epoch(self) -> None:
        """Metrics, assignments, checkpoint."""
        method, state = self.method, self.state
        clusters = method.metrics(self.images.labels)
        counts = len(self.images), self._drawn
        metrics = summary.epoch_metrics(state, clusters, counts, self.seconds)
        warn(method.advice(metrics))
        log.info(summary.describe_epoch(metrics, self.epochs))
        self.folder.log_epoch(metrics, method.assignment, method.k)
        state.finish_epoch()
        self.save(NEWEST)
        state.knn_top1 = None
        self.seconds = dict.fromkeys(STAGES, 0.0)

    def finish(self, assignment: np.ndarray) -> None:
        """Save the finished network's clusters, `(N,) int64`."""
        method, labels = self.method, self.images.labels
        assert method.clusters is not None
        before = method.assignment if method.k > 1 else np.empty(0, np.int64)
        self.result = summary.describe_clusters(
            assignment, method.clusters, before, labels, method.unlabelled
        )
        near = summary.describe_neighbours(self.state.knn_top1)
        log.info("clusters of the finished network: %s%s", self.result, near)
        if (others := method.by_prototypes) is not None:
            words = summary.describe_assignment(others, method.k, labels)
            log.info("its clusters by prototypes: %s", words)
        self.folder.save_finished(self.epoch, assignment, others)
        self.save(NEWEST)

    def save(self, name: str) -> None:
        """Save a checkpoint (`checkpoints/__init__.py` has its layout)."""
        check_weights(self.method.trained, self.state, self.folder)
        parts = self.state, self.optimizer, self.method
        contents = to_checkpoint(self.args, self.images, *parts)
        with slices_apart(self.folder.folder, contents):
            self.folder.save(name, contents)

    def _begin_epoch(self, order: np.ndarray) -> None:
        method, batches = self.method, -(-len(order) // self.args.batch)
        if self.step == 0:
            self.state.convnet_loss.reset()
            if self._tried != self.epoch:  # no pass before this epoch
                self._try_images(order)
            if self.args.nmb_cluster > 1:  # RotNet has a single one
                warn(health.check_assignment(method.assignment, method.k))
        blank, optimizer = self.loaders.blank, self.optimizer
        self._updates = Updates(
            self.args, method, self.compute, self.state, optimizer, batches, blank
        )
        self.forward = self._updates.forward
        self._pending = PendingLosses(self.state, method.trained.parameters(), self.folder)

    def _try_images(self, order: np.ndarray | None = None) -> None:
        self.folder.unreadable.begin_pass(order)
        self._tried = self.epoch

    def _prepare(self, batch: Batch) -> Batch | None:
        """The batch for the method; None if there is nothing to do."""
        self._index = batch.index
        size = len(batch.index)
        self._updates.prepare(size)
        # dropout is a function of (seed, epoch, step, rank)
        draw = self.step * world_size() + rank()
        torch.manual_seed(derive_seed(self.args.seed, "dropout", self.epoch, draw))
        if size == 0:  # the other processes wait for this one's gradients
            return self.loaders.blank if world_size() > 1 else None
        return batch

    def _finish_step(self) -> None:
        self.state.step += 1
        self.state.iteration += 1
        if self.state.iteration % self.args.checkpoints == 0:
            self._pending.flush()
            number = self.state.iteration // self.args.checkpoints
            self.save(f"checkpoints/checkpoint_{number}.pth.tar")
        if self.stopping.agreed():
            self._save_in_epoch()
            self.stopping.check()

    def _save_in_epoch(self) -> None:
        """Save between two steps. Before the first one, there is nothing to save."""
        if self.step > 0:
            self._pending.flush()
            self.save(NEWEST)

    @contextlib.contextmanager
    def _timed(self, name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        start = time.perf_counter()
        with progress(name, total, unit, self.args.verbose and rank() == 0) as advance:
            yield advance
        self.seconds[name] += time.perf_counter() - start

    @property
    def _unit(self) -> str:
        return "images of process 0" if world_size() > 1 else "images"

    def _stop(self, batch: int, bad: np.ndarray) -> None:
        place = f"batch {batch} of the pass for epoch {self.epoch} (both from 0)"
        stop(f"the features became NaN or infinite in {place}", self.folder)
