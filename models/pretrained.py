"""Networks of other origin, as ours."""

import torch
from torch import Tensor
from torchvision.models import VGG16_BN_Weights

from models.convnet import ConvNet
from models.vgg16 import vgg16
from system.errors import InputError

WEIGHTS = VGG16_BN_Weights.IMAGENET1K_V1


def pretrained_vgg16() -> ConvNet:
    """Torchvision's VGG-16 with batch norm, trained with ImageNet's labels; the weights come from
    torch's cache, or are downloaded into it.

    Raises:
        InputError: neither works.
    """
    name = WEIGHTS.url.rsplit("/", 1)[-1]
    try:
        weights = WEIGHTS.get_state_dict(progress=False, check_hash=True, weights_only=True)
        return as_vgg16(weights)
    except Exception as error:  # the net, the disk, a damaged file: each raises its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"pretrained: cannot load torchvision's {name}: {reason}; where there is no net, put "
            f"this file into {torch.hub.get_dir()}/checkpoints"
        ) from error


def as_vgg16(weights: dict[str, Tensor]) -> ConvNet:
    """The network of a torchvision `vgg16_bn`'s weights: the same but for the name of its last
    layer."""
    with torch.device("meta"):  # to draw weights that are not needed takes seconds
        model = vgg16(sobel=False, out=len(weights["classifier.6.bias"]))
    renamed = {name.replace("classifier.6.", "top_layer."): w for name, w in weights.items()}
    model.load_state_dict(renamed, assign=True)
    return model
