"""A network to probe, and `eval_linear.py` as the tests call it."""

import json
from pathlib import Path
from typing import Any

import torch
from conftest import tiny

import eval_linear
from checkpoints.checkpoint import save_checkpoint


def save_tiny(folder: Path) -> Path:
    """A checkpoint of the tiny network, in a new folder; its architecture must be in `MODELS`."""
    path = folder / "checkpoint.pth.tar"
    path.parent.mkdir()
    torch.manual_seed(0)
    state = {"epoch": 1, "arch": "tiny", "state_dict": tiny(out=4).state_dict()}
    save_checkpoint(path, {**state, "settings": {"seed": 3}})
    return path


def run_probe(data: Path, network: Path, exp: Path, *flags: str) -> dict[str, Any]:
    """The content of `linear.json` after a run with these flags."""
    command = ["--data", str(data), "--model", str(network), *flags, "--exp", str(exp)]
    eval_linear.main(eval_linear.parse_args(command))
    return json.loads((exp / "linear.json").read_text())
