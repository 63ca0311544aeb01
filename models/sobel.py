"""The fixed Sobel filters in front of a network, and their merge into its first convolution."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DERIVATIVE = ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0))


def sobel_filters() -> nn.Sequential:
    """Fixed filters `(N, 3, H, W)` → `(N, 2, H, W)`: grey as the mean of the channels, then the
    horizontal and the vertical Sobel derivative (paper, section 4)."""
    grey = nn.Conv2d(3, 1, kernel_size=1)
    sobel = nn.Conv2d(1, 2, kernel_size=3, padding=1)
    with torch.no_grad():
        grey.weight.fill_(1 / 3)
        sobel.weight.copy_(_derivatives())
        for convolution in (grey, sobel):
            assert convolution.bias is not None
            convolution.bias.zero_()
    return nn.Sequential(grey, sobel).requires_grad_(False)


def sobel_to_rgb(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """A convolution of the two Sobel channels as a convolution of RGB, for fine-tuning.

    On an image padded by 2 zeros, and with the same padding of its own, it gives the same maps as
    the Sobel filters without padding followed by the given convolution, also at the edges.

    Args:
        weight: `(C, 2, k, k)`.
        bias: `(C,)`, or None.

    Returns:
        The weight `(C, 3, k + 2, k + 2)`, and the bias as it is.
    """
    # two correlations, one after the other, are a correlation with the kernels' full convolution
    grey = F.conv_transpose2d(weight, _derivatives().to(weight))
    return (grey / 3).repeat(1, 3, 1, 1), bias


def _derivatives() -> Tensor:
    """`(2, 1, 3, 3)`: the kernels of the horizontal and the vertical derivative."""
    horizontal = torch.tensor(DERIVATIVE)
    return torch.stack([horizontal, horizontal.T]).unsqueeze(1)
