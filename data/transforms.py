"""The transforms, each defined once: image → uint8 pixels in the workers, pixels → network input
on the device."""

import functools

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

NARROWEST = 64  # long side to short side; at --size 224 an image of that shape is resized to 13 MB

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def central_crop(size: int) -> v2.Transform:
    """The view that is clustered: short side resized to 256/224 of `size`, central crop.

    A PIL image or `(3, H, W) uint8` pixels → `(3, size, size) uint8`. A tensor takes a sixth of
    the time, and its pixels are the image's to one grey level. (Two, in a few of 100,000 values,
    where sides resized by 4/5, say, make ties that Pillow's longer weights round another way.)
    """
    return v2.Compose([ShortSide(round(size * 256 / 224)), v2.CenterCrop(size), v2.PILToTensor()])


def random_crop(size: int) -> v2.Transform:
    """The view that is trained on: random resized crop and horizontal flip.

    A PIL image or `(3, H, W) uint8` pixels → `(3, size, size) uint8`, with the same draws from
    torch's global generator.
    """
    return v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), v2.PILToTensor()])


def modelzoo_crop(size: int) -> v2.Transform:
    """The view that the model zoo's recipe trains on: random resized crop, flip, rotation by up to
    2°, colour jitter, and for one in five no colour. Input and output as above."""
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


# What `--transforms` names: the views that are trained on.
TRAINING_VIEWS = {"paper": random_crop, "modelzoo": modelzoo_crop}


def probe_crop(size: int) -> v2.Transform:
    """The view that a linear probe is trained on: of the central square of 256/224 of `size`, a
    random crop, and a horizontal flip. Input and output as above."""
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
    """The view that the model zoo's linear probes are trained on: random resized crop, flip, colour
    jitter, and lighting. Input and output as above."""
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
    """A crop anywhere: short side resized to 256/224 of `size`, random crop, horizontal flip. Input
    and output as above."""
    side = round(size * 256 / 224)
    flip = v2.RandomHorizontalFlip()
    return v2.Compose([ShortSide(side), v2.RandomCrop(size), flip, v2.PILToTensor()])


class ShortSide(v2.Transform):
    """An image resized so that its short side has so many pixels.

    Of one that is narrower than 1 to `NARROWEST`, the middle of that shape is taken first, so that
    a central crop shows the same: 5,000 × 1 pixels would grow to 1,280,000 × 256, a gigabyte.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, image: Image.Image | Tensor) -> Image.Image | Tensor:
        height, width = F.get_size(image)
        most = NARROWEST * min(height, width)
        if max(height, width) > most:
            most += (max(height, width) - most) % 2  # with as much cut off at both ends
            image = F.center_crop(image, [min(height, most), min(width, most)])
        return F.resize(image, [self.side])


class Lighting(v2.Transform):
    """Another light (Krizhevsky et al., NIPS 2012, section 4.1): along each principal component of
    ImageNet's colours, all pixels move by its eigenvalue times a draw from N(0, sigma).

    `(3, H, W) uint8` → the same: rounded, and black and white are as far as it goes.
    """

    # of the colours as fractions of 1; a column of the vectors is a component
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
    """The four corners and the centre of the image, and their mirror images: the same input →
    `(10, 3, size, size) uint8`."""
    crops = v2.TenCrop(size)
    return v2.Compose([ShortSide(round(size * 256 / 224)), v2.PILToTensor(), _Stacked(crops)])


class _Stacked(v2.Transform):
    """A transform that gives many images of equal size, as one tensor."""

    def __init__(self, many: v2.Transform) -> None:
        super().__init__()
        self.many = many

    def forward(self, image: Tensor) -> Tensor:
        return torch.stack(self.many(image))


def warped(size: int) -> v2.Transform:
    """The whole image in a square: the short side resized to 256/224 of `size`, then both sides to
    `size`. Input and output as above."""
    both = v2.Resize((size, size))
    return v2.Compose([ShortSide(round(size * 256 / 224)), both, v2.PILToTensor()])


def object_crop(size: int, least: float, most: float) -> v2.Transform:
    """A random square of `least` to `most` of the image's area, resized to `size`, and a horizontal
    flip. Input and output as above."""
    square = v2.RandomResizedCrop(size, scale=(least, most), ratio=(1, 1))
    return v2.Compose([square, v2.RandomHorizontalFlip(), v2.PILToTensor()])


def object_crops(size: int, least: float, most: float, count: int) -> v2.Transform:
    """So many draws of `object_crop` from one image: the same input → `(count, 3, size, size)
    uint8`."""
    return _Repeated(object_crop(size, least, most), count)


class _Repeated(v2.Transform):
    """A random transform, drawn many times for one image."""

    def __init__(self, once: v2.Transform, count: int) -> None:
        super().__init__()
        self.once, self.count = once, count

    def forward(self, image: Image.Image | Tensor) -> Tensor:
        return torch.stack([self.once(image) for _ in range(self.count)])


def apply_seeded(transform: v2.Transform, image: Image.Image | Tensor, seed: int) -> Tensor:
    """Run a random transform as a function of the seed alone, leaving torch's generator as it was.

    Returns `(3, size, size) uint8`, or what the transform makes of it.
    """
    # By hand: torch.random.fork_rng and torch.manual_seed look after every device, at a tenth of
    # the whole work on an image. The transforms draw on the CPU, wherever the pixels are.
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        return transform(image)
    finally:
        torch.set_rng_state(before)


def to_input(pixels: Tensor, device: torch.device) -> Tensor:
    """`(…, 3, H, W) uint8` pixels → `(N, 3, H, W)` normalised float32 in channels-last layout on
    the device, many crops of each image one after the other."""
    pixels = pixels.flatten(0, -4).to(device, non_blocking=True)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    mean, std = _imagenet_statistics(device)
    return F.to_dtype(pixels, torch.float32, scale=True).sub_(mean).div_(std)


def to_colours(x: Tensor) -> Tensor:
    """The way back: `(N, 3, H, W)` of what networks take → colours, where 0 is black and 1 is full
    intensity."""
    mean, std = _imagenet_statistics(x.device)
    return x * std + mean


@functools.cache
@torch.inference_mode(False)
def _imagenet_statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel `(3, 1, 1)`, on the device once and for all: to
    put them there, a step would wait until a GPU has done all before it."""
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_STD))
    return mean.to(device), std.to(device)
