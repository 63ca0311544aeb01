"""A network of the library timm as one of ours."""

import contextlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from models.network import Network
from models.timm_names import PREFIX, TimmName, check_name, library
from models.timm_weights import load_weights, with_timms_weights
from system.errors import InputError, shorten
from system.normalisation import IMAGENET_MEAN, Crop
from system.seeding import derive_seed


class TimmNetwork(Network):
    """A network of timm's. Its embedding is what its last layer, which is left out, would see; its
    conv layers are the stages or blocks whose maps timm gives.

    Args:
        name: timm's.
        body: its network, without the last layer.

    Attributes:
        size: side of its input in pixels.
    """

    def __init__(self, name: str, body: nn.Module) -> None:
        super().__init__(PREFIX + name, 0)  # until `take_size` has seen an embedding
        self.body: Any = body
        self.sobel, self.classifier, self.top_layer = None, nn.Sequential(), None
        config = library().data.resolve_model_data_config(body)
        self.mean, self.std, self.crop = config["mean"], config["std"], _crop_of(name, config)
        self.size = _size_of(name, config)
        gaps = [(a - b) / c for a, b, c in zip(IMAGENET_MEAN, self.mean, self.std, strict=True)]
        self.shift: Tensor
        self.register_buffer("shift", torch.tensor(gaps).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x)
        return x if self.top_layer is None else self.top_layer(x)

    def embedding(self, x: Tensor) -> Tensor:
        return self.body(self._own(x))

    @cached_property
    def conv_layers(self) -> int:
        if not hasattr(self.body, "forward_intermediates"):
            return 0
        with self._looking() as blank:
            return len(self._maps(blank, None))

    def each_conv_features(self, x: Tensor, layers: Iterable[int]) -> Iterator[tuple[int, Tensor]]:
        wanted = sorted(set(layers))
        for layer in wanted:
            self._check_layer(layer)
        yield from zip(wanted, self._maps(x, [layer - 1 for layer in wanted]), strict=True)

    def take_size(self, size: int) -> None:
        """Take images of `size` × `size` pixels; embeddings of positions are interpolated.

        Raises:
            InputError: the network can't.
        """
        try:
            if size != self.size and hasattr(self.body, "set_input_size"):
                self.body.set_input_size(img_size=(size, size))
            self.size = size
            with self._looking() as blank:
                self.embedding_dim = self.embedding(blank).shape[1]
        except (RuntimeError, AssertionError, ValueError, IndexError) as error:
            raise InputError(
                f"--size {size}: {self.arch} does not take it: {shorten(error)}"
            ) from error

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How it takes images, for results."""
        return {
            "mean": self.mean, "std": self.std, "interpolation": self.crop.interpolation,
            "resized to": self.crop.resized(self.size),
        }  # fmt: skip

    def _own(self, x: Tensor) -> Tensor:
        return x if self.mean == IMAGENET_MEAN else x + self.shift

    def _maps(self, x: Tensor, indices: list[int] | None) -> list[Tensor]:
        """The maps `(N, C, h, w)` of some stages or blocks, or of all."""
        return self.body.forward_intermediates(
            self._own(x), indices=indices, stop_early=True, output_fmt="NCHW",
            intermediates_only=True,
        )  # fmt: skip

    @contextlib.contextmanager
    def _looking(self) -> Iterator[Tensor]:
        """Yields an image to look at, with the network in eval mode."""
        training = self.training
        with torch.inference_mode():
            self.eval()
            yield torch.zeros(1, 3, self.size, self.size, device=self.shift.device)
            self.train(training)


def timm_network(
    model: TimmName, weights: dict[str, Any] | None = None, seed: int = 0
) -> TimmNetwork:
    """A network in eval mode.

    Args:
        weights: of the file that `model` names.
        seed: of random weights.

    Raises:
        InputError: timm is not installed or does not know the name; the weights can't be fetched,
            or don't fit.
    """
    where = f"{PREFIX}{model.name}"
    check_name(model.name)
    if model.weights is None:
        body = with_timms_weights(model.name)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "initial weights"))
            body = library().create_model(model.name, num_classes=0)
    if weights is not None:
        load_weights(body, weights, f"{model.weights}: does not fit {where}")
    return TimmNetwork(model.name, body).eval()


def _crop_of(name: str, config: dict[str, Any]) -> Crop:
    mode = config["crop_mode"]
    if mode not in ("center", "squash"):
        raise InputError(f"{PREFIX}{name}: its crop mode {mode} is not supported; take another")
    return Crop(config["crop_pct"], config["interpolation"], mode == "squash", down=True)


def _size_of(name: str, config: dict[str, Any]) -> int:
    channels, height, width = config["input_size"]
    if channels != 3 or height != width:
        raise InputError(
            f"{PREFIX}{name}: takes images of {width} × {height} pixels and {channels} channels, "
            "not squares of 3"
        )
    return height
