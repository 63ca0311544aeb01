"""A clone of the repository as a user has it, and the shell scripts in it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SETTINGS = ("DIR", "EXP", "PYTHON", "K", "VENV", "TORCH", "TORCH_INDEX")


def bash(script: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {n: v for n, v in os.environ.items() if n not in SETTINGS}
    one = {"PROCESSES": "1"}  # independent of the GPUs here
    return subprocess.run(
        ["bash", "-c", script], cwd=cwd, env={**clean, **one, **env}, capture_output=True, text=True
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the files in git."""
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    for name in tracked:
        target = tmp_path / "clone" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    return tmp_path / "clone"


def stub(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
    (folder / name).chmod(0o755)
