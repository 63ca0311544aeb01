"""Networks of the library timm by the names that `--model` takes, as networks of ours.

`timm:NAME` has the weights that timm finds in its cache or on the Hub, `timm:NAME@FILE` those of a
file, `timm:NAME@none` random ones.
"""

import contextlib
import difflib
import logging
import sys
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.network import Network
from system import cli
from system.errors import InputError, shorten
from system.extras import check_installed
from system.normalisation import IMAGENET_MEAN, Crop
from system.seeding import derive_seed

PREFIX = "timm:"
NONE = "none"
DEFAULT = "timm:vit_small_patch14_dinov2.lvd142m"  # without --model
DEFAULT_SIZE = 224  # of DEFAULT's input; timm's own is 518
WRAPPERS = ("module.", "_orig_mod.", "body.")  # in front of weights' names
MOST_NAMES = 5  # in a message


class TimmName(NamedTuple):
    """A name that `--model` takes, in parts.

    Attributes:
        name: timm's, with or without the tag of its weights.
        weights: what follows "@": a file, or `NONE`; None without it.
    """

    name: str
    weights: str | None

    @property
    def untrained(self) -> bool:
        """Whether its weights are random."""
        return self.weights == NONE

    @property
    def file(self) -> Path | None:
        """The file of its weights, if one is given."""
        return None if self.weights in (None, NONE) else Path(str(self.weights))


def timm_name(model: str | Path) -> TimmName | None:
    """The parts of a `--model`, or None if it isn't one of timm's."""
    text = str(model)
    if not text.startswith(PREFIX):
        return None
    name, at, weights = text.removeprefix(PREFIX).partition("@")
    return TimmName(name, weights if at else None)


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
        config = _timm().data.resolve_model_data_config(body)
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
    _check_name(model.name)
    if model.weights is None:
        body = _with_timms_weights(model.name)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "initial weights"))
            body = _timm().create_model(model.name, num_classes=0)
    if weights is not None:
        _load(body, weights, f"{model.weights}: does not fit {where}")
    return TimmNetwork(model.name, body).eval()


def weights_of(model: TimmName) -> dict[str, str]:
    """The `weights` and their `licence`, for results."""
    config = _timm().get_pretrained_cfg(model.name)
    licence = (config and config.license) or "not known"
    if model.untrained:
        return {"weights": "random"}
    if model.file is not None:
        return {"weights": str(model.file), "licence": f"not known (timm's own weights: {licence})"}
    return {"weights": config.hf_hub_id or config.url, "licence": licence}


def _timm() -> ModuleType:
    check_installed(PREFIX + "NAME", "timm", extra="images")
    import timm

    return timm


def _check_name(name: str) -> None:
    timm = _timm()
    arch, _, tag = name.partition(".")
    if not timm.is_model(arch):
        near = difflib.get_close_matches(arch, timm.list_models(), MOST_NAMES, cutoff=0.4)
        raise InputError(
            f"{PREFIX}{name}: timm {timm.__version__} has no such network; "
            f"the nearest names: {', '.join(near) or 'none'}"
        )
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{arch}.*")]
    if tag and tag not in tags:
        known = ", ".join(tags) or "none"
        raise InputError(f"{PREFIX}{name}: timm has no weights {tag} of {arch}, but: {known}")


def _with_timms_weights(name: str) -> nn.Module:
    """A network with weights from timm's cache, or from the Hub, after a note on their size and
    licence.

    Raises:
        InputError: they can't be fetched; names the file that would do.
    """
    timm, config = _timm(), _timm().get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise InputError(f"{PREFIX}{name}: timm has no weights of it; give {PREFIX}{name}@FILE")
    where = config.hf_hub_id or config.url
    try:
        if config.hf_hub_id and not _is_cached(config):
            import huggingface_hub

            huggingface_hub.HfApi().model_info(config.hf_hub_id, timeout=10)  # fails at once
            with torch.device("meta"):
                body = timm.create_model(name, num_classes=0)
            size = sum(each.numel() for each in body.parameters())
            cli.note(
                f"{PREFIX}{name}: fetching {where}: {size / 1e6:.0f} million weights, about "
                f"{4 * size / 1e6:.0f} MB; licence: {config.license or 'not known'}"
            )
        return timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # of the network, the disk or a damaged file
        raise InputError(
            f"{PREFIX}{name}: cannot fetch its weights ({shorten(error, 100)}); without a network, "
            f"give {PREFIX}{name}@FILE, FILE being model.safetensors of {where} on the Hub, or "
            f"{PREFIX}{name}@{NONE} for random ones, or a checkpoint"
        ) from error


def _is_cached(config: Any) -> bool:
    import huggingface_hub

    names = [config.hf_hub_filename or "model.safetensors", "pytorch_model.bin"]
    found = [huggingface_hub.try_to_load_from_cache(config.hf_hub_id, name) for name in names]
    return any(isinstance(each, str) for each in found)


def _load(body: nn.Module, weights: dict[str, Any], problem: str) -> None:
    """Load weights into a network without its last layer, strictly. Those of another size of input
    or with their authors' names are translated by timm, where it can.

    Raises:
        InputError: they don't fit.
    """
    weights = {_plain_name(name): weight for name, weight in weights.items()}
    if _misfits(body, weights):
        # timm's modules have a function of this name for other layouts of their weights
        translate = getattr(sys.modules[type(body).__module__], "checkpoint_filter_fn", None)
        try:
            weights = translate(dict(weights), body) if translate else weights
        except Exception as error:
            logging.getLogger("deepcluster").debug("not translated by timm: %s", error)
    if wrong := _misfits(body, weights):
        raise InputError(f"{problem}: {wrong}")
    body.load_state_dict(weights, strict=False)


def _plain_name(name: str) -> str:
    while name.startswith(WRAPPERS):
        name = name.partition(".")[2]
    return name


def _misfits(body: nn.Module, weights: dict[str, Any]) -> str:
    """What doesn't fit, in words. Only the last layer may be there as well."""
    own = body.state_dict()
    last = getattr(body, "pretrained_cfg", {}).get("classifier") or ()
    last = ("top_layer", *((last,) if isinstance(last, str) else last))
    wrong = {
        "missing": [n for n in own if n not in weights and not n.endswith("num_batches_tracked")],
        "unexpected": [n for n in weights if n not in own and not n.startswith(last)],
        "of another shape": [
            n for n in own if n in weights and own[n].shape != getattr(weights[n], "shape", None)
        ],
        "not finite": [
            n for n in own if isinstance(w := weights.get(n), Tensor) and not w.isfinite().all()
        ],
    }
    return "; ".join(
        f"{kind}: {', '.join(map(shorten, names[:MOST_NAMES]))}"
        + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")
        for kind, names in wrong.items()
        if names
    )


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
