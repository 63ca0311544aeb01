"""Pictures that filters of a conv layer respond to, by gradient ascent from noise.

After Yosinski et al. (2015), as in the paper's Figure 4. A picture x is an input of the network:
colours from 0 to 1, with ImageNet's mean subtracted and divided by its standard deviation, channel
by channel. It starts as grey noise, 128 ± 20 (normally distributed) of 0 to 255, so that its values
have a standard deviation of about 0.35. Let a_j be filter j's activation after the ReLU, averaged
over all places. The objective of filter c is

    log softmax(a)_c − wd ‖x‖².

The first term is the negative cross-entropy between c and the layer's other filters. If c is
silent, a_c is the mean before the ReLU, which has a gradient. In each iteration x moves by lr times
the objective's gradient divided by its norm. So lr is a distance in the whole space of x; at
224 × 224 pixels, 3 is 0.008 for each value. Every `step` iterations x is blurred.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.transforms import to_colours, to_input
from models import ConvNet
from system.device import AUTOCAST, Compute
from system.normalisation import IMAGENET_STD, Std
from system.seeding import derive_seed
from visu.folded import folded

NOISE = 128.0, 20.0  # mean and standard deviation of the start, from 0 to 255
SHOWN = 0.5, 0.1  # mean and standard deviation of the final picture, from 0 to 1
TRUNCATE = 4.0  # radius of the blur's kernel, in standard deviations


@dataclass(frozen=True)
class Ascent:
    """The settings of the ascent.

    Attributes:
        lr: length of a step.
        wd: weight of ‖x‖².
        sig: standard deviation of the blur in pixels; 0 for none.
        step: iterations between blurs.
        niter: iterations in all.
        idim: side of the picture in pixels.
    """

    lr: float = 3.0
    wd: float = 1e-5
    sig: float = 0.3
    step: int = 5
    niter: int = 1000
    idim: int = 224


@dataclass(frozen=True)
class Ascended:
    """Pictures `(B, 3, S, S) uint8` on the CPU, and for each its filter's mean activation after the
    ReLU `(B,)`, at the start (the noise) and at the end."""

    pictures: Tensor
    start: Tensor
    end: Tensor


def ascend(
    model: ConvNet,
    layer: int,
    filters: Sequence[int],
    ascent: Ascent,
    compute: Compute,
    seed: int = 0,
    advance: Callable[[int], None] = lambda done: None,
) -> Ascended:
    """Make the pictures of some filters of a conv layer, all at once.

    A picture does not depend on the others in the batch, to the last bit on a device that rounds
    alike in batches of any size. CPUs do so in bf16. In float32 they do so except for a batch of
    one picture with maps of fewer than 20,480 values (AlexNet: below 160 pixels): there torch uses
    another kernel. The difference is 1e-7 at first and may grow until it is visible.

    Args:
        layer: 1 for the first.
        seed: of the noise, together with the layer and the filter.
        advance: called after each iteration with the number of pictures.
    """
    network = folded(model, layer).to(compute.device, AUTOCAST.get(compute.precision))
    wanted = torch.tensor(filters, device=compute.device)
    noise = torch.stack([noise_of(layer, each, ascent.idim, seed) for each in filters])
    x = to_input(noise, compute.device, model.std)
    start = None
    for iteration in range(1, ascent.niter + 1):
        gradient, mean = gradient_of_objective(network, x, wanted, ascent.wd)
        start = mean if start is None else start
        norm = torch.linalg.vector_norm(gradient, dim=(1, 2, 3), keepdim=True)
        # a gradient of zeros has no direction, and the picture stays the same
        x = x.addcmul_(gradient, ascent.lr / norm.clamp_min(torch.finfo(norm.dtype).tiny))
        if iteration % ascent.step == 0:
            x = blur(x, ascent.sig)
        advance(len(x))
    with torch.no_grad():
        end = _means(F.relu(_activations(network, x)))
    assert start is not None
    own = torch.arange(len(filters)), torch.tensor(filters)
    return Ascended(as_picture(x, model.std).cpu(), start.cpu(), end.cpu()[own])


def noise_of(layer: int, number: int, side: int, seed: int) -> Tensor:
    """The start of a filter's picture, `(3, side, side) uint8`."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "noise", layer, number))
    mean, deviation = NOISE
    noise = mean + deviation * torch.randn(3, side, side, generator=generator)
    return noise.round().clamp(0, 255).to(torch.uint8)


def gradient_of_objective(
    network: nn.Module, x: Tensor, filters: Tensor, wd: float
) -> tuple[Tensor, Tensor]:
    """The gradient `(B, 3, S, S)` of each picture's objective, and its filter's mean activation
    after the ReLU `(B,)`.

    Args:
        network: maps pictures, in its own precision, to activations before the ReLU.
        x: `(B, 3, S, S) float32`.
        filters: `(B,) int64`, one for each picture.
    """
    x = x.detach().requires_grad_()
    before = _activations(network, x)
    after = F.relu(before)
    rows = torch.arange(len(filters), device=filters.device)
    means = _means(after.detach())
    mean = means[rows, filters]
    silent = mean == 0
    some_silent = bool(silent.any())
    if some_silent:
        own = before[rows, filters]
        own_mean = own.detach().mean((1, 2), dtype=torch.float32)
        means[rows, filters] = torch.where(silent, own_mean, mean)
    slopes = slopes_of_objective(means, filters)
    # scaled to 1, so that they do not vanish in half precision
    scale = slopes.abs().amax(dim=1)[:, None, None, None].clamp_min(torch.finfo(torch.float32).tiny)
    weights = (slopes[:, :, None, None] / scale).to(after.dtype)
    outputs, gradients = [after], [weights.expand_as(after)]
    if some_silent:  # these filters have no gradient through the ReLU
        outputs.append(own)
        gradients.append((weights[rows, filters] * silent[:, None, None]).expand_as(own))
    (gradient,) = torch.autograd.grad(outputs, x, gradients)
    places = after.shape[2] * after.shape[3]
    return gradient.mul_(scale / places).sub_(x.detach(), alpha=2 * wd), mean


def slopes_of_objective(means: Tensor, filters: Tensor) -> Tensor:
    """The gradient `(B, C)` of log softmax(a)_c with regard to the mean activations a `(B, C)`:
    1 − p_c for filter c, and −p_j for the others."""
    rows = torch.arange(len(filters), device=filters.device)
    others = means.softmax(dim=1).index_put((rows, filters), means.new_zeros(()))
    # 1 − p_c is the sum of the other p_j, which are small and would be lost in rounding
    return (-others).index_put((rows, filters), others.sum(dim=1))


def _activations(network: nn.Module, x: Tensor) -> Tensor:
    return network(x.to(next(network.parameters()).dtype))


def _means(maps: Tensor) -> Tensor:
    """`(B, C, h, w)` → `(B, C) float32`, over all places."""
    return maps.mean((2, 3), dtype=torch.float32)


def blur(x: Tensor, sig: float) -> Tensor:
    """A Gaussian blur of square pictures `(N, 3, S, S)`, mirrored at their borders as in SciPy.

    Args:
        sig: standard deviation in pixels; 0 changes nothing.
    """
    radius = math.floor(TRUNCATE * sig + 0.5)
    if radius == 0:
        return x
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sig) ** 2)
    first, *others = (kernel / kernel.sum()).tolist()
    side = x.shape[2]
    mirrored = torch.from_numpy(np.pad(np.arange(side), radius, "symmetric")).to(x.device)
    for axis in (2, 3):
        longer = x.index_select(axis, mirrored)
        x = longer.narrow(axis, 0, side) * first
        for offset, weight in enumerate(others, 1):
            x.add_(longer.narrow(axis, offset, side), alpha=weight)
    return x


def as_picture(x: Tensor, std: Std = IMAGENET_STD) -> Tensor:
    """Inputs of a network `(N, 3, S, S)` → pictures to look at `(N, 3, S, S) uint8`: the colours of
    each are scaled to mean 0.5 and standard deviation 0.1, and clipped."""
    colours = to_colours(x, std)
    dims, (mean, deviation) = (1, 2, 3), SHOWN
    colours = colours - colours.mean(dims, keepdim=True)
    spread = colours.std(dims, correction=0, keepdim=True).clamp_min(torch.finfo(x.dtype).eps)
    return (colours / spread * deviation + mean).clamp(0, 1).mul(255).round().to(torch.uint8)
