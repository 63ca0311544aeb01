"""Weights of timm's networks: from its cache, from the Hub, or from a file."""

import logging
import sys
from typing import Any

import torch
from torch import Tensor, nn

from models.timm_names import MOST_NAMES, NONE, PREFIX, library
from system import cli
from system.errors import InputError, shorten

WRAPPERS = ("module.", "_orig_mod.", "body.")  # in front of weights' names


def with_timms_weights(name: str) -> nn.Module:
    """A network with weights from timm's cache, or from the Hub, after a note on their size and
    licence.

    Raises:
        InputError: they can't be fetched; names the file that would do.
    """
    timm, config = library(), library().get_pretrained_cfg(name)
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


def load_weights(body: nn.Module, weights: dict[str, Any], problem: str) -> None:
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


def _is_cached(config: Any) -> bool:
    import huggingface_hub

    names = [config.hf_hub_filename or "model.safetensors", "pytorch_model.bin"]
    found = [huggingface_hub.try_to_load_from_cache(config.hf_hub_id, name) for name in names]
    return any(isinstance(each, str) for each in found)


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
