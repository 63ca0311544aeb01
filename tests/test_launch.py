"""launch.py: torchrun, and what is left to read when it fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def launch(script: Path, source: str) -> subprocess.CompletedProcess[str]:
    """Run a script in two processes, each of which finds its rank in the variable `rank`."""
    script.write_text(f"import os, sys, time\nrank = int(os.environ['LOCAL_RANK'])\n{source}\n")
    command = [str(ROOT / "launch.py"), "--standalone", "--nproc_per_node", "2", str(script), "a"]
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_all_is_well(tmp_path: Path) -> None:
    source = "os.write(1, (sys.argv[1] + os.environ['WORLD_SIZE'] + '\\n').encode())"  # at once
    done = launch(tmp_path / "script.py", source)
    assert (done.returncode, done.stdout) == (0, "a2\na2\n")


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    """The first process says it, also when the other one gets there long before."""
    source = f"sys.path.insert(0, {str(ROOT)!r})\nimport cli\n"
    source += "time.sleep(1 - rank)\ncli.Parser(prog='script').error('--k 1: too few')"
    done = launch(tmp_path / "script.py", source)
    assert done.returncode == 2
    assert done.stderr == "script: error: --k 1: too few (see --help)\n"


@pytest.mark.parametrize(
    ("source", "status", "reason"),
    [
        ("os.kill(os.getpid(), 9) if rank else time.sleep(60)", 137, "Signal 9 (SIGKILL)"),
        ("1 / 0 if rank else time.sleep(60)", 1, "ZeroDivisionError"),
    ],
)
def test_of_any_other_failure_there_is_a_report(
    tmp_path: Path, source: str, status: int, reason: str
) -> None:
    done = launch(tmp_path / "script.py", source)
    assert done.returncode == status
    assert reason in done.stderr
    assert "local_rank: 1" in done.stderr
