"""Processes started by `torchrun`: joining them, sharing work, and collectives, which do nothing in
a single process."""

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from parallel.heartbeat import Heartbeat, is_lost_connection, meet
from system import cli
from system.errors import InputError, Stopped

# The others wait while one process builds a graph of all images.
LONGEST_WAIT = timedelta(hours=12)

Model = TypeVar("Model", bound=nn.Module)


@contextlib.contextmanager
def process_group(device: str = "auto") -> Iterator[None]:
    """Join the processes that `torchrun` started; without `torchrun` do nothing.

    Args:
        device: `auto` and `cuda` give each process its own GPU; if there are too few, processes
            share them, with a warning.

    Raises:
        InputError: something else has set torchrun's variables.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes == 1:
        yield
        return
    if "LOCAL_WORLD_SIZE" not in os.environ:
        raise InputError(
            f"WORLD_SIZE={processes}: is set, but not by torchrun; start this with "
            "torchrun, or unset WORLD_SIZE for a single process"
        )
    backend = _take_gpu() if device in ("auto", "cuda") else "gloo"
    meet()
    dist.init_process_group(backend, timeout=LONGEST_WAIT)
    heartbeat = Heartbeat(rank(), world_size())
    heartbeat.start()
    try:
        yield
    except (InputError, Stopped):  # raised in all processes together
        heartbeat.finish()
        dist.destroy_process_group()
        raise
    except Exception as error:
        if is_lost_connection(error):
            heartbeat.await_verdict()
        raise
    # not after other errors: destroying NCCL's group waits for processes that wait for this one
    heartbeat.finish()
    dist.destroy_process_group()


def _take_gpu() -> str:
    """Choose this process's GPU, if there are any. Returns the backend: NCCL needs a GPU for each
    process."""
    gpus, processes = torch.cuda.device_count(), int(os.environ["LOCAL_WORLD_SIZE"])
    if gpus == 0:
        return "gloo"
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % gpus)
    if gpus >= processes:
        return "nccl"
    cli.warn(f"{processes} processes share {gpus} GPU(s): slower than a GPU for each")
    return "gloo"


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0 on."""
    return dist.get_rank() if dist.is_initialized() else 0


def uses_gpus() -> bool:
    """Whether the collectives run on GPUs: the host has to wait for their results."""
    return dist.is_initialized() and dist.get_backend() == "nccl"


@contextlib.contextmanager
def together() -> Iterator[None]:
    """If any rank raises InputError or Stopped in this block, every rank raises it.

    Raises:
        InputError, Stopped: the first rank's.
    """
    own: InputError | Stopped | None = None
    try:
        yield
    except (InputError, Stopped) as error:
        own = error
    for kind, message in filter(None, gather_objects(own and (type(own), str(own)))):
        raise own or kind(message)


def shard_of(count: int) -> range:
    """This process's share of `count` things: ranges of nearly equal length, in the order of the
    ranks."""
    return range(count * rank() // world_size(), count * (rank() + 1) // world_size())


def data_parallel(model: nn.Module, device: torch.device) -> nn.Module:
    """Wrap the model for several processes: gradients become their mean, and batch norm's running
    statistics are those of process 0.

    Only the module's part `replicated` is wrapped, if it has one: the other parameters differ
    between the processes.
    """
    model = getattr(model, "replicated", model)
    if world_size() == 1:
        return model
    gpus = [torch.cuda.current_device()] if device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=gpus, gradient_as_bucket_view=True)


def synchronised(model: Model, device: torch.device) -> Model:
    """The model with batch norm over the batches of all GPUs; unchanged on a CPU, whose batch norm
    can't, and in a single process."""
    if world_size() == 1 or device.type != "cuda":
        return model
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def weighted(loss: Tensor, size: int) -> Tensor:
    """Scale the mean loss over this process's `size` samples, so that the mean of the processes'
    gradients is the gradient of the mean loss over all samples."""
    if world_size() == 1:
        return loss
    total = add_up(torch.full((), float(size), device=loss.device))
    return loss * (size * world_size() / total.clamp(min=1))


def add_up(tensor: Tensor) -> Tensor:
    """Sum a tensor on the device over the processes, in place."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def take_max(tensor: Tensor) -> Tensor:
    """The element-wise maximum of a tensor on the device over the processes, in place."""
    if world_size() > 1:
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor


def gather_alike(tensor: Tensor) -> Tensor:
    """The rows of all processes, on the device. Each has equally many."""
    if world_size() == 1:
        return tensor
    whole = tensor.new_empty(world_size() * len(tensor), *tensor.shape[1:])
    dist.all_gather_into_tensor(whole, tensor.contiguous())
    return whole


def sum_own_share(tensor: Tensor) -> Tensor:
    """Sum a tensor on the device over the processes. Each gets the rows of its rank, equally
    many."""
    if world_size() == 1:
        return tensor
    own = tensor.new_empty(len(tensor) // world_size(), *tensor.shape[1:])
    dist.reduce_scatter_tensor(own, tensor.contiguous())
    return own


def broadcast_buffers(model: nn.Module) -> None:
    """Copy the model's buffers from process 0 to all processes."""
    if world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def gather_objects(thing: Any) -> list[Any]:
    """The objects of all processes, in the order of the ranks."""
    if world_size() == 1:
        return [thing]
    things = [None] * world_size()
    dist.all_gather_object(things, thing)
    return things


def all_reduce(array: np.ndarray) -> np.ndarray:
    """The sum of an array, of the same shape in each process, over the processes."""
    if world_size() == 1:
        return array
    total = torch.from_numpy(array).to(_device(), copy=True)
    dist.all_reduce(total)
    return total.cpu().numpy()


def gather_rows(array: np.ndarray) -> np.ndarray:
    """The rows of all processes, in the order of the ranks. A process may have none."""
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
    """The array of process 0. The others pass one of the same shape and type."""
    if world_size() == 1:
        return array
    shared = torch.from_numpy(array).to(_device(), copy=True)
    dist.broadcast(shared, 0)
    return shared.cpu().numpy()


def _device() -> torch.device:
    """The device of the backend's tensors."""
    return torch.device("cuda" if uses_gpus() else "cpu")


def _dtype(array: np.ndarray) -> torch.dtype:
    return torch.from_numpy(array[:0]).dtype
