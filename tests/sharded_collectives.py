"""Every collective in processes, with shares of different lengths, on the device of `sys.argv[1]`:
`cpu`, or `auto` for the GPUs. tests/parallel/test_processes.py and tests/gpu run it."""

import contextlib
import sys

import numpy as np
import torch
from torch import nn

from parallel.collectives import (
    add_up,
    all_reduce,
    broadcast,
    broadcast_buffers,
    data_parallel,
    gather_alike,
    gather_objects,
    gather_rows,
    process_group,
    rank,
    shard_of,
    sum_own_share,
    synchronised,
    take_max,
    together,
    uses_gpus,
    weighted,
    world_size,
)
from system.device import full_float32, select_compute
from system.errors import InputError


def arrays() -> None:
    """Of the host."""
    me, count = rank(), world_size()
    for dtype in (np.int64, np.float32, np.float64, np.float16, np.bool_):
        # the last process has no rows, the others have 1, 2, …
        own = np.full((0 if me == count - 1 else me + 1, 3), me, dtype)
        whole = [np.full((n + 1, 3), n, dtype) for n in range(count - 1)]
        expected = np.concatenate([*whole, np.empty((0, 3), dtype)])
        found = gather_rows(own)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(gather_rows(own[:0]), expected[:0])
        np.testing.assert_array_equal(broadcast(np.full(2, me + 1, dtype)), np.ones(2, dtype))
    np.testing.assert_array_equal(all_reduce(np.array([me, 1])), [count * (count - 1) // 2, count])
    assert gather_objects({"rank": me}) == [{"rank": each} for each in range(count)]
    assert [*shard_of(7)] == [*range(7 * me // count, 7 * (me + 1) // count)]
    message = ""
    with contextlib.suppress(InputError):
        try:
            with together():
                if me == count - 1:
                    raise InputError(f"of process {me}")
        except InputError as error:
            message = str(error)
    assert message == f"of process {count - 1}"


def tensors(device: torch.device) -> None:
    """On the device."""
    me, count = rank(), world_size()
    ones = torch.full((2,), float(me), device=device)
    assert add_up(ones.clone()).tolist() == [count * (count - 1) / 2] * 2
    assert take_max(ones.clone()).tolist() == [count - 1] * 2
    assert gather_alike(ones).tolist() == [float(n) for n in range(count) for _ in range(2)]
    rows = torch.arange(2 * count, device=device).float()
    assert sum_own_share(rows).tolist() == [count * 2.0 * me, count * (2.0 * me + 1)]
    norm = nn.BatchNorm1d(2).to(device)
    norm.running_mean.fill_(me + 1)  # type: ignore[union-attr]
    broadcast_buffers(norm)
    assert norm.running_mean.tolist() == [1, 1]  # type: ignore[union-attr]


def gradients(device: torch.device) -> None:
    """Of processes with 3, 4, 5, … images: those of one process with all of them. With synchronised
    batch norm on GPUs, and none on a CPU."""
    me, count = rank(), world_size()
    torch.manual_seed(0)
    own = slice(sum(range(3, 3 + me)), sum(range(3, 4 + me)))
    images = torch.rand(sum(range(3, 3 + count)), 3, 8, 8, device=device)
    norm = [nn.BatchNorm2d(4)] if device.type == "cuda" else []
    whole = nn.Sequential(nn.Conv2d(3, 4, 3), *norm, nn.Flatten(), nn.Linear(144, 1)).to(device)
    whole.to(memory_format=torch.channels_last)
    with full_float32():
        expected = torch.autograd.grad(whole(images).square().mean(), list(whole.parameters()))
        forward = data_parallel(synchronised(whole, device), device)
        loss = forward(images[own]).square().mean()
        weighted(loss, len(images[own])).backward()
    for parameter, gradient in zip(whole.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


if __name__ == "__main__":
    with process_group(sys.argv[1]):
        on = select_compute(sys.argv[1]).device
        torch.backends.cudnn.allow_tf32 = False
        arrays()
        tensors(on)
        gradients(on)
        if rank() == 0:
            sys.stdout.write(f"{world_size()} processes, {on.type}, nccl: {uses_gpus()}\n")
