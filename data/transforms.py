"""The transforms: image → uint8 pixels in the workers, pixels → network input on the device.

A view takes a PIL image or `(3, H, W) uint8` pixels and gives `(3, size, size) uint8`, unless it
says otherwise. Random views draw the same numbers for both, from torch's global generator.
"""

import functools

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from system.normalisation import CENTRAL, IMAGENET_MEAN, IMAGENET_STD, Crop, Std

NARROWEST = 64  # long side / short side; at --size 224 an image of this shape resizes to 13 MB


def central_crop(size: int, crop: Crop = CENTRAL) -> v2.Transform:
    """The view that is clustered: short side resized to 256/224 of `size`, central crop; or as
    `crop` says, a network's.

    A tensor takes a sixth of the time of a PIL image, and differs by at most one grey level (two in
    a few of 100,000 values: ties that Pillow's longer weights round differently).
    """
    side, by = crop.resized(size), InterpolationMode(crop.interpolation)
    resize = v2.Resize((side, side), by) if crop.squash else ShortSide(side, by)
    return v2.Compose([resize, v2.CenterCrop(size), v2.PILToTensor()])


def random_crop(size: int) -> v2.Transform:
    """The view for training: random resized crop and horizontal flip."""
    return CropAndFlip(size)


def modelzoo_crop(size: int) -> v2.Transform:
    """The view for training in the model zoo's recipe: random resized crop, flip, rotation by up to
    2°, colour jitter, and one in five without colour."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(size),
            v2.RandomHorizontalFlip(),
            v2.RandomRotation(2),
            v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=1.0, hue=0.5),
            v2.RandomGrayscale(p=0.2),
            v2.PILToTensor(),
        ]
    )


# The views for training, by `--transforms`
TRAINING_VIEWS = {"paper": random_crop, "modelzoo": modelzoo_crop}


def probe_crop(size: int) -> v2.Transform:
    """The view for training a linear probe: a random crop of the central square of side 256/224 of
    `size`, and a horizontal flip."""
    side = round(size * 256 / 224)
    return v2.Compose(
        [
            ShortSide(side),
            v2.CenterCrop(side),
            v2.RandomCrop(size),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
        ]
    )


def modelzoo_probe_crop(size: int) -> v2.Transform:
    """The view for training the model zoo's linear probes: random resized crop, flip, colour
    jitter, and lighting."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(size),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4),
            v2.PILToTensor(),
            Lighting(0.1),
        ]
    )


def resized_crop(size: int) -> v2.Transform:
    """Short side resized to 256/224 of `size`, random crop, horizontal flip."""
    side = round(size * 256 / 224)
    flip = v2.RandomHorizontalFlip()
    return v2.Compose([ShortSide(side), v2.RandomCrop(size), flip, v2.PILToTensor()])


class ShortSide(v2.Transform):
    """An image resized so that its short side has `side` pixels.

    An image narrower than 1 to `NARROWEST` is first cut to its middle of that shape, because 5,000
    × 1 pixels would grow to 1,280,000 × 256, a gigabyte. Its central crop stays the same.
    """

    def __init__(
        self, side: int, interpolation: InterpolationMode = InterpolationMode.BILINEAR
    ) -> None:
        super().__init__()
        self.side, self.interpolation = side, interpolation

    def forward(self, image: Image.Image | Tensor) -> Image.Image | Tensor:
        height, width = F.get_size(image)
        most = NARROWEST * min(height, width)
        if max(height, width) > most:
            most += (max(height, width) - most) % 2  # to cut equally at both ends
            image = F.center_crop(image, [min(height, most), min(width, most)])
        return F.resize(image, [self.side], self.interpolation)


class CropAndFlip(v2.RandomResizedCrop):
    """Random resized crop, then a horizontal flip of one in two, as `(3, size, size) uint8`: the
    draws and pixels of torchvision's two transforms, without the frame around them, which takes a
    third of their time for a small image."""

    def forward(self, image: Image.Image | Tensor) -> Tensor:
        crop = F.resized_crop(image, **self.make_params([image]), size=self.size)
        view = F.horizontal_flip(crop) if torch.rand(1) < 0.5 else crop
        return view if isinstance(view, Tensor) else F.pil_to_tensor(view)


class Lighting(v2.Transform):
    """Colour shift of AlexNet (Krizhevsky et al., NIPS 2012, section 4.1): pixels move along each
    principal component of ImageNet's colours by its eigenvalue times a draw from N(0, sigma).

    `(3, H, W) uint8` → the same, rounded and clamped.
    """

    # For colours from 0 to 1; each column of the vectors is a component
    VALUES = torch.tensor([0.2175, 0.0188, 0.0045])
    VECTORS = torch.tensor(
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
    )

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, pixels: Tensor) -> Tensor:
        move = 255 * self.VECTORS @ (self.VALUES * self.sigma * torch.randn(3))
        moved = pixels + move.view(3, 1, 1).to(pixels.device)
        return moved.round_().clamp_(0, 255).to(torch.uint8)


def ten_crops(size: int) -> v2.Transform:
    """The four corners and the centre of the image, and their mirror images: `(10, 3, size, size)
    uint8`."""
    side, stack = ShortSide(round(size * 256 / 224)), transforms.Lambda(torch.stack)
    return v2.Compose([side, v2.PILToTensor(), v2.TenCrop(size), stack])


def warped(size: int) -> v2.Transform:
    """The whole image as a square: short side resized to 256/224 of `size`, then both to `size`."""
    both = v2.Resize((size, size))
    return v2.Compose([ShortSide(round(size * 256 / 224)), both, v2.PILToTensor()])


def object_crop(
    size: int, least: float, most: float, aspect: tuple[float, float] = (1, 1)
) -> v2.Transform:
    """A random part of `least` to `most` of the image's area, with a width / height in the range
    `aspect`, resized to a square of side `size`, and a horizontal flip."""
    part = v2.RandomResizedCrop(size, scale=(least, most), ratio=aspect)
    return v2.Compose([part, v2.RandomHorizontalFlip(), v2.PILToTensor()])


def object_crops(
    size: int, least: float, most: float, count: int, aspect: tuple[float, float] = (1, 1)
) -> v2.Transform:
    """`count` draws of `object_crop` from one image: `(count, 3, size, size) uint8`."""
    return _Repeated(object_crop(size, least, most, aspect), count)


class _Repeated(v2.Transform):
    """A random transform, drawn `count` times for one image."""

    def __init__(self, once: v2.Transform, count: int) -> None:
        super().__init__()
        self.once, self.count = once, count

    def forward(self, image: Image.Image | Tensor) -> Tensor:
        return torch.stack([self.once(image) for _ in range(self.count)])


def rotated(pixels: Tensor, quarter_turns: int) -> Tensor:
    """`(…, H, W)` images turned counter-clockwise by 90° times `quarter_turns`, which may be
    negative (DeeperCluster, ICCV 2019: the four rotations of an image are classes)."""
    return torch.rot90(pixels, quarter_turns, (-2, -1)) if quarter_turns % 4 else pixels


def apply_seeded(transform: v2.Transform, image: Image.Image | Tensor, seed: int) -> Tensor:
    """Run a random transform as a function of the seed alone; torch's generator stays unchanged."""
    # torch.random.fork_rng and torch.manual_seed handle every device, which would cost a tenth of
    # the whole work on an image
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        return transform(image)
    finally:
        torch.set_rng_state(before)


def to_input(pixels: Tensor, device: torch.device, std: Std = IMAGENET_STD) -> Tensor:
    """`(…, 3, H, W) uint8` pixels → `(N, 3, H, W)` normalised float32 in channels-last layout on
    the device, with the crops of each image one after the other.

    Args:
        std: the network's, which divides colours from 0 to 1, less ImageNet's mean.
    """
    pixels = pixels.flatten(0, -4).to(device, non_blocking=True)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    mean, deviation = _statistics(device, std)
    return F.to_dtype(pixels, torch.float32, scale=True).sub_(mean).div_(deviation)


def to_colours(x: Tensor, std: Std = IMAGENET_STD) -> Tensor:
    """The inverse: `(N, 3, H, W)` network input → colours from 0 (black) to 1 (full intensity)."""
    mean, deviation = _statistics(x.device, std)
    return x * deviation + mean


@functools.cache
@torch.inference_mode(False)
def _statistics(device: torch.device, std: Std) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel `(3, 1, 1)`, copied to the device only once: a
    copy in each step would wait for the GPU's earlier work."""
    mean, deviation = (torch.tensor(each).view(3, 1, 1) for each in (IMAGENET_MEAN, std))
    return mean.to(device), deviation.to(device)
