"""Multi-crop: several random crops of an image, of several sizes (Caron et al., NeurIPS
2020). An image is decoded once for all its crops.
"""

import argparse
import itertools
import operator
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torchvision.transforms import v2

from system import cli
from system.errors import InputError

LISTS = ("nmb_crops", "size_crops", "min_scale_crops", "max_scale_crops")
BLUR_RANGE = (0.1, 2.0)
KERNEL_RADIUS = 11  # pixels, of the 23 × 23 Gaussian


class Crops(NamedTuple):
    """The groups of crops that are made of each image, in order.

    Attributes:
        counts: number of crops in each group.
        sizes: their side in pixels.
        min_scales, max_scales: their area before resizing, as a share of the image's, in (0, 1].
    """

    counts: tuple[int, ...]
    sizes: tuple[int, ...]
    min_scales: tuple[float, ...]
    max_scales: tuple[float, ...]

    @property
    def resolutions(self) -> list[tuple[int, int]]:
        """(number of crops, side) of each run of crops of equal size: adjacent groups of equal size
        are one."""
        runs = itertools.groupby(zip(self.sizes, self.counts, strict=True), lambda group: group[0])
        return [(sum(count for _, count in groups), size) for size, groups in runs]

    @property
    def packed(self) -> int:
        """Bytes of an image's crops."""
        return sum(count * 3 * size**2 for count, size in self.resolutions)


class MultiCrop(v2.Transform):
    """All crops of one image, with SwAV's augmentations.

    A PIL image or `(3, H, W) uint8` → `(P,) uint8`, P being `crops.packed`: the crops one after the
    other, each as rows of RGB pixels; `unpack` takes a batch of them apart. Both kinds of image
    draw the same numbers, from torch's global generator.

    Args:
        blur: one of `BLURS`.
    """

    def __init__(self, crops: Crops, blur: str = "pillow") -> None:
        super().__init__()
        groups = zip(*crops, strict=True)
        self._views = [
            view
            for count, size, least, most in groups
            for view in [_crop(size, least, most, blur)] * count
        ]

    def forward(self, image: Image.Image | Tensor) -> Tensor:
        pixels = [np.asarray(view(image)).ravel() for view in self._views]
        return torch.from_numpy(np.concatenate(pixels))


def unpack(pixels: Tensor, crops: Crops) -> list[Tensor]:
    """`(B, P) uint8` of `MultiCrop` → `(n·B, 3, size, size) uint8` of each resolution, n being its
    number of crops.

    Rows are crop-major: crop 0 of all images, then crop 1 of all images, and so on. The tensors are
    on the device of `pixels`, in channels-last layout.
    """
    parts = pixels.split([n * 3 * size**2 for n, size in crops.resolutions], dim=1)
    return [
        part.view(len(part), n, size, size, 3).transpose(0, 1).flatten(0, 1).permute(0, 3, 1, 2)
        for part, (n, size) in zip(parts, crops.resolutions, strict=True)
    ]


class PillowBlur(v2.Transform):
    """Pillow's Gaussian blur of a PIL image, which three box filters approximate, with a radius
    uniform in `BLUR_RANGE`."""

    def forward(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(_uniform(*BLUR_RANGE)))


class KernelBlur(v2.Transform):
    """A PIL image, convolved with a Gaussian of 23 × 23 pixels, with a sigma uniform in
    `BLUR_RANGE`; borders are mirrored."""

    def forward(self, image: Image.Image) -> Image.Image:
        sigma, pixels = _uniform(*BLUR_RANGE), np.asarray(image, np.float32)
        options = {"radius": KERNEL_RADIUS, "axes": (0, 1), "mode": "mirror"}
        return Image.fromarray(gaussian_filter(pixels, sigma, **options).round().astype(np.uint8))


# By `--blur`. SwAV's published weights were trained with the kernel, its later code has Pillow's.
BLURS: dict[str, type[v2.Transform]] = {"pillow": PillowBlur, "gaussian": KernelBlur}


def _crop(size: int, least: float, most: float, blur: str) -> v2.Transform:
    """One crop of an image, PIL or tensor, as a PIL image. Its colours change in Pillow, in a third
    of the time that tensors take."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(least, most)),
            v2.RandomHorizontalFlip(),
            v2.ToPILImage(),
            v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
            v2.RandomGrayscale(p=0.2),
            v2.RandomApply([BLURS[blur]()], p=0.5),
        ]
    )


def _uniform(low: float, high: float) -> float:
    return float(torch.empty(1).uniform_(low, high))


def add_crop_flags(parser: argparse._ActionsContainer) -> None:
    """The flags that `crops_of` takes, and `--blur`. The defaults are SwAV's best recipe."""
    add, size = parser.add_argument, cli.whole_number(1)
    add("--nmb_crops", type=size, nargs="+", default=[2, 6], help="crops of each size")
    add("--size_crops", type=size, nargs="+", default=[224, 96], help="their sides in pixels")
    for name, default in (("min", [0.14, 0.05]), ("max", [1.0, 0.14])):
        area_help = f"their {name}imum areas before resizing, as shares of the image's"
        add(f"--{name}_scale_crops", type=cli.number, nargs="+", default=default, help=area_help)
    blur_help = "pillow: as in SwAV's code; gaussian: 23 × 23 pixels, as for its weights"
    add("--blur", choices=list(BLURS), default="pillow", help=blur_help)


def crops_of(args: argparse.Namespace) -> Crops:
    """The crops that the flags give.

    Args:
        args: with `nmb_crops`, `size_crops`, `min_scale_crops` and `max_scale_crops`, lists.

    Raises:
        InputError: the lists differ in length, a scale is not in (0, 1], or a minimum is above its
            maximum.
    """
    lists = {f"--{name}": getattr(args, name) for name in LISTS}
    given = {flag: f"{flag} {' '.join(map(str, values))}" for flag, values in lists.items()}
    if len({len(values) for values in lists.values()}) > 1:
        raise InputError(f"{', '.join(given.values())}: give all as many values")
    for flag in ("--min_scale_crops", "--max_scale_crops"):
        if not all(0 < scale <= 1 for scale in lists[flag]):
            raise InputError(f"{given[flag]}: give shares above 0 and up to 1")
    crops = Crops(*map(tuple, lists.values()))
    if any(map(operator.gt, crops.min_scales, crops.max_scales)):
        both = f"{given['--min_scale_crops']}, {given['--max_scale_crops']}"
        raise InputError(f"{both}: give minima that are not above their maxima")
    return crops
