"""Part: an epoch of ImageNet with DeepCluster by stage, and 500 epochs, at the rates of the other
parts."""

import functools
import json
from typing import Any

from benchmarks.gpu import rates
from benchmarks.gpu.setting import Setting, Work
from benchmarks.training import EPOCHS, IMAGENET, STAGES

FAISS, TORCH = "k-means, Faiss", "k-means, torch"  # rows of the part `clustering`


def works(setting: Setting) -> dict[str, Work]:
    return {arch: functools.partial(project, setting, arch) for arch in rates.ARCHS}


def project(setting: Setting, arch: str) -> dict[str, Any]:
    """Seconds of each stage from files, minutes of the epoch and hours of all; and minutes if
    reading kept up. Clustering is that of 4096 dimensions, also for networks with fewer."""
    rate_of, seconds_of = _read(setting, "images"), _read(setting, "clustering")
    try:
        measured = {stage: rate_of[f"{arch}, {stage}"] for stage in STAGES}
        whole = {stage: IMAGENET / rate["end to end"] for stage, rate in measured.items()}
        network = {stage: IMAGENET / rate["network"] for stage, rate in measured.items()}
        kmeans = FAISS if "seconds" in seconds_of.get(FAISS, {}) else TORCH
        clustering = seconds_of["PCA"]["seconds"] + seconds_of[kmeans]["seconds"]
    except KeyError as error:
        return {"skipped": f"{error.args[0]} was not measured"}
    seconds = sum(whole.values()) + clustering
    return {
        "features": whole["features"],
        "clustering": clustering,
        "training": whole["training"],
        "minutes": seconds / 60,
        f"hours of {EPOCHS} epochs": EPOCHS * seconds / 3600,
        "minutes if reading kept up": (sum(network.values()) + clustering) / 60,
    }


def _read(setting: Setting, part: str) -> dict[str, Any]:
    file = setting.out / f"{part}.json"
    return json.loads(file.read_text()) if file.exists() else {}
