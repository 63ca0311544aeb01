"""The results of linear probes and of fine-tuning, for result files and in words."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from models.layers import Layer, name_of

History = list[dict[Layer, dict[str, Any]]]
SCORES = {"top1": "top-1", "top5": "top-5", "mAP": "mAP"}  # in words


def scores_of(found: dict[str, Any]) -> list[str]:
    """The scores that an epoch's results have. The first one says which epoch is the best."""
    return [name for name in SCORES if name in found]


def best_epochs(history: History) -> dict[Layer, int]:
    """By layer, the first epoch with the highest top-1 or mAP, as in the paper's tables."""
    first = {layer: scores_of(found)[0] for layer, found in history[0].items()}
    return {
        layer: int(np.argmax([epoch[layer][score] for epoch in history]))
        for layer, score in first.items()
    }


def summary(history: History) -> dict[str, Any]:
    """By layer: the last epoch, the best one, and all of them."""
    best = best_epochs(history)
    return {
        name_of(layer): {
            "last": history[-1][layer],
            "best": {"epoch": best[layer], **history[best[layer]][layer]},
            "epochs": [epoch[layer] for epoch in history],
        }
        for layer in history[0]
    }


def describe(history: History) -> str:
    """The last epoch, a line for each layer."""
    return "".join(
        f"epoch {len(history) - 1}, {name_of(layer)}: train loss {found['train_loss']:.4f}, "
        f"val loss {found['loss']:.4f}, "
        + ", ".join(f"{SCORES[name]} {found[name]:.2%}" for name in scores_of(found))
        + "\n"
        for layer, found in history[-1].items()
    )


def in_words(description: str, protocol: str, protocols: Iterable[str]) -> str:
    """A description of some protocols without the paragraphs on others. Such a paragraph begins
    with the protocol's name, which may be the beginning of a variant's name, and a colon."""
    others = {name for name in protocols if not protocol.startswith(name)}
    paragraphs = description.split("\n\n")
    return "\n\n".join(text for text in paragraphs if text.partition(":")[0] not in others)


def table(results: dict[str, dict[str, Any]]) -> str:
    """A line for each layer and network, in percent."""
    layers = next(iter(results.values()))
    first, *others = scores_of(next(iter(layers.values()))["last"])
    heads = "".join(f"{SCORES[name]:>8}" for name in others)
    best_head, last_head = f"best {SCORES[first]}", f"last {SCORES[first]}"
    lines = [f"{'layer':8}{'network':12}{best_head:>11}{heads}{'epoch':>7}{last_head:>12}"]
    for layer in layers:
        for name, by_layer in results.items():
            best, last = by_layer[layer]["best"], by_layer[layer]["last"]
            cells = "".join(f"{100 * best[score]:8.2f}" for score in others)
            lines.append(
                f"{layer:8}{name:12}{100 * best[first]:11.2f}{cells}{best['epoch']:7}"
                f"{100 * last[first]:12.2f}"
            )
    return "\n".join(lines)
