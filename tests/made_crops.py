"""The toy network of several tests, and steps of a method on made crops, without files."""

import argparse
import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

import main
from data.loading import Batch
from models.convnet import ConvNet, conv_layers
from system.device import select_compute
from training.optimizers import make_optimizer
from training.state import State
from training.updates import Updates

IMAGES, BATCH, PER_EPOCH = 20, 8, 2  # the last 4 draws of an epoch are left out
SIDES = (12, 12, 8, 8)  # of the crops
COMPUTE = select_compute("cpu", "fp32")
FLAGS = f"""--arch toy --batch {BATCH} --nmb_crops 2 2 --size_crops 12 8 --min_scale_crops 0.4 0.2
    --max_scale_crops 1 0.4 --hidden_mlp 16 --feat_dim 6"""

Step = tuple[int, np.ndarray, list[np.ndarray], float]


def toy(sobel: bool = False, out: int = 1000) -> ConvNet:
    """A convolution with batch norm, pooled to 2 × 2; to be put into `MODELS`."""
    features = conv_layers(2 if sobel else 3, [(6, 3, 2, 1)])
    return ConvNet("toy", features, 2, nn.Sequential(), 24, out, sobel)


def parse(method: str, flags: str) -> argparse.Namespace:
    """The flags of `main.py`, for `IMAGES` images."""
    args = main.parse_args(["images", "--method", method, *FLAGS.split(), *flags.split()])
    main.METHODS[method].fit_settings(args, IMAGES)
    return args


class Crops:
    """Random crops, new ones in each batch; those of an image have its colour, and noise."""

    def __init__(self, noise: int = 60) -> None:
        self.rng, self.noise = np.random.default_rng(0), noise
        self.colours = self.rng.integers(60, 196, size=(IMAGES, 1, 1, 3))

    def batch(self, index: np.ndarray) -> tuple[Batch, list[np.ndarray]]:
        """A batch as the loader makes it, and its crops, `(B, side, side, 3)` each."""
        crops = [
            (self.colours[index] + self._noise(len(index), side)).astype(np.uint8) for side in SIDES
        ]
        pixels = np.concatenate([crop.reshape(len(index), -1) for crop in crops], axis=1)
        return Batch(torch.from_numpy(pixels), torch.from_numpy(index), {}), crops

    def _noise(self, count: int, side: int) -> np.ndarray:
        return self.rng.integers(-self.noise, self.noise, (count, side, side, 3))


class FakeRun:
    """A run, as a method sees it; keeps the batches of its pass."""

    image_count, images_digest = IMAGES, "digest"

    def __init__(self, crops: Crops) -> None:
        self.epoch, self.crops = 0, crops
        self.passed: list[tuple[np.ndarray, list[np.ndarray]]] = []

    @contextlib.contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        yield lambda done: None

    @contextlib.contextmanager
    def augmented_pass(self, order: np.ndarray) -> Iterator[Iterator[Batch]]:
        yield self._pass_over(order)

    def _pass_over(self, order: np.ndarray) -> Iterator[Batch]:
        for index in order.reshape(-1, BATCH):
            batch, crops = self.crops.batch(index)
            self.passed.append((index, crops))
            yield batch

    def forget_momentum(self, parameters: Iterable[nn.Parameter]) -> None:
        raise AssertionError("its heads live on")

    def frozen_pass(self, every: int = 1) -> Any:
        raise AssertionError("there is no --probe")

    def inspect(self, features: Any) -> None:
        raise AssertionError("there is no --probe")


def steps_of(method: Any, run: FakeRun) -> Iterator[Step]:
    """Train as `training.run` does. Yields each step's number, images, crops and loss."""
    state = State(0)
    optimizer = make_optimizer(method.groups())
    blank, _ = run.crops.batch(np.array([0]))
    for run.epoch in range(method.args.epochs):
        method.relabel(run)
        updates = Updates(method.args, method, COMPUTE, state, optimizer, PER_EPOCH, blank)
        for index in method.draw(run.epoch).reshape(-1, BATCH):
            batch, crops = run.crops.batch(index)
            updates.prepare(BATCH)
            method.before_step()
            losses = method.losses(updates.forward, batch)
            updates.backward(losses, BATCH)
            updates.step()
            method.after_step(batch)
            yield state.epoch * PER_EPOCH + state.step, index, crops, losses.mean().item()
            state.step += 1
        assert method.metrics(None)["unreadable"] == 0
        state.finish_epoch()
