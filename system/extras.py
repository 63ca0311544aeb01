"""Packages that few people need, imported where they are used: the extras of `pyproject.toml`."""

import importlib
import sys

from system.errors import InputError

_MODULES = {"protobuf": "google.protobuf"}  # where the module has another name than the package


def check_installed(purpose: str, *packages: str) -> None:
    """Check that packages can be imported.

    Args:
        purpose: the flag or file that needs them.

    Raises:
        InputError: with the command that installs those that are missing.
    """
    missing = [package for package in packages if not _is_there(package)]
    if missing:
        names = " ".join(missing)
        install = f"{sys.executable} -m pip install {names}"
        raise InputError(f"{purpose}: needs packages that are not installed; run: {install}")


def _is_there(package: str) -> bool:
    try:
        importlib.import_module(_MODULES.get(package, package))
    except ImportError:
        return False
    return True
