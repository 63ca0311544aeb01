"""The shell scripts: set-up on first use, the embedded default, the paper's settings."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def bash(script: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {n: v for n, v in os.environ.items() if n not in ("DIR", "EXP", "PYTHON", "K")}
    return subprocess.run(
        ["bash", "-c", script], cwd=cwd, env={**clean, **env}, capture_output=True, text=True
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What git holds, at another place."""
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    for name in tracked:
        target = tmp_path / "clone" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    return tmp_path / "clone"


def test_main_without_arguments_trains_on_the_digits(clone: Path) -> None:
    shortened = "./main.sh --size 64 --reassign 0.05 --precision fp32"
    done = bash(shortened, clone, PYTHON=sys.executable, EPOCHS="1")
    assert done.returncode == 0, done.stderr
    assert "NMI to the folder labels" in done.stdout
    assert "untrained" in done.stdout
    assert "linear probe" in done.stdout
    assert len(list((clone / "datasets/digits/train").rglob("*.png"))) == 1437
    assert (clone / "exp" / "001" / "checkpoint.pth.tar").exists()
    assert not (clone / ".venv").exists(), "PYTHON installs nothing"

    again = bash(f"{shortened} --k 1500", clone, PYTHON=sys.executable)
    assert again.returncode == 2
    assert "--nmb_cluster 1500: more clusters than the 1437 images" in again.stderr
    assert [path.name for path in (clone / "exp").iterdir()] == ["001"], "nothing is left"


def test_main_runs_the_papers_settings_on_a_folder(clone: Path) -> None:
    (clone / "main.py").write_text("import sys; print(*sys.argv[1:])")
    elsewhere = clone.parent / "elsewhere"
    elsewhere.mkdir()
    variables = {"PYTHON": sys.executable, "DIR": "images", "EXP": "e"}
    done = bash("../clone/main.sh --seed 1", elsewhere, **variables)
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout.split()
        == (
            f"{elsewhere}/images --arch alexnet --sobel --clustering Kmeans --nmb_cluster 10000 "
            "--lr 0.05 --wd -5 --batch 256 --epochs 200 --workers 12 --verbose "
            f"--exp {elsewhere}/e --seed 1"
        ).split()
    )


def test_resuming_leaves_the_folder_to_main(clone: Path) -> None:
    (clone / "main.py").write_text("import sys; print(*sys.argv[1:])")
    done = bash("./main.sh --resume x", clone, PYTHON=sys.executable, DIR="images")
    assert "--exp" not in done.stdout
    assert not (clone / "exp").exists()


def test_the_environment_is_made_once_and_again_when_pins_change(clone: Path) -> None:
    (clone / "requirements.txt").write_text("# nothing to install\n")
    source = '. ./env.sh && "$PYTHON" -c "import sys; print(sys.prefix)"'
    first = bash(source, clone)
    assert first.stdout.split()[-1] == str(clone / ".venv"), first.stderr
    assert "Setting up .venv" in first.stderr

    (clone / ".venv" / "marker").touch()
    assert bash(source, clone).stderr == ""
    assert (clone / ".venv" / "marker").exists(), "reused"

    (clone / "requirements.txt").write_text("# still nothing to install\n")
    assert "Setting up .venv" in bash(source, clone).stderr
    assert not (clone / ".venv" / "marker").exists(), "made again"

    (clone / ".venv" / "installed-requirements.txt").unlink()  # as after a cut installation
    (clone / ".venv" / "marker").touch()
    assert "Setting up .venv" in bash(source, clone).stderr
    assert not (clone / ".venv" / "marker").exists(), "made again"

    (clone / "requirements.txt").write_text("./no-such-package\n")
    failed = bash(source, clone)
    assert failed.returncode == 2
    assert "installing the packages failed" in failed.stderr
    (clone / "requirements.txt").write_text("# nothing to install\n")
    assert bash(source, clone).returncode == 0


def test_no_fitting_python(clone: Path) -> None:
    for tool in ("bash", "basename", "dirname", "cmp", "flock"):
        if found := shutil.which(tool):
            (clone / "bin").mkdir(exist_ok=True)
            (clone / "bin" / tool).symlink_to(found)
    done = bash("./test.sh", clone, PATH=str(clone / "bin"))
    assert done.returncode == 2
    assert "no Python of version 3.10 or newer found" in done.stderr
    named = bash("./test.sh", clone, PYTHON="/no/such/python")
    assert named.returncode == 2
    assert named.stderr == "test.sh: error: PYTHON=/no/such/python: no such program\n"


@pytest.mark.parametrize("script", ["main.sh", "test.sh", ".ci/run"])
def test_scripts_can_be_run(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(ROOT / script)]).returncode == 0
