"""The transforms, each defined once: image → uint8 pixels in the workers, pixels → network input
on the device."""

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def central_crop(size: int) -> v2.Transform:
    """The view that is clustered: short side resized to 256/224 of `size`, central crop.

    A PIL image → `(3, size, size) uint8`.
    """
    return v2.Compose([v2.Resize(round(size * 256 / 224)), v2.CenterCrop(size), v2.PILToTensor()])


def random_crop(size: int) -> v2.Transform:
    """The view that is trained on: random resized crop and horizontal flip.

    A PIL image → `(3, size, size) uint8`. Draws from torch's global generator.
    """
    return v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), v2.PILToTensor()])


def apply_seeded(transform: v2.Transform, image: Image.Image, seed: int) -> Tensor:
    """Run a random transform as a function of the seed alone, leaving torch's generator as it was.

    Returns `(3, size, size) uint8`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return transform(image)


def to_input(pixels: Tensor, device: torch.device) -> Tensor:
    """`(N, 3, H, W) uint8` pixels → normalised float32 in channels-last layout on the device."""
    pixels = pixels.to(device, non_blocking=True)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    x = F.to_dtype(pixels, torch.float32, scale=True)
    return F.normalize(x, list(IMAGENET_MEAN), list(IMAGENET_STD), inplace=True)
