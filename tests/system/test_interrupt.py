"""Ctrl-C while a script imports its packages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("numpy", "torch", "torchvision", "faiss", "PIL", "sklearn", "matplotlib", "tqdm")
SCRIPTS = sorted(
    str(path.relative_to(ROOT))
    for folder in (".", "visu", "tools", "tools/caffe", "benchmarks", "parallel")
    for path in (ROOT / folder).glob("*.py")
    if 'if __name__ == "__main__":\n' in path.read_text()
    and path.name != "move_back.py"  # imports none of them
)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packages whose import gets a Ctrl-C."""
    folder = tmp_path_factory.mktemp("packages")
    for name in PACKAGES:
        (folder / f"{name}.py").write_text("raise KeyboardInterrupt")
    return folder


def start(script: str, packages: Path, **env: str) -> subprocess.CompletedProcess[str]:
    as_module = script.startswith(("tools/", "benchmarks/", "parallel/"))
    module = script.removesuffix(".py").removesuffix("/__main__").replace("/", ".")
    return subprocess.run(
        [sys.executable, *(["-m", module] if as_module else [script])],
        cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(packages), **env},
    )  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_ctrl_c_during_the_imports_is_one_line(script: str, interrupted: Path) -> None:
    done = start(script, interrupted)
    assert done.stderr == f"{Path(script).name}: interrupted\n"
    assert done.returncode == 130


def test_only_the_first_process_prints_the_line(interrupted: Path) -> None:
    done = start("main.py", interrupted, LOCAL_RANK="1")
    assert (done.returncode, done.stderr) == (130, "")


def test_other_errors_of_an_import_have_their_traceback(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libcudart is missing')")
    done = start("main.py", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("OSError: libcudart is missing\n")
