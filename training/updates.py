"""The optimisers' work in an epoch: learning rates, gradients, steps."""

import argparse

import torch
from torch import Tensor, nn

from data.loading import Batch
from methods.method import Method
from parallel.collectives import data_parallel, weighted, world_size
from system.device import Compute
from training.initial import hold_stages
from training.optimizers import sgd
from training.schedules import warmup_cosine
from training.state import State


class Updates:
    """The updates of an epoch.

    Args:
        args: the flags of `main.py`.
        optimizer: of all groups without `reset`.
        per_epoch: number of batches in an epoch.
        blank: a batch of one blank image.

    Attributes:
        forward: the method's `trained`, wrapped if there are several processes.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        method: Method,
        compute: Compute,
        state: State,
        optimizer: torch.optim.Optimizer,
        per_epoch: int,
        blank: Batch,
    ) -> None:
        self.args, self.method, self.state = args, method, state
        self.optimizer, self.per_epoch = optimizer, per_epoch
        heads = [group for group in method.groups() if group.get("reset")]
        self._of_heads = [group.get("optimizer") or sgd([group]) for group in heads]
        hold_stages(args, state.epoch, method.network, optimizer)
        self.forward = data_parallel(method.trained, compute.device)
        if world_size() > 2 and compute.device.type == "cpu":
            # After its first step DDP changes the order in which it sums gradients, which changes
            # the rounding. This extra pass makes all steps of an epoch alike.
            method.trained.eval()
            method.losses(self.forward, blank).sum().backward()
        modules = method.trained.modules()
        self._synchronised = any(isinstance(module, nn.SyncBatchNorm) for module in modules)
        method.trained.train()

    def prepare(self, size: int) -> None:
        """Before the forward pass of `size` images: batch norm skips a blank image, unless it waits
        for other processes."""
        self.method.trained.train(size > 0 or self._synchronised)
        for optimizer in (self.optimizer, *self._of_heads):
            optimizer.zero_grad()

    def backward(self, losses: Tensor, size: int) -> None:
        """Gradients of the losses `(B,)` of `size` images."""
        self.state.scaler.scale(weighted(losses.mean(), size)).backward()

    def step(self) -> None:
        """The step of each optimiser."""
        self._set_learning_rate()
        self.method.before_update()
        for optimizer in (self.optimizer, *self._of_heads):
            self.state.scaler.step(optimizer)
        self.state.scaler.update()

    def _set_learning_rate(self) -> None:
        if self.method.schedule is None:
            return
        iteration = self.state.epoch * self.per_epoch + self.state.step
        epochs = self.args.epochs
        rate = warmup_cosine(iteration, self.per_epoch, epochs, *self.method.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
