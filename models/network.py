"""The questions that all code asks of a network, of ours or another library's."""

from collections.abc import Iterable, Iterator

from torch import Tensor, nn

from system.errors import InputError
from system.normalisation import CENTRAL, IMAGENET_MEAN, IMAGENET_STD, Crop, Std


class Network(nn.Module):
    """A network that takes `(N, 3, H, W)` float images, less ImageNet's mean and divided by `std`.

    Args:
        arch: its name, for messages and checkpoints.
        embedding_dim: width D of the embedding.

    Attributes:
        std: the standard deviation of each channel that images are divided by.
        mean: the mean that it was trained with; a network subtracts what is missing by itself.
        crop: how images become squares.
        margin: zeros around the normalised image, in pixels.
        sobel: fixed filters in front, or None.
        classifier: hidden layers between the embedding and the top layer, ending in a ReLU; may be
            empty.
        top_layer: from the classifier's output to logits, or None.
    """

    sobel: nn.Sequential | None
    classifier: nn.Sequential
    top_layer: nn.Linear | None

    def __init__(self, arch: str, embedding_dim: int) -> None:
        super().__init__()
        self.arch = arch
        self.embedding_dim = embedding_dim
        self.std: Std = IMAGENET_STD
        self.mean: Std = IMAGENET_MEAN
        self.crop: Crop = CENTRAL
        self.margin = 0

    def embedding(self, x: Tensor) -> Tensor:
        """`(N, 3, H, W)` images → `(N, D)`, the features that are clustered."""
        raise NotImplementedError

    @property
    def conv_layers(self) -> int:
        """Number of layers of `conv_features`: conv layers, stages or blocks."""
        raise NotImplementedError

    def conv_features(self, x: Tensor, layer: int) -> Tensor:
        """`(N, 3, H, W)` images → `(N, C, h, w)` activations of a conv layer, stage or block.

        Args:
            layer: 1 for the first.

        Raises:
            ValueError: the network has no such layer.
        """
        ((_, found),) = self.each_conv_features(x, [layer])
        return found

    def each_conv_features(self, x: Tensor, layers: Iterable[int]) -> Iterator[tuple[int, Tensor]]:
        """The number and activations of several layers, in ascending order. It takes a single
        forward pass, up to the last of them."""
        raise NotImplementedError

    def merge_sobel(self) -> None:
        """Replace the Sobel filters and the first convolution by one convolution of RGB.

        Raises:
            InputError: the network has no Sobel filters.
        """
        raise InputError(f"--sobel2rgb: {self.arch} has no Sobel filters here; leave it out")

    def _check_layer(self, layer: int) -> None:
        if not 1 <= layer <= self.conv_layers:
            raise ValueError(f"{self.arch} has conv layers 1 to {self.conv_layers}, not {layer}")
