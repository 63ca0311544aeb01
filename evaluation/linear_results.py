"""The results of linear probes and of fine-tuning, for result files and in words."""

from collections.abc import Iterable
from typing import Any

from evaluation.linear import best_epochs
from models.layers import Layer, name_of

History = list[dict[Layer, dict[str, float]]]


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
        f"val loss {found['loss']:.4f}, top-1 {found['top1']:.2%}, top-5 {found['top5']:.2%}\n"
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
    lines = [
        f"{'layer':8}{'network':12}{'best top-1':>11}{'top-5':>8}{'epoch':>7}{'last top-1':>12}"
    ]
    for layer in next(iter(results.values())):
        for name, by_layer in results.items():
            best, last = by_layer[layer]["best"], by_layer[layer]["last"]
            lines.append(
                f"{layer:8}{name:12}{100 * best['top1']:11.2f}{100 * best['top5']:8.2f}"
                f"{best['epoch']:7}{100 * last['top1']:12.2f}"
            )
    return "\n".join(lines)
