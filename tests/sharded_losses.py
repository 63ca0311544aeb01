"""Run by test_sharded_losses.py in one process and in two: the losses and gradients of one batch of
SwAV and DeepCluster-v2, of which each process has a share.

Usage: sharded_losses.py SHARES OUT.npz, where SHARES are the numbers of images of the processes,
such as 5,3.
"""

import argparse
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

import main
from data.loading import Batch
from methods.deepclusterv2 import DeepClusterV2
from methods.multicrop import MultiCropMethod
from methods.queue import Queue
from methods.swav import SwAV
from parallel.collectives import add_up, data_parallel, process_group, rank, weighted, world_size
from system.device import select_compute

COMPUTE = select_compute("cpu", "fp32")
FLAGS = """--arch plain --k 4 --batch 8 --size 32 --nmb_crops 2 2 --size_crops 32 16
    --min_scale_crops 0.4 0.2 --max_scale_crops 1 0.4 --hidden_mlp 0 --feat_dim 6"""
WITHOUT_CLUSTER = [1, 2, 6]  # of the 8 images


def compute(shares: list[int]) -> dict[str, np.ndarray]:
    """The mean losses and the gradients of both methods."""
    images = torch.arange(8).split(shares)[rank()]
    v2 = DeepClusterV2(parse("deepclusterv2"), COMPUTE)
    v2._targets = torch.arange(8).expand(3, -1) % 4
    v2._targets[:, WITHOUT_CLUSTER] = -1
    v2._use_targets()
    swav = SwAV(parse("swav"), COMPUTE)
    swav._queue = queue()
    assert swav._queue.is_full == (rank() == 0)
    return {**results_of("v2", v2, images), **results_of("swav", swav, images)}


def parse(method: str) -> argparse.Namespace:
    args = main.parse_args(["images", "--method", method, *FLAGS.split()])
    main.METHODS[method].fit_settings(args, 8)
    return args


def queue() -> Queue:
    """Of two processes, the first has a full queue of 4 rows, and the second lacks one; a single
    process has the queue of the first."""
    rows = torch.randn(7, 2, 6, generator=torch.Generator().manual_seed(0))
    rows /= rows.norm(dim=2, keepdim=True)
    return Queue(8, rows) if world_size() == 2 else Queue(4, rows[::2])


def results_of(name: str, method: MultiCropMethod, images: Tensor) -> dict[str, np.ndarray]:
    """The mean loss of all processes, and the gradient of all weights, after a backward pass."""
    shape = 8, method.crops.packed
    pixels = torch.randint(256, shape, generator=torch.Generator().manual_seed(1))
    forward = data_parallel(method.trained, COMPUTE.device)
    losses = method.losses(forward, Batch(pixels[images].to(torch.uint8), images, {}))
    weighted(losses.mean(), len(images)).backward()
    gradients = [p.grad.flatten() for p in method.trained.parameters() if p.grad is not None]
    mean = add_up(losses.detach().sum()) / 8
    return {f"{name} loss": mean.numpy(), f"{name} gradient": torch.cat(gradients).numpy()}


if __name__ == "__main__":
    with process_group():
        found: dict[str, Any] = compute([int(share) for share in sys.argv[1].split(",")])
        if rank() == 0:
            np.savez(sys.argv[2], **found)
