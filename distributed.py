"""The collectives in use. In a single process, without a process group, each is a no-op."""

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

# One process alone may build a graph of all images, for which the others wait.
LONGEST_WAIT = timedelta(hours=12)


def launched_processes() -> int:
    """Number of processes that `torchrun` started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that `torchrun` started, each with a GPU of its own where there are GPUs
    enough; without `torchrun` do nothing."""
    if launched_processes() == 1:
        yield
        return
    cuda = torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo", timeout=LONGEST_WAIT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0 on."""
    return dist.get_rank() if dist.is_initialized() else 0


def all_reduce(array: np.ndarray) -> np.ndarray:
    """The sum over the processes of an array, which has the same shape in each."""
    if world_size() == 1:
        return array
    total = torch.from_numpy(array).to(_device(), copy=True)
    dist.all_reduce(total)
    return total.cpu().numpy()


def gather_rows(array: np.ndarray) -> np.ndarray:
    """The rows of all processes, in the order of their ranks. A process may have any number of
    rows, also none."""
    if world_size() == 1:
        return array
    lengths = all_reduce(np.eye(world_size(), dtype=np.int64)[rank()] * len(array))
    padded = torch.zeros((int(lengths.max()), *array.shape[1:]), dtype=_dtype(array))
    padded[: len(array)] = torch.from_numpy(array)
    padded = padded.to(_device())
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    return np.concatenate(
        [part[:length].cpu().numpy() for part, length in zip(parts, lengths, strict=True)]
    )


def broadcast(array: np.ndarray) -> np.ndarray:
    """The array of process 0; the others give one of the same shape and type."""
    if world_size() == 1:
        return array
    shared = torch.from_numpy(array).to(_device(), copy=True)
    dist.broadcast(shared, 0)
    return shared.cpu().numpy()


def _device() -> torch.device:
    """Where the backend wants its tensors."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


def _dtype(array: np.ndarray) -> torch.dtype:
    return torch.from_numpy(array[:0]).dtype
