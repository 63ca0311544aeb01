"""`--shard_heads`: sub-heads that are too large for one device, spread over the processes.

Each process has some sub-classes of every super-class: rows of its sub-head. It gets the features
of all processes, and scores each with its rows of the sub-head of the feature's super-class. The
softmax over all sub-classes needs a maximum and a sum over the processes for each image. Losses and
gradients are those of `methods.two_level`, but the gradients of sub-heads never travel.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.two_level import Scores, SubHeads, TwoLevelHeads, new_layer
from parallel.collectives import (
    add_up,
    gather_alike,
    gather_rows,
    rank,
    shard_of,
    sum_own_share,
    take_max,
    world_size,
)
from system.errors import InputError
from system.seeding import derive_seed

WHOLE = 2**31  # bytes of the sub-heads up to which a checkpoint holds them whole


class ShardedHeads(nn.Module):
    """As `methods.two_level.TwoLevelHeads`, of which a process has some rows.

    The sub-heads are none of its submodules, so that `DistributedDataParallel`, which wants the
    same parameters in all processes, doesn't see them; `Spread` has both.

    Args:
        features, classes, clusters: D, S and K as of `SubHeads`; K is at least the number of
            processes.
        batch: images in a batch of all processes.
        device: of the sub-heads.

    Attributes:
        own: the sub-classes of this process, the same ones of each super-class.
        optimizer: of the sub-heads.
    """

    def __init__(
        self, features: int, classes: int, clusters: int, batch: int, device: torch.device
    ) -> None:
        super().__init__()
        self.super = nn.utils.skip_init(nn.Linear, features, classes)
        self.clusters, self.own = clusters, shard_of(clusters)
        self._hidden = (SubHeads(features, classes, len(self.own)).to(device),)
        self._share = -(-batch // world_size())
        self.optimizer = torch.optim.SGD(self.sub.parameters(), fused=True)

    @property
    def sub(self) -> SubHeads:
        """This process's rows: weight `(S, K', D)` and bias `(S, K')`."""
        return self._hidden[0]

    def forward(
        self, features: Tensor, super_target: Tensor, counts: Sequence[int] | None = None
    ) -> Scores:
        """Features `(B, D)` before the ReLU → the scores of the super-classes, `(B, S)`, and the
        features after the ReLU. Those of all processes are counted in `losses`."""
        features = features.relu()
        return self.super(features), features

    def losses(self, scores: Scores, super_target: Tensor, sub_target: Tensor) -> Tensor:
        """The cross-entropies of both levels.

        Args:
            scores: as returned by `forward`, of this process's B images.
            super_target, sub_target: `(B,) int64`.

        Returns:
            `(2, B) float32`.
        """
        super_scores, features = scores
        super_loss = F.cross_entropy(super_scores.float(), super_target, reduction="none")
        targets = torch.stack([super_target, sub_target], dim=1)
        everyone = _Gathered.apply(_padded(features, self._share, 0))
        all_targets = gather_alike(_padded(targets, self._share, -1))
        sub_loss = self._sub_losses(everyone, *all_targets.T)
        first = rank() * self._share
        return torch.stack([super_loss, sub_loss[first : first + len(features)]])

    def _sub_losses(self, features: Tensor, super_target: Tensor, sub_target: Tensor) -> Tensor:
        """The cross-entropies `(M,)` of the sub-classes of the images of all processes; of padding,
        with targets of −1, it is 0."""
        order = super_target.argsort(stable=True)
        weight, bias = self.sub.weight, self.sub.bias
        blank, *counts = (super_target + 1).bincount(minlength=len(weight) + 1).tolist()
        order = order[blank:]
        blocks = zip(features[order].split(counts), weight, bias, strict=True)
        scores = torch.cat([F.linear(*block).float() for block in blocks])
        scores = scores - take_max(scores.detach().amax(dim=1))[:, None]
        place = sub_target[order] - self.own.start
        is_own = (place >= 0) & (place < len(self.own))
        score = scores.gather(1, place.clamp(0, len(self.own) - 1)[:, None])[:, 0]
        sums = torch.stack([scores.exp().sum(dim=1), score.where(is_own, torch.zeros_like(score))])
        total, wanted = _AddedUp.apply(sums)
        losses = total.log() - wanted
        return losses.new_zeros(len(features)).index_copy(0, order, losses)

    @torch.no_grad()
    def reset(self, seed: int, epoch: int, with_super: bool) -> None:
        """As of `TwoLevelHeads`, with the same weights; the sub-heads' momentum is dropped."""
        self.optimizer.state.clear()
        own = slice(self.own.start, self.own.stop)
        sub_layers = zip(self.sub.weight, self.sub.bias, strict=True)
        layers = [(layer, self.clusters, own) for layer in sub_layers]
        if with_super:
            layer = self.super.weight, self.super.bias
            layers.append((layer, self.super.out_features, slice(None)))
        for number, (layer, outputs, rows) in enumerate(layers):
            seed_of_layer = derive_seed(seed, "heads", epoch, number)
            new = new_layer(outputs, self.super.in_features, seed_of_layer)
            for weights, drawn in zip(layer, new, strict=True):
                weights.copy_(drawn[rows])

    def group(self, settings: dict[str, Any]) -> dict[str, Any]:
        """As of `TwoLevelHeads`. The optimiser is the heads' own: its momentum differs between the
        processes."""
        self.optimizer.param_groups[0].update(settings)
        group = {"params": self.sub.parameters(), **settings}
        return {**group, "reset": True, "optimizer": self.optimizer}

    def to_plain(self) -> dict[str, Any]:
        """What a checkpoint keeps of them: `heads` and `momentum`, in process 0 whole if they fit.
        If they don't fit, each process has its own rows in `slices`."""
        heads = {f"sub.{name}": rows.detach() for name, rows in self.sub.named_parameters()}
        momentum = dict(self._momenta())
        size_of_one = sum(rows[:, :1].nbytes for rows in self.sub.parameters())
        if size_of_one * self.clusters > WHOLE:
            slices = {"heads": heads, "momentum": momentum}
            return {"heads": self.state_dict(), "momentum": {}, "slices": slices}
        whole_heads = {name: _whole(rows) for name, rows in heads.items()}
        whole_momentum = {name: _whole(rows) for name, rows in momentum.items()}
        return {"heads": {**self.state_dict(), **whole_heads}, "momentum": whole_momentum}

    def load_plain(self, plain: dict[str, Any]) -> None:
        """Load what `to_plain` returned, whole or with `slices` in their places.

        Raises:
            RuntimeError: it is of other sizes.
            InputError: it is of `TwoLevelHeads`.
        """
        if "momentum" not in plain:
            raise InputError("--shard_heads: the run of --resume began without it; leave it out")
        heads = dict(plain["heads"])
        try:
            names = [f"sub.{name}" for name, _ in self.sub.named_parameters()]
            rows = {name.removeprefix("sub."): self._cut(heads.pop(name)) for name in names}
            momenta = {name: self._cut(rows) for name, rows in plain["momentum"].items()}
        except (LookupError, AttributeError) as error:
            raise RuntimeError("sub-heads are missing") from error
        self.sub.load_state_dict(rows)
        self.load_state_dict(heads)
        for name, parameter in self.sub.named_parameters():
            if momenta:
                momentum = momenta.get(f"sub.{name}")
                if momentum is None or momentum.shape != parameter.shape:
                    raise RuntimeError("the sub-heads' momentum does not fit")
                own = momentum.to(parameter.device, parameter.dtype, copy=True)
                self.optimizer.state[parameter]["momentum_buffer"] = own

    def _momenta(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self.sub.named_parameters():
            buffer = self.optimizer.state.get(parameter, {}).get("momentum_buffer")
            if buffer is not None:
                yield f"sub.{name}", buffer

    def _cut(self, rows: Tensor) -> Tensor:
        """This process's rows of a whole tensor `(S, K, …)`; its own rows as they are."""
        whole = rows.shape[1] == self.clusters
        return rows[:, self.own.start : self.own.stop] if whole else rows


def make_heads(
    args: argparse.Namespace, features: int, classes: int, clusters: int, device: torch.device
) -> TwoLevelHeads | ShardedHeads:
    """The heads that the flags of `main.py` ask for; sizes as of `SubHeads`."""
    if args.shard_heads:
        return ShardedHeads(features, classes, clusters, args.batch, device)
    return TwoLevelHeads(features, classes, clusters)


def with_own_rows(net: nn.Module, heads: nn.Module) -> nn.Module:
    """All that is trained: the net, and the sub-heads that it doesn't show."""
    return Spread(net, heads.sub) if isinstance(heads, ShardedHeads) else net


class Spread(nn.Module):
    """A net that is the same in all processes, and rows that differ.

    Attributes:
        replicated: the part for `parallel.collectives.data_parallel`.
    """

    def __init__(self, replicated: nn.Module, sub: SubHeads) -> None:
        super().__init__()
        self.replicated, self.sub = replicated, sub


class _Gathered(torch.autograd.Function):
    """The rows of all processes. Losses are means over the processes (`_AddedUp`), and so are the
    gradients that `DistributedDataParallel` makes of those of these rows, hence the factor."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        return gather_alike(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        return (sum_own_share(gradient.float()) * world_size()).to(gradient.dtype)


class _AddedUp(torch.autograd.Function):
    """The sum over the processes, from which each computes a loss of its own. The gradient is that
    of the mean of these losses, as with `DistributedDataParallel`."""

    @staticmethod
    def forward(ctx: Any, terms: Tensor) -> Tensor:
        return add_up(terms.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return add_up(gradients[0].clone()) / world_size()


def _padded(rows: Tensor, length: int, value: int) -> Tensor:
    """`(length, …)`: rows, and then rows of a value."""
    return F.pad(rows, (0, 0, 0, length - len(rows)), value=value)


def _whole(rows: Tensor) -> Tensor:
    """The rows `(S, K', …)` of all processes, `(S, K, …)`, on the CPU of process 0; in the others
    nothing."""
    blocks = (gather_rows(block.cpu().numpy()) for block in rows)
    kept = [torch.from_numpy(block) for block in blocks if rank() == 0]
    return torch.stack(kept) if kept else torch.empty(0)
