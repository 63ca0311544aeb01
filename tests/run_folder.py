"""A small experiment folder, written without training."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def epoch_line(epoch: int, labelled: bool = True) -> dict[str, Any]:
    """A line of metrics.jsonl, with different numbers in each epoch."""
    return {
        "epoch": epoch,
        "kmeans_loss": 1234.5 - 10 * epoch,
        "convnet_loss": 1.3 - 0.1 * epoch,
        "ln_k": math.log(4),
        "nmi_previous": None if epoch == 0 else 0.5 + 0.01 * epoch,
        "nmi_labels": 0.4 + 0.02 * epoch if labelled else None,
        "acc": 0.31 + 0.04 * epoch if labelled else None,
        "ari": 0.21 + 0.05 * epoch if labelled else None,
        "ami": 0.11 + 0.06 * epoch if labelled else None,
        "purity": 0.61 + 0.03 * epoch if labelled else None,
        "clusters": 4,
        "nonempty_clusters": 3,
        "cluster_size": {"smallest": 1, "median": 5.0, "largest": 30},
        "unreadable": 0,
        "iterations": 5 * epoch + 5,
        "seconds": {"features": 1.25, "clustering": 0.5, "training": 7.75 + epoch},
        "images_per_second": {"features": 32.0, "training": 5.16},
        "peak_memory_gib": {"process": 1.5},
    }


def make_run(
    exp: Path, data: Path, paths: Sequence[str], epochs: int, planned: int = 3, **metrics: Any
) -> Path:
    """An experiment folder of four clusters, of which number 2 is empty, after some epochs. A
    finished run has one more assignment."""
    (exp / "assignments").mkdir(parents=True)
    (exp / "images.txt").write_text("".join(f"{path}\n" for path in paths))
    settings = {"data": str(data), "arch": "alexnet", "sobel": True, "clustering": "Kmeans"}
    settings |= {"nmb_cluster": 4, "epochs": planned, "resume": None}
    (exp / "config.json").write_text(json.dumps({"settings": settings}))
    lines = [epoch_line(epoch, **metrics) for epoch in range(epochs)]
    (exp / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    for epoch in range(epochs + (epochs == planned)):
        rng = np.random.default_rng(epoch)
        assignment = rng.choice([0, 1, 3], size=len(paths), p=[0.6, 0.3, 0.1])
        assignment[:3] = [0, 1, 3]
        np.save(exp / "assignments" / f"epoch_{epoch:04d}.npy", assignment)
    return exp


@pytest.fixture
def finished(tmp_path: Path, tree: Path) -> Path:
    """The experiment folder of a finished run of three epochs over 40 images in three folders."""
    paths = sorted(str(path.relative_to(tree)) for path in tree.rglob("*.png"))
    return make_run(tmp_path / "exp", tree, paths, epochs=3)
