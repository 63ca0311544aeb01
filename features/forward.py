"""Data set → features: the only place that runs a frozen network over a data set."""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cluster.moments import Moments
from data.images import ImageList
from data.loading import Batch
from data.transforms import to_input
from models import Network
from parallel.collectives import all_reduce
from system.device import Compute
from system.errors import InputError
from system.normalisation import Std

BLOCK = 4096  # rows moved at a time
NOT_FINITE = "its features are NaN or infinite; try --precision fp32"

# Of each batch: the images' indices, and their results as an array and on the device
Steps = Iterable[tuple[np.ndarray, np.ndarray, Tensor]]
OnInfinite = Callable[[int, np.ndarray], None]


class ToHost:
    """Tensors on their way to the host: fetching them waits for the work that made them, but not
    for the device's later work."""

    def __init__(self, *tensors: Tensor) -> None:
        on_gpu = tensors[0].is_cuda
        self._copies = [tensor.to("cpu", non_blocking=on_gpu) for tensor in tensors]
        self._arrived = torch.cuda.Event() if on_gpu else None
        if self._arrived is not None:
            self._arrived.record()

    def fetch(self) -> list[np.ndarray]:
        """The tensors as arrays."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return [copy.numpy() for copy in self._copies]


@dataclass(frozen=True)
class Features:
    """The features of a data set, or of one process's share of it.

    Attributes:
        rows: `(M, D) float16`, of the M images that have features, in data-set order.
        present: `(N,) bool`, whether an image has features.
        moments: of the rows, if all processes together have more images than D; with fewer, PCA
            on the rows themselves is faster.
    """

    rows: np.ndarray
    present: np.ndarray
    moments: Moments | None


@torch.inference_mode()
def compute_features(
    loader: DataLoader[Batch],
    model: Network,
    images: range,
    compute: Compute,
    on_unreadable: Callable[[dict[int, str]], None],
    advance: Callable[[int], None] = lambda done: None,
    on_infinite: OnInfinite | None = None,
) -> Features:
    """The embeddings of some images, with the network in eval mode.

    Rows are kept in half precision, about that of a forward pass in bf16. Their covariance is
    summed on the device during the pass.

    Args:
        loader: goes through each image once, in any order.
        images: their N indices in the data set.
        on_unreadable, advance, on_infinite: as in `forward_pass`.
    """
    dim, all_images = model.embedding_dim, int(all_reduce(np.array([len(images)]))[0])
    moments = Moments(dim, compute.device) if all_images > dim else None
    callbacks = on_unreadable, advance, on_infinite
    steps = frozen_steps(loader, model, model.embedding, compute, *callbacks)
    return collect(steps, images, dim, moments)


def frozen_steps(
    loader: DataLoader[Batch],
    model: Network,
    forward: Callable[[Tensor], Tensor],
    compute: Compute,
    on_unreadable: Callable[[dict[int, str]], None],
    advance: Callable[[int], None],
    on_infinite: OnInfinite | None,
) -> Steps:
    """`forward_pass` with a network in eval mode, of which `forward` is a part; arguments as
    there."""
    was_training = model.training
    model.eval()
    yield from forward_pass(
        loader, forward, model.std, compute, on_unreadable, advance, on_infinite=on_infinite
    )
    model.train(was_training)


def collect(steps: Steps, images: range, dim: int, moments: Moments | None = None) -> Features:
    """The results of `forward_pass`, each `(B, dim) float16`, of some images as `Features`.

    Args:
        images: their indices in the data set.
        moments: the results are added to them.
    """
    rows = np.zeros((len(images), dim), np.float16)
    present = np.zeros(len(images), bool)
    for index, found, on_device in steps:
        rows[index - images.start] = found
        present[index - images.start] = True
        if moments is not None:
            moments.add(on_device)
    return Features(_compact(rows, present), present, moments)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a network in eval mode for a while."""
    was_training = model.training
    model.eval()
    yield
    model.train(was_training)


def forward_pass(
    loader: Iterable[Batch],
    forward: Callable[[Tensor], Tensor],
    std: Std,
    compute: Compute,
    on_unreadable: Callable[[dict[int, str]], None],
    advance: Callable[[int], None] = lambda done: None,
    dtype: torch.dtype = torch.float16,
    on_infinite: OnInfinite | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray, Tensor]]:
    """Run a frozen network over batches.

    Args:
        forward: from network input `(B, 3, H, W)` to results `(B, …)`; if a transform gives many
            crops of an image, the input has the crops of each image one after the other.
        std: the network's, for `to_input`.
        on_unreadable: called with the images that are left out and the reasons: those that cannot
            be decoded, and those whose results are NaN or infinite.
        advance: called with the number of images done in each step.
        dtype: of the results; half precision is enough for features.
        on_infinite: called first, with the batch number and the indices `(b,)` of the images with
            NaN or infinite results; may raise, as `raise_on_infinite` does.

    Yields for each batch the images' indices `(B,)`, and their results as an array and on the
    device. A batch is yielded after the next one has started, so that the host handles one while
    the device works on the other.
    """

    def arrived(
        number: int, index: np.ndarray, result: Tensor, on_its_way: ToHost
    ) -> tuple[np.ndarray, np.ndarray, Tensor]:
        found, finite = on_its_way.fetch()
        if finite.all():
            return index, found, result
        if on_infinite is not None:
            on_infinite(number, index[~finite])
        on_unreadable(dict.fromkeys(index[~finite].tolist(), NOT_FINITE))
        kept = torch.from_numpy(finite).to(result.device)
        return index[finite], found[finite], result[kept]

    before: list[tuple[int, np.ndarray, Tensor, ToHost]] = []
    number, largest = 0, torch.finfo(dtype).max
    for batch in loader:
        if batch.unreadable:
            on_unreadable(batch.unreadable)
        if len(batch.index) > 0:
            with compute.autocast():
                result = forward(to_input(batch.pixels, compute.device, std)).float()
            finite = torch.isfinite(result).flatten(1).all(dim=1)
            result = result.clamp(-largest, largest).to(dtype)
            step = number, batch.index.numpy(), result, ToHost(result, finite)
            yield from itertools.starmap(arrived, before)
            before, number = [step], number + 1
        advance(len(batch.index) + len(batch.unreadable))
    yield from itertools.starmap(arrived, before)


def raise_on_infinite(images: ImageList) -> OnInfinite:
    """An `on_infinite` for evaluations that need every image: it raises InputError."""

    def raise_error(_: int, index: np.ndarray) -> None:
        raise InputError(f"{images.where(int(index[0]))}: {NOT_FINITE}")

    return raise_error


def _compact(rows: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """`rows[kept]`, in place, because a copy would double the memory."""
    if kept.all():
        return rows
    wanted = np.flatnonzero(kept)
    for start in range(0, len(wanted), BLOCK):
        block = wanted[start : start + BLOCK]
        rows[start : start + len(block)] = rows[block]
    return rows[: len(wanted)]
