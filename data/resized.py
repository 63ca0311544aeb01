"""Images at a given long side, whole or cut to a box, one image per batch."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from data.batch import Batch, Draw, Sample
from data.decode import UnreadableImageError
from data.images import ImageList
from data.loading import ImageDataset, load_in_order

Box = tuple[float, float, float, float]


class ResizedImages(ImageDataset):
    """(draw, `(3, h, w) uint8`) of each image, or (draw, reason) if it is unreadable.

    Args:
        images: may contain an image more than once.
        size: the long side to resize to, keeping the aspect.
        boxes: the part to cut out of each image, x1, y1, x2, y2 in the file's pixels; None for all.
        least: the smallest side of a result, in pixels.
    """

    def __init__(
        self, images: ImageList, size: int, boxes: Sequence[Box] | None = None, least: int = 1
    ) -> None:
        super().__init__(images, v2.Identity())
        self.size, self.boxes, self.least = size, boxes, least

    def __getitem__(self, draw: Draw) -> Sample:
        try:
            pixels = self.images.read_pixels(draw.image)
        except UnreadableImageError as error:
            return draw, f"cannot read this image: {error}"
        scale = self.size / max(pixels.shape[1:])
        resized = resize_long_side(pixels, self.size)
        if self.boxes is not None:
            resized = cut_out(resized, self.boxes[draw.image], scale)
        if min(resized.shape[1:]) < self.least:
            height, width = resized.shape[1:]
            what = "it is" if self.boxes is None else "the query's box is"
            return draw, (
                f"at a long side of {self.size}, {what} {width} × {height} pixels, and the network "
                f"takes {self.least} or more"
            )
        return draw, resized


def resize_long_side(pixels: Tensor, size: int) -> Tensor:
    """`(3, H, W) uint8` → `(3, h, w) uint8` with max(h, w) = size, bilinear with antialiasing."""
    height, width = pixels.shape[1:]
    scale = size / max(height, width)
    sides = [max(round(height * scale), 1), max(round(width * scale), 1)]
    return F.resize(pixels, sides, v2.InterpolationMode.BILINEAR, antialias=True)


def cut_out(pixels: Tensor, box: Box, scale: float) -> Tensor:
    """The part of `(3, H, W)` pixels within a box x1, y1, x2, y2 that is scaled and rounded."""
    left, top, right, bottom = (max(round(edge * scale), 0) for edge in box)
    return pixels[:, top:bottom, left:right].contiguous()


def load_one_by_one(
    dataset: ResizedImages, workers: int, device: torch.device
) -> DataLoader[Batch]:
    """A loader of all images in their order, one per batch because their sizes differ."""
    return load_in_order(dataset, 1, workers, device)
