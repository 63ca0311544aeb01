"""The result file of a protocol."""

import json
import platform
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import sklearn
import torch
import torchvision

from system.files import write_text


def save_results(
    path: Path, protocol: str, settings: dict[str, Any], results: dict[str, Any]
) -> None:
    """Write a protocol in words, its settings, the versions of what computed, and what came out, as
    JSON, whole or not at all; the folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {
        "protocol": " ".join(protocol.split()),
        "settings": plain_settings(settings),
        "versions": versions(),
        "results": results,
    }
    write_text(path, json.dumps(told, indent=2) + "\n")


def plain_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Arguments as a checkpoint and JSON hold them: paths as strings."""
    return {n: str(v) if isinstance(v, Path) else v for n, v in settings.items()}


def versions() -> dict[str, str]:
    """Of Python and of the packages that compute."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "faiss": faiss.__version__,
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
    }
