"""Linear classifiers on the conv layers of a frozen network (paper, section 4.2).

All of them are trained at once: one forward pass gives every layer's activations, and each
classifier has a gradient of its own.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from data.batch import Batch
from data.images import MOST_UNREADABLE
from data.transforms import to_input
from device import Compute
from distributed import all_reduce, data_parallel, weighted, world_size
from errors import InputError
from models import ConvNet
from models.pooling import probe_pool
from seeding import derive_seed
from util import learning_rate_decay

CENTRE = 4  # which of ten crops is the central one
TOP = 5


class Heads(nn.Module):
    """A linear classifier for each of some conv layers.

    Args:
        model: whose layers they are.
        layers: 1 for the first.
        classes: number of outputs.
        size: side of the input in pixels.
        seed: of the weights, N(0, 0.01); a layer's do not depend on the others.

    `forward` maps pooled activations by layer, each `(N, d) float32`, to logits `(N, classes)`.
    """

    @torch.no_grad()
    def __init__(
        self, model: ConvNet, layers: Sequence[int], classes: int, size: int, seed: int
    ) -> None:
        super().__init__()
        self.linear = nn.ModuleDict()
        self.pools = {}
        blank = torch.zeros(1, 3, size, size, device=next(model.parameters()).device)
        for layer, maps in model.each_conv_features(blank, layers):
            pool = probe_pool(model.arch, layer, maps)
            head = nn.Linear(pool(maps).numel(), classes)
            random = torch.Generator().manual_seed(derive_seed(seed, "linear probe", layer))
            nn.init.normal_(head.weight, 0.0, 0.01, generator=random)
            nn.init.zeros_(head.bias)
            self.pools[layer], self.linear[str(layer)] = pool, head

    @property
    def dimensions(self) -> dict[int, int]:
        """Dimensions d by layer."""
        return {layer: self._head(layer).in_features for layer in self.pools}

    def pooled(self, model: ConvNet, x: Tensor) -> dict[int, Tensor]:
        """What the classifiers see of images `(N, 3, H, W)`."""
        return {
            layer: self.pools[layer](maps).float().flatten(1)
            for layer, maps in model.each_conv_features(x, self.pools)
        }

    def forward(self, pooled: dict[int, Tensor]) -> dict[int, Tensor]:
        return {layer: self._head(layer)(x) for layer, x in pooled.items()}

    def _head(self, layer: int) -> nn.Linear:
        head = self.linear[str(layer)]
        assert isinstance(head, nn.Linear)
        return head


def train_epoch(
    model: ConvNet,
    heads: Heads,
    optimizer: torch.optim.SGD,
    loader: DataLoader[Batch],
    labels: Tensor,
    compute: Compute,
    *,
    lr: float,
    first_iteration: int,
    on_unreadable: Callable[[dict[int, str]], None],
    advance: Callable[[int], None],
) -> dict[int, float]:
    """Train the classifiers once through the loader; returns each one's mean loss.

    Args:
        labels: `(N,) int64` of all images, on the device.
        lr: the rate at iteration 0; see `learning_rate_decay`.
        first_iteration: number of the first batch, counted from the first epoch on.

    Raises:
        InputError: a loss is not finite, or too many images cannot be read.
    """
    layers = list(heads.pools)
    network = data_parallel(heads, compute.device)
    total = torch.zeros(len(layers), device=compute.device)
    count = unreadable = 0
    for iteration, batch in enumerate(loader, first_iteration):
        on_unreadable(batch.unreadable)
        unreadable += len(batch.unreadable)
        size = len(batch.index)
        if size > 0 or world_size() > 1:  # the others wait for this process's gradients
            pooled, target = _look(model, heads, batch, labels, compute)
            losses = [F.cross_entropy(logits, target) for logits in network(pooled).values()]
            learning_rate_decay(optimizer, iteration, lr)
            optimizer.zero_grad()
            weighted(torch.stack(losses).sum(), size).backward()
            optimizer.step()
            total += torch.stack(losses).detach() * size
            count += size
        advance(size + len(batch.unreadable))
    *sums, count, unreadable = all_reduce(
        np.array([*total.tolist(), count, unreadable], np.float64)
    ).tolist()
    _check_readable(int(unreadable), int(count + unreadable), "train on")
    means = {layer: value / count for layer, value in zip(layers, sums, strict=True)}
    for layer, mean in means.items():
        if not math.isfinite(mean):
            raise InputError(f"the loss of conv{layer} became {mean}; try a lower --lr")
    return means


def _look(
    model: ConvNet, heads: Heads, batch: Batch, labels: Tensor, compute: Compute
) -> tuple[dict[int, Tensor], Tensor]:
    """What the classifiers see of a batch, and its labels; of an empty one, a zero that counts
    nothing."""
    if len(batch.index) == 0:
        dims, device = heads.dimensions, compute.device
        blank = {layer: torch.zeros(1, dim, device=device) for layer, dim in dims.items()}
        return blank, torch.zeros(1, dtype=torch.int64, device=device)
    with torch.no_grad(), compute.autocast():
        pooled = heads.pooled(model, to_input(batch.pixels, compute.device))
    return pooled, labels[batch.index.to(compute.device, non_blocking=True)]


@torch.inference_mode()
def validate(
    model: ConvNet,
    heads: Heads,
    loader: DataLoader[Batch],
    labels: Tensor,
    compute: Compute,
    *,
    on_unreadable: Callable[[dict[int, str]], None],
    advance: Callable[[int], None],
) -> dict[int, dict[str, float]]:
    """Each classifier's `top1` and `top5` (fractions of 1) and mean `loss` over the images that the
    processes' loaders hold.

    An image that cannot be read counts as a mistake, and not in the loss. Batches with ten crops of
    an image, `(B, 10, 3, H, W)`, are scored by their mean softmax; the loss is the central one's.

    Raises:
        InputError: too many images cannot be read.
    """
    sums = {layer: torch.zeros(3, device=compute.device) for layer in heads.pools}
    seen = readable = 0
    for batch in loader:
        on_unreadable(batch.unreadable)
        size = len(batch.index)
        if size > 0:
            crops = batch.pixels.shape[1] if batch.pixels.ndim == 5 else 1
            pooled, target = _look(model, heads, batch, labels, compute)
            for layer, logits in heads(pooled).items():
                sums[layer] += _score(logits.view(size, crops, -1), target)
        seen, readable = seen + size + len(batch.unreadable), readable + size
        advance(size + len(batch.unreadable))
    found: dict[int, dict[str, float]] = {}
    for layer, each in sums.items():
        top1, top5, loss, all_seen, all_readable = all_reduce(
            np.array([*each.tolist(), seen, readable], np.float64)
        ).tolist()
        _check_readable(int(all_seen - all_readable), int(all_seen), "validate on")
        found[layer] = {
            "top1": top1 / all_seen, "top5": top5 / all_seen, "loss": loss / all_readable
        }  # fmt: skip
    return found


def _score(logits: Tensor, target: Tensor) -> Tensor:
    """How many of `(B, crops, classes)` logits have the target first, among the first five, and the
    sum of the central crop's losses, `(3,)`."""
    crops, classes = logits.shape[1:]
    # of a single crop the logits themselves: where they are far apart, softmax rounds to zero
    scores = logits.softmax(dim=2).mean(dim=1) if crops > 1 else logits[:, 0]
    ranked = scores.topk(min(TOP, classes)).indices
    hits = ranked == target[:, None]
    centre = logits[:, CENTRE if crops == 10 else 0]
    loss = F.cross_entropy(centre, target, reduction="sum")
    return torch.stack([hits[:, 0].sum(), hits.sum(), loss]).float()


def _check_readable(unreadable: int, images: int, use: str) -> None:
    if unreadable > MOST_UNREADABLE * images:
        raise InputError(
            f"--data: {unreadable} of {images} images to {use} cannot be read, more than "
            f"{MOST_UNREADABLE:.0%}, see above; mend or remove them"
        )


def best_epochs(history: list[dict[int, dict[str, Any]]]) -> dict[int, int]:
    """By layer, the epoch with the highest top-1 (the first of equals), which is what the paper's
    tables report."""
    return {
        layer: int(np.argmax([epoch[layer]["top1"] for epoch in history])) for layer in history[0]
    }
