"""Features of a network, written to disk in shards and whitened from there, so that memory does not
grow with the number of images."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from cluster.components import Components
from cluster.moments import Moments
from cluster.whitening import Normalisation, Preparation, Whitening, fit_whitening
from data.images import ImageList
from data.loading import Batch
from data.unreadable import NameUnreadable
from features.forward import forward_pass
from features.rows import Shards
from models import Network
from models.layers import probe_pool
from parallel.collectives import gather_objects, rank, shard_of, together
from system.device import Compute
from system.errors import InputError
from system.normalisation import Std
from system.progress import progress

Forward = Callable[[Tensor], Tensor]


def features_of(model: Network, conv: int | None, pool: str | None) -> Forward:
    """A function from `(B, 3, H, W)` images to `(B, D)` features.

    Args:
        conv: the conv layer, 1 for the first; None for the embedding.
        pool: `probe` or `average` for a conv layer; None is `probe`.

    Raises:
        InputError: the network has no such layer, or `pool` is given without `conv`.
    """
    if conv is None:
        if pool is not None:
            raise InputError(f"--pool {pool}: applies to conv layers; name one with --conv")
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
    """The dimensions D of the features of images of `size` × `size` pixels."""
    return forward(torch.zeros(1, 3, size, size, device=device)).shape[1]


@torch.inference_mode()
def extract(
    shards: Shards,
    missing: Sequence[int],
    images: ImageList,
    load: Callable[[np.ndarray], Iterable[Batch]],
    forward: Forward,
    std: Std,
    compute: Compute,
) -> dict[int, str]:
    """Compute this process's share of the missing shards.

    Args:
        missing: their numbers, ascending, the same in all processes.
        load: makes the batches of some images, in their order, which divide the shards.
        forward, std: as in `forward_pass`; to `(B, D)`.

    Returns the images of the whole data set that have no row, with the reasons.
    """
    own = [missing[i] for i in shard_of(len(missing))]
    order = np.concatenate([np.arange(0), *map(shards.images_of, own)])
    name, bad = NameUnreadable(images), dict[int, str]()

    def leave_out(unreadable: dict[int, str]) -> None:
        name(unreadable)
        bad.update(unreadable)

    dtype = torch.float16 if shards.none.dtype.itemsize == 2 else torch.float32
    with progress("features", len(order), "images", rank() == 0) as advance:
        steps = forward_pass(load(order), forward, std, compute, leave_out, advance, dtype)
        for number, rows in by_shard(steps, shards, own):
            here = shards.images_of(number)
            shards.write(number, rows, {image: bad[image] for image in here if image in bad})
    every: dict[int, str] = {}
    with together():
        for number in sorted(set(range(len(shards))) - set(missing)) if rank() == 0 else ():
            every |= shards.bad(number)
    for part in gather_objects(every | bad):
        every |= part
    return every


def by_shard(
    steps: Iterable[tuple[np.ndarray, np.ndarray, Tensor]], shards: Shards, own: Sequence[int]
) -> Iterator[tuple[int, np.ndarray]]:
    """Collect the results of `forward_pass` over some shards, in order: yields each shard's number
    and its rows, without the images that have none."""
    left, parts = deque(own), [shards.none]
    for index, rows, _ in steps:
        while len(index) > 0 and index[0] not in shards.images_of(left[0]):
            yield left.popleft(), np.concatenate(parts)
            parts = [shards.none]
        parts.append(rows)
    for number in left:
        yield number, np.concatenate(parts)
        parts = [shards.none]


def fit(shards: Shards, count: int, components: Components, device: torch.device) -> Preparation:
    """The whitening of all `count` rows, with `components`, or with fewer if the rows have fewer
    directions.

    Raises:
        InputError: they cannot be whitened.
    """
    if components == 0:
        return Normalisation()
    own, dim = shards.blocks(shard_of(len(shards))), shards.none.shape[1]
    try:
        if count <= dim:
            whitening = fit_whitening(np.concatenate([shards.none, *own]), components, device)
        else:
            moments = Moments(dim, device)
            for block in own:
                moments.add(torch.from_numpy(block))
            whitening = fit_whitening(moments, components)
    except ValueError as error:
        raise InputError(f"--whiten {components}: {error}") from error
    directions = int(whitening.matrix.any(axis=0).sum())
    if directions == 0:
        raise InputError(f"--whiten {components}: all rows are the same")
    return Whitening(whitening.mean, np.ascontiguousarray(whitening.matrix[:, :directions]))
