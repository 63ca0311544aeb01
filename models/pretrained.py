"""Torchvision's VGG-16 as a network of ours."""

import torch
from torch import Tensor
from torchvision.models import VGG16_BN_Weights

from models.convnet import ConvNet
from models.vgg16 import vgg16
from system.errors import InputError

WEIGHTS = VGG16_BN_Weights.IMAGENET1K_V1


def pretrained_vgg16() -> ConvNet:
    """Torchvision's VGG-16 with batch norm, trained with ImageNet's labels. The weights come from
    torch's cache, or are downloaded into it.

    Raises:
        InputError: neither works; says where to put the file.
    """
    name = WEIGHTS.url.rsplit("/", 1)[-1]
    try:
        weights = WEIGHTS.get_state_dict(progress=False, check_hash=True, weights_only=True)
        return as_vgg16(weights)
    except Exception as error:  # of the network, the disk or a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"pretrained: cannot load torchvision's {name}: {reason}; without internet access, put "
            f"this file into {torch.hub.get_dir()}/checkpoints"
        ) from error


def as_vgg16(weights: dict[str, Tensor]) -> ConvNet:
    """The network with the weights of a torchvision `vgg16_bn`; only the last layer's name
    differs."""
    with torch.device("meta"):  # drawing random weights would take seconds
        model = vgg16(sobel=False, out=len(weights["classifier.6.bias"]))
    renamed = {name.replace("classifier.6.", "top_layer."): w for name, w in weights.items()}
    model.load_state_dict(renamed, assign=True)
    return model
