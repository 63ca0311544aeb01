"""Optional packages, the extras of `pyproject.toml`. They are imported where they are used."""

import importlib
import sys

from system.errors import InputError

_MODULES = {"protobuf": "google.protobuf"}  # names of modules that differ from the package's


def check_installed(purpose: str, *packages: str, extra: str | None = None) -> None:
    """Check that packages can be imported.

    Args:
        purpose: the flag or file that needs them.
        extra: the extra of `setup.sh` that has them, if there is one.

    Raises:
        InputError: some are missing; the message has the command that installs them.
    """
    missing = [package for package in packages if not _is_there(package)]
    if missing:
        names = " ".join(missing)
        install = f"{sys.executable} -m pip install {names}"
        ways = f"./setup.sh {extra}, or: {install}" if extra else install
        raise InputError(f"{purpose}: needs packages that are not installed; run: {ways}")


def _is_there(package: str) -> bool:
    try:
        importlib.import_module(_MODULES.get(package, package))
    except ImportError:
        return False
    return True
