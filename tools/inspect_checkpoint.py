"""Prints a card for each checkpoint, without running code from the file.

If the weights don't fit the architecture that the file names, the card is shorter, and the program
ends with the reason and exit status 2.
"""

import argparse
import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import system.interrupt

import torch

from checkpoints.checkpoint import check_weights, read_checkpoint
from checkpoints.released import layout_in_words
from checkpoints.weights import has_sobel, network_for, outputs_of
from system import cli, flags
from system.errors import InputError
from system.files import sha256_of
from system.names import printable
from system.normalisation import IMAGENET_MEAN, IMAGENET_STD

WIDTH = 100  # columns
CLUSTERS = "{k} centroids of {algorithm}, of the network that epoch {epoch} begins with"
BATCH_NORM = ("running_mean", "running_var", "num_batches_tracked")  # buffers, not parameters

Card = dict[str, Any]


def card_of(path: Path, key: str | None = None) -> Card:
    """All that is known of a checkpoint, ready for JSON; `error` says why it can't be used, or is
    None.

    Raises:
        InputError: the file can't be read.
    """
    try:
        card: Card = {
            "path": str(path),
            "error": None,
            "bytes": path.stat().st_size,
            "sha256": sha256_of(path).hexdigest(),
        }
    except OSError as error:
        raise InputError(f"{path}: cannot read this checkpoint: {error.strerror}") from error
    try:
        checkpoint = read_checkpoint(path, key)
        card |= _contents(checkpoint)
        with torch.device("meta"):
            model = network_for(checkpoint["arch"], checkpoint["state_dict"])
        check_weights(model, checkpoint["state_dict"], path)
        card |= {"conv_layers": model.conv_layers, "embedding": model.embedding_dim}
    except InputError as error:
        card["error"] = str(error)
    return card


def _contents(checkpoint: dict[str, Any]) -> Card:
    weights, settings = checkpoint["state_dict"], checkpoint.get("settings", {})
    trained = [w.numel() for name, w in weights.items() if not name.endswith(BATCH_NORM)]
    return {
        "architecture": checkpoint["arch"],
        "sobel": has_sobel(weights),
        "k": outputs_of(weights),
        "parameters": sum(trained),
        "epoch": _whole(checkpoint.get("epoch")),
        "step": _whole(checkpoint.get("step")) or 0,
        "input": {
            "channels": "RGB",
            "range": [0, 1],
            "mean": IMAGENET_MEAN,
            "std": checkpoint.get("std", IMAGENET_STD),
            "margin": checkpoint.get("margin", 0),
            "size": _whole(settings.get("size")),
        },
        "clusters": _clusters(checkpoint.get("clusters")),
        "layout": checkpoint["layout"],
        "settings": settings,
    }


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _clusters(saved: Any) -> Card | None:
    saved = saved if isinstance(saved, dict) else {}
    match [dict.get(saved, name) for name in ("algorithm", "epoch", "centroids")]:
        case [str(algorithm), int(epoch), torch.Tensor() as centroids] if centroids.ndim > 0:
            return {"algorithm": algorithm, "k": len(centroids), "epoch": epoch}
    return None


def in_words(card: Card) -> str:
    """A card as text."""
    rows = {"file": f"{card['bytes']:,} bytes", "SHA-256": card["sha256"]}
    if "architecture" in card:
        rows = {**_network_in_words(card), **rows}
    fold = textwrap.TextWrapper(WIDTH, break_long_words=False, break_on_hyphens=False)
    fold.subsequent_indent = " " * 16
    lines = [printable(card["path"])]
    for label, text in rows.items():
        fold.initial_indent = f"  {label:<14}"
        lines += fold.wrap(printable(text))
    return "\n".join(lines) + "\n"


def _network_in_words(card: Card) -> dict[str, str]:
    clusters, k, wanted = card["clusters"], card["k"], card["input"]
    mean, std = (", ".join(map(str, wanted[name])) for name in ("mean", "std"))
    notes = [f"{wanted['size']} × {wanted['size']} pixels in training"] if wanted["size"] else []
    if wanted["margin"]:
        notes.append(f"then a margin of zeros, {wanted['margin']} pixel wide")
    settings = [f"{name} {value}" for name, value in card["settings"].items() if value is not None]
    place = "the next to run" if card["step"] == 0 else f"{card['step']} batches done"
    release = card["layout"]["release"]
    rows = {"released": f"a file of {release}"} if release else {}
    rows |= {
        "architecture": card["architecture"],
        "Sobel filters": "yes" if card["sobel"] else "no",
        "k": "no top layer" if k is None else f"{k} (outputs of the top layer)",
        "clusters": "not saved" if clusters is None else CLUSTERS.format(**clusters),
        "epoch": "not known" if card["epoch"] is None else f"{card['epoch']}, {place}",
        "input": "; ".join([f"RGB from 0 to 1, less {mean}, divided by {std}", *notes]),
        "parameters": f"{card['parameters']:,}",
    }
    if card["error"] is None:
        rows["conv layers"] = str(card["conv_layers"])
        rows["embedding"] = f"{card['embedding']} dimensions"
    rows["layout"] = layout_in_words(card["layout"])
    if settings:
        rows["settings"] = ", ".join(settings)
    return rows


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Show the contents of checkpoints, released ones and your own.",
        example="python -m tools.inspect_checkpoint exp/001/checkpoint.pth.tar",
        details="docs/checkpoints.md",
    )
    path_help = "checkpoint, or a state dict"
    parser.add_argument("paths", metavar="PATH", type=Path, nargs="+", help=path_help)
    flags.add_key(parser)
    parser.add_argument("--json", action="store_true", help="print a list of cards as JSON")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    for path in args.paths:
        if path.is_dir():
            raise InputError(f"{path}: a folder; give files, such as {path / 'checkpoint.pth.tar'}")
        if not path.is_file():
            raise InputError(f"{path}: no such file")
    cards = []
    for path in args.paths:
        cards.append(card_of(path, args.network_key))
        if not args.json:
            sys.stdout.write(in_words(cards[-1]))
    if args.json:
        sys.stdout.write(json.dumps(cards, indent=2, default=str) + "\n")
    sys.stdout.flush()
    if errors := [card["error"] for card in cards if card["error"]]:
        raise InputError("; ".join(errors))


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))
