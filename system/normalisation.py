"""How networks take images: the mean and standard deviation of each channel, red, green and blue,
where colours go from 0 to 1; and how an image becomes a square."""

import math
from dataclasses import dataclass

Std = tuple[float, float, float]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SWAV_STD = (0.228, 0.224, 0.225)  # of SwAV's and DeepCluster-v2's released networks


@dataclass(frozen=True)
class Crop:
    """How an image becomes a square: it is resized, and its centre is cut out.

    Attributes:
        share: side of the square / the image's short side after resizing.
        interpolation: of the resizing, by torchvision's names: bilinear, bicubic.
        squash: resize both sides, so that little or nothing is cut off.
        down: round the side after resizing down, not to the nearest number.
    """

    share: float = 224 / 256
    interpolation: str = "bilinear"
    squash: bool = False
    down: bool = False

    def resized(self, size: int) -> int:
        """The side after resizing, for a square of `size` pixels."""
        side = size / self.share
        return math.floor(side) if self.down else round(side)


CENTRAL = Crop()  # of networks of ours
