"""Run by test_sharded.py in several processes: losses and gradients of sub-heads that are spread
over them, each process with its share of a batch.

Usage: sharded_heads.py IN.npz OUT.npz, with the features `(B, D)`, both targets `(B,)`, the shares:
the numbers of rows of the processes, and whether products are in half precision.
"""

import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from methods.sharded import ShardedHeads, Spread
from methods.two_level import Scores
from parallel.collectives import data_parallel, gather_rows, process_group, rank, weighted

CPU = torch.device("cpu")
CLASSES, CLUSTERS, DIM, SEED = 4, 7, 5, 2


class Net(nn.Module):
    """A linear layer in the place of a network, and heads; for float64 and for processes."""

    def __init__(self, heads: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(SEED)
        self.body, self.heads = nn.Linear(DIM, DIM), heads

    def forward(self, rows: Tensor, super_target: Tensor) -> Scores:
        return self.heads(self.body(rows), super_target)


def main() -> None:
    given = np.load(sys.argv[1])
    shares = given["shares"].tolist()
    own = slice(sum(shares[: rank()]), sum(shares[: rank() + 1]))
    rows, *targets = (torch.from_numpy(given[name][own]) for name in ("rows", "super", "sub"))
    heads = ShardedHeads(DIM, CLASSES, CLUSTERS, max(shares) * len(shares), CPU)
    heads.reset(SEED, 0, with_super=True)
    net = Net(heads)
    forward = data_parallel(Spread(net, heads.sub), CPU)
    assert isinstance(forward, DistributedDataParallel)
    size = len(rows)
    if size == 0:  # as with a blank image
        rows, targets = torch.ones(1, DIM), [torch.zeros(1, dtype=torch.int64)] * 2
    with torch.autocast("cpu", torch.bfloat16, enabled=bool(given["half"])):
        losses = heads.losses(forward(rows, targets[0]), *targets)
    weighted(losses.sum(dim=0).mean(), size).backward()
    results: dict[str, Any] = {"losses": gather_rows(losses.detach()[:, :size].T.numpy())}
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None
        results[name] = parameter.grad.numpy()
    for name, parameter in heads.sub.named_parameters():
        assert parameter.grad is not None
        found = gather_rows(parameter.grad.transpose(0, 1).contiguous().numpy())
        results[f"heads.sub.{name}"] = found.swapaxes(0, 1)
    if rank() == 0:
        np.savez(sys.argv[2], **results)


if __name__ == "__main__":
    with process_group():
        main()
