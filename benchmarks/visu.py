"""Gradient ascent on the filters of each conv layer: many pictures at once, one at a time, and the
plain way: one at a time in float32 through the network's modules, with autograd's cross-entropy and
SciPy's blur.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import nn
from torch.nn import functional as F

from benchmarks.timing import add_rounds_flag, number, timed
from data.transforms import to_input
from models import ConvNet, add_arch_flag, untrained
from models.frozen import frozen
from system import cli, flags
from system.device import Compute, add_precision_flag, select_compute
from visu.ascent import Ascent, ascend, noise_of


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print a line for each layer. Returns the same as a dict."""
    compute = select_compute(args.device, args.precision)
    model = untrained(args.arch, True, 2, seed=0).to(compute.device)
    layers = args.conv or range(1, model.conv_layers + 1)
    ascent = Ascent(niter=args.niter)
    sys.stdout.write(
        f"{args.arch} at {ascent.idim} pixels, {args.niter} iterations; {compute.device} in "
        f"{compute.precision}, {torch.get_num_threads()} threads; iterations of a picture a "
        "second\n"
        f"{'':8}{f'batch {args.batch}':>10}{'batch 1':>10}{'plain':>10}"
        f"{'to batch 1':>12}{'to plain':>10}\n"
    )
    rates: dict[str, dict[str, float]] = {}
    with frozen(model):
        for layer in layers:
            ways = ways_to(model, layer, ascent, compute, args.batch, args.alone)
            rates[f"conv{layer}"] = measure(ways, args.niter, args.rounds)
            sys.stdout.write(row(f"conv{layer}", rates[f"conv{layer}"]))
            sys.stdout.flush()
    return {"iterations_per_second": rates}


def ways_to(
    model: ConvNet, layer: int, ascent: Ascent, compute: Compute, batch: int, alone: int
) -> dict[str, tuple[int, Callable[[], Any]]]:
    """For each way, the number of pictures that it makes, and a function that makes them."""
    few = range(alone)
    return {
        "batch": (batch, lambda: ascend(model, layer, range(batch), ascent, compute)),
        "alone": (alone, lambda: [ascend(model, layer, [each], ascent, compute) for each in few]),
        "plain": (alone, lambda: [plain(model, layer, each, ascent) for each in few]),
    }


def measure(
    ways: dict[str, tuple[int, Callable[[], Any]]], niter: int, rounds: int
) -> dict[str, float]:
    """Iterations of a picture per second of each way: the median of rounds in which the ways take
    turns."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(1 + rounds):
        for name, (_, work) in ways.items():
            seconds[name].append(timed(work).seconds)
    return {
        name: niter * count / float(np.median(seconds[name][1:]))
        for name, (count, _) in ways.items()
    }


def plain(model: ConvNet, layer: int, wanted: int, ascent: Ascent) -> torch.Tensor:
    """One filter's picture, `(1, 3, S, S)`, by straightforward code."""
    network = nn.Sequential(*model.modules_before_relu(layer))
    device = next(model.parameters()).device
    x = to_input(noise_of(layer, wanted, ascent.idim, 0)[None], device).contiguous()
    target = torch.tensor([wanted], device=device)
    for iteration in range(1, ascent.niter + 1):
        x.requires_grad_()
        before = network(x)
        means = F.relu(before).mean((2, 3))
        silent = F.one_hot(target, means.shape[1]).bool() & (means == 0)
        means = torch.where(silent, before.mean((2, 3)), means)
        objective = -F.cross_entropy(means, target) - ascent.wd * (x**2).sum()
        (gradient,) = torch.autograd.grad(objective, x)
        x = x.detach() + ascent.lr * gradient / gradient.norm()
        if iteration % ascent.step == 0:
            blurred = gaussian_filter(x.cpu().numpy(), (0, 0, ascent.sig, ascent.sig))
            x = torch.from_numpy(blurred).to(device)
    return x


def row(name: str, rate: dict[str, float]) -> str:
    """A line of the table."""
    cells = [number(rate[way], 10, 1) for way in ("batch", "alone", "plain")]
    ratios = [number(rate["batch"] / rate[way], 9, 2) for way in ("alone", "plain")]
    return f"{name:8}{''.join(cells)}  {ratios[0]}×{ratios[1]}×\n"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `run`, except the device."""
    add, at_least = parser.add_argument, cli.whole_number
    add_arch_flag(parser)
    add("--conv", nargs="+", type=at_least(1), help="conv layers; left out: all")
    flags.add_batch(parser, 8, "pictures at once", least=2)
    add("--alone", type=at_least(1), default=4, help="pictures to make one at a time")
    add("--niter", type=at_least(1), default=20, help="iterations")
    add_rounds_flag(parser)
    add_precision_flag(parser, "of our way; the plain way is in fp32")
