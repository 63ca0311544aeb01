"""A frozen network up to a conv layer, as fewer and larger operations with the same results."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.convnet import ConvNet


def folded(model: ConvNet, layer: int) -> nn.Sequential:
    """The network from images `(N, 3, H, W)` to the activations `(N, C, h, w)` of a conv layer
    before its ReLU, in eval mode, for the gradient with regard to the images.

    Batch norms are folded into the convolutions before them. A convolution with a stride becomes
    one over blocks of pixels: the gradient with regard to few channels is slow, and takes most of
    the time of AlexNet's first layer. The results are the model's except for rounding. The weights
    are copies without gradients.

    Args:
        layer: 1 for the first.
    """
    modules: list[nn.Module] = []
    for module in copy.deepcopy(model.modules_before_relu(layer)):
        module.eval()
        if isinstance(module, nn.BatchNorm2d):
            convolution = modules[-1]
            assert isinstance(convolution, nn.Conv2d)
            modules[-1] = fuse_conv_bn_eval(convolution, module)
        else:
            modules.append(module)
    layers = [
        BlockConvolution(module)
        if isinstance(module, nn.Conv2d) and module.stride[0] > 1
        else module
        for module in modules
    ]
    network = nn.Sequential(*layers).requires_grad_(False)
    return network.to(memory_format=torch.channels_last)


class BlockConvolution(nn.Module):
    """A convolution with stride s, computed with stride 1 over blocks of s × s pixels, whose values
    become channels.

    Args:
        convolution: square, with one group and no dilation.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.stride, self.side = convolution.stride[0], convolution.kernel_size[0]
        self.padding = int(convolution.padding[0])
        self.blocks = -(-self.side // self.stride)  # the kernel's side, in blocks
        missing = self.blocks * self.stride - self.side
        weight = F.pad(convolution.weight.detach(), (0, missing, 0, missing))
        self.weight = nn.Parameter(F.pixel_unshuffle(weight, self.stride))
        self.bias = convolution.bias

    def forward(self, x: Tensor) -> Tensor:
        after = []  # padding below and on the right up to whole blocks; negative to cut rows
        for length in x.shape[2:]:
            outputs = (length + 2 * self.padding - self.side) // self.stride + 1
            after.append((outputs - 1 + self.blocks) * self.stride - length - self.padding)
        x = F.pad(x, (self.padding, after[1], self.padding, after[0]))
        x = F.pixel_unshuffle(x, self.stride).contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, self.weight, self.bias)
