"""The result file of an evaluation."""

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
    """Write the protocol in words, its settings, versions of packages and the results as JSON,
    whole or not at all. The folder is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "protocol": " ".join(protocol.split()),
        "settings": plain_settings(settings),
        "versions": versions(),
        "results": results,
    }
    write_text(path, json.dumps(content, indent=2) + "\n")


def plain_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Arguments for a checkpoint or JSON: paths become strings."""
    return {n: str(v) if isinstance(v, Path) else v for n, v in settings.items()}


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that affect results."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "faiss": faiss.__version__,
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
    }
