"""Linear classifiers on the layers of a frozen network (paper, section 4.2).

All classifiers train at once: one forward pass gives every layer's activations, and each classifier
has its own gradient.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from data.batch import Batch
from data.labelled import check_readable
from data.transforms import to_input
from evaluation.linear_norm import ChannelNorm
from evaluation.linear_scores import Accuracy, Precision, mean_loss
from models import Network
from models.layers import Layer, conv_layer, name_of, probe_pool
from parallel.collectives import all_reduce, data_parallel, weighted, world_size
from system.device import Compute
from system.errors import InputError
from system.seeding import derive_seed


class Heads(nn.Module):
    """A linear classifier for each given layer of a network.

    Args:
        layers: conv layers, 1 for the first, and `AVGPOOL`.
        classes: number of outputs.
        size: side of the input in pixels.
        seed: of the weights, N(0, 0.01); a layer's weights do not depend on the other layers.
        normalised: put batch norm without parameters before each classifier.

    `forward` maps the rows `(N, d) float32` that `normed` returns to logits `(N, classes)`, both by
    layer.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: Network,
        layers: Sequence[Layer],
        classes: int,
        size: int,
        seed: int,
        normalised: bool = False,
    ) -> None:
        super().__init__()
        self.linear, self.norm = nn.ModuleDict(), nn.ModuleDict()
        self.pools: dict[Layer, nn.Module] = {}
        self.conv_layers = {layer: conv_layer(model, layer) for layer in layers}
        blank = torch.zeros(1, 3, size, size, device=next(model.parameters()).device)
        maps = dict(model.each_conv_features(blank, self.conv_layers.values()))
        for layer, number in self.conv_layers.items():
            pool = probe_pool(model.arch, layer, maps[number])
            head = nn.Linear(pool(maps[number]).numel(), classes)
            counters = [layer] if isinstance(layer, int) else []
            random = torch.Generator().manual_seed(derive_seed(seed, "linear probe", *counters))
            nn.init.normal_(head.weight, 0.0, 0.01, generator=random)
            nn.init.zeros_(head.bias)
            self.pools[layer], self.linear[str(layer)] = pool, head
            if normalised:
                self.norm[str(layer)] = ChannelNorm(maps[number].shape[1])

    @property
    def dimensions(self) -> dict[Layer, int]:
        """The classifiers' input dimensions d by layer."""
        return {layer: self._head(layer).in_features for layer in self.pools}

    def pooled(self, model: Network, x: Tensor) -> dict[Layer, Tensor]:
        """Images `(N, 3, H, W)` → pooled activations `(N, d) float32` by layer."""
        found = {}
        for number, maps in model.each_conv_features(x, self.conv_layers.values()):
            for layer, pool in self.pools.items():
                if self.conv_layers[layer] == number:
                    found[layer] = pool(maps).float().flatten(1)
        return found

    def normed(self, pooled: dict[Layer, Tensor]) -> dict[Layer, Tensor]:
        """Apply batch norm, if there is any. In train mode all processes call this together."""
        if not self.norm:
            return pooled
        return {layer: self.norm[str(layer)](pooled[layer]) for layer in self.pools}

    def forward(self, seen: dict[Layer, Tensor]) -> dict[Layer, Tensor]:
        return {layer: self._head(layer)(seen[layer]) for layer in self.pools}

    def _head(self, layer: Layer) -> nn.Linear:
        head = self.linear[str(layer)]
        assert isinstance(head, nn.Linear)
        return head


def train_epoch(
    model: Network,
    heads: Heads,
    optimizer: torch.optim.SGD,
    loader: DataLoader[Batch],
    labels: Tensor,
    compute: Compute,
    *,
    set_rate: Callable[[int], None],
    on_unreadable: Callable[[dict[int, str]], None],
    advance: Callable[[int], None],
) -> dict[Layer, float]:
    """Train the classifiers for one pass over the loader. Returns each one's mean loss.

    Args:
        labels: of all images, on the device: `(N,) int64`, or `(N, C) int8` for several of each.
        set_rate: called with each batch's number, from 0 on, before its step.

    Raises:
        InputError: a loss is not finite, or too many images cannot be read.
    """
    layers = list(heads.pools)
    network = data_parallel(heads.train(), compute.device)
    total = torch.zeros(len(layers), device=compute.device)
    count, unreadable, reasons = 0, 0, set[str]()
    for number, batch in enumerate(loader):
        on_unreadable(batch.unreadable)
        unreadable += len(batch.unreadable)
        reasons |= {*batch.unreadable.values()}
        size = len(batch.index)
        if size > 0 or world_size() > 1:  # the others wait for this process's gradients
            seen, target = _look(model, heads, batch, labels, compute)
            losses = [mean_loss(logits, target) for logits in network(seen).values()]
            set_rate(number)
            optimizer.zero_grad()
            weighted(torch.stack(losses).sum(), size).backward()
            optimizer.step()
            total += torch.stack(losses).detach() * size
            count += size
        advance(size + len(batch.unreadable))
    *sums, count, unreadable = all_reduce(
        np.array([*total.tolist(), count, unreadable], np.float64)
    ).tolist()
    check_readable(int(unreadable), int(count + unreadable), "train on", reasons)
    means = {layer: value / count for layer, value in zip(layers, sums, strict=True)}
    for layer, mean in means.items():
        if not math.isfinite(mean):
            raise InputError(f"the loss of {name_of(layer)} became {mean}; try a lower --lr")
    return means


def _look(
    model: Network, heads: Heads, batch: Batch, labels: Tensor, compute: Compute
) -> tuple[dict[Layer, Tensor], Tensor]:
    """The classifiers' input for a batch, and its labels. For an empty batch, one row of zeros,
    which the caller gives weight 0."""
    if len(batch.index) == 0:
        dims, device = heads.dimensions, compute.device
        heads.normed({layer: torch.zeros(0, dim, device=device) for layer, dim in dims.items()})
        blank = {layer: torch.zeros(1, dim, device=device) for layer, dim in dims.items()}
        return blank, labels.new_zeros(1, *labels.shape[1:])
    with torch.no_grad(), compute.autocast():
        pooled = heads.pooled(model, to_input(batch.pixels, compute.device, model.std))
    return heads.normed(pooled), labels[batch.index.to(compute.device, non_blocking=True)]


@torch.inference_mode()
def validate(
    model: Network,
    heads: Heads,
    loader: DataLoader[Batch],
    labels: Tensor,
    compute: Compute,
    *,
    on_unreadable: Callable[[dict[int, str]], None],
    advance: Callable[[int], None],
) -> dict[Layer, dict[str, Any]]:
    """Each classifier's `top1` and `top5` (fractions of 1) and mean `loss` over the images of all
    processes; in the place of accuracies the `mAP` and the `AP` by class, if images have several
    labels.

    An unreadable image counts as a mistake, or is ranked last, and not in the loss. If a batch has
    ten crops of each image, `(B, 10, 3, H, W)`, the mean softmax is scored, or the mean of the
    logits for several labels; the loss is the central crop's.

    Args:
        labels: see `train_epoch`.

    Raises:
        InputError: too many images cannot be read.
    """
    heads.eval()
    score = Precision if labels.ndim == 2 else Accuracy
    scores = {layer: score(labels) for layer in heads.pools}
    shown, readable, reasons = 0, 0, set[str]()
    for batch in loader:
        on_unreadable(batch.unreadable)
        reasons |= {*batch.unreadable.values()}
        size = len(batch.index)
        if size > 0:
            crops = batch.pixels.shape[1] if batch.pixels.ndim == 5 else 1
            seen, target = _look(model, heads, batch, labels, compute)
            for layer, logits in heads(seen).items():
                scores[layer].add(batch.index, logits.view(size, crops, -1), target)
        shown, readable = shown + size + len(batch.unreadable), readable + size
        advance(size + len(batch.unreadable))
    all_shown, all_readable = all_reduce(np.array([shown, readable])).tolist()
    check_readable(all_shown - all_readable, all_shown, "validate on", reasons)
    return {layer: each.found(all_shown, all_readable) for layer, each in scores.items()}
