"""Features of a network, written to disk as they come, and their whitening from there: memory
does not grow with the number of images."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cluster.whitening import Moments, Whitening, fit_whitening
from data.images import ImageList, NameUnreadable
from data.loading import Batch
from features.forward import BLOCK, forward_pass
from features.rows import PartialRows
from models import ConvNet
from models.layers import probe_pool
from parallel.collectives import broadcast, gather_objects, rank, shard_of
from system.device import Compute
from system.errors import InputError
from system.progress import progress

SECONDS_BETWEEN_COMMITS = 10.0

Forward = Callable[[Tensor], Tensor]


def features_of(model: ConvNet, conv: int | None, pool: str | None) -> Forward:
    """What gives `(B, D)` features of `(B, 3, H, W)` images.

    Args:
        conv: the conv layer, 1 for the first; None for the embedding.
        pool: of a conv layer, `probe` or `average`; None is `probe`.

    Raises:
        InputError: the network has no such layer, or there is nothing to pool.
    """
    if conv is None:
        if pool is not None:
            raise InputError(f"--pool {pool}: is of conv layers; name one with --conv")
        return model.embedding
    if conv > model.conv_layers:
        raise InputError(f"--conv {conv}: {model.arch} has conv layers 1 to {model.conv_layers}")

    def pooled(x: Tensor) -> Tensor:
        maps = model.conv_features(x, conv).float()
        if pool == "average":
            return maps.mean(dim=(2, 3))
        return probe_pool(model.arch, conv, maps)(maps).flatten(1)

    return pooled


@torch.inference_mode()
def dimensions(forward: Forward, size: int, device: torch.device) -> int:
    """The D of the features of images of `size` × `size` pixels."""
    return forward(torch.zeros(1, 3, size, size, device=device)).shape[1]


@torch.inference_mode()
def extract(
    rows: PartialRows,
    images: ImageList,
    batch: int,
    load: Callable[[np.ndarray], DataLoader[Batch]],
    forward: Forward,
    compute: Compute,
) -> dict[int, str]:
    """Fill in the rows that are missing, this process its share of them.

    Args:
        load: gives a loader of batches of `batch` of some images, in their order.
        forward: as in `forward_pass`, to `(B, D)`.

    Returns the images, of all, that have no row, with the reasons.
    """
    # as process 0 has it: others may see a network's disk as it was a moment ago
    done, known_bad = broadcast(rows.done), gather_objects(rows.bad)[0]
    order = own_share(np.flatnonzero(~done), batch)
    name, bad = NameUnreadable(images), dict[int, str]()
    last, committed = time.monotonic(), 0  # images of `order`

    def leave_out(unreadable: dict[int, str]) -> None:
        name(unreadable)
        bad.update(unreadable)

    def commit(start: int, stop: int) -> None:
        part = order[start:stop]
        rows.commit(part, {index: bad[index] for index in part.tolist() if index in bad})

    dtype = torch.float16 if rows.form.dtype.itemsize == 2 else torch.float32
    with progress("features", len(order), "images", rank() == 0) as advance:
        steps = forward_pass(load(order), forward, compute, leave_out, advance, dtype)
        for index, found, _ in steps:
            rows.write(index, found)
            if len(index) > 0 and time.monotonic() - last >= SECONDS_BETWEEN_COMMITS:
                stop = (int(np.searchsorted(order, index[0])) // batch + 1) * batch
                commit(committed, stop)
                last, committed = time.monotonic(), stop
    commit(committed, len(order))
    every = dict(known_bad)
    for part in gather_objects(bad):
        every |= part
    return every


def own_share(images: np.ndarray, batch: int) -> np.ndarray:
    """This process's share of images `(M,)`, ascending: whole batches of the data set, so that the
    images of a batch, and with them every bit of a row, are the same for any number of processes
    and after an interruption."""
    batches = np.unique(images // batch)
    return images[np.isin(images // batch, batches[shard_of(len(batches))])]


def fit(rows: np.ndarray, present: np.ndarray, components: int, device: torch.device) -> Whitening:
    """The whitening of those of rows `(N, D)` that are there, with as many components as are
    wanted, or as they have directions.

    Raises:
        InputError: they have no whitening.
    """
    own, dim = present[shard_of(len(present))], rows.shape[1]
    try:
        if len(present) <= dim:
            whitening = fit_whitening(rows[own], components, device)
        else:
            moments = Moments(dim, device)
            for block in blocks_of(rows, own):
                moments.add(torch.from_numpy(block))
            whitening = fit_whitening(moments, components)
    except ValueError as error:
        raise InputError(f"--whiten {components}: {error}") from error
    directions = int(whitening.matrix.any(axis=0).sum())
    if directions == 0:
        raise InputError(f"--whiten {components}: all rows are the same")
    return Whitening(whitening.mean, np.ascontiguousarray(whitening.matrix[:, :directions]))


def blocks_of(rows: np.ndarray, wanted: np.ndarray) -> Iterator[np.ndarray]:
    """`rows[wanted]`, in memory block by block."""
    for start in range(0, len(wanted), BLOCK):
        yield np.asarray(rows[wanted[start : start + BLOCK]])
