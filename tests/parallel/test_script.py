"""Scripts that torchrun may start."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from parallel import script
from parallel.collectives import rank, world_size

ROOT = Path(__file__).parents[2]


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    return parser.parse_args(argv)


def test_a_single_process_needs_no_group() -> None:
    seen = []

    def main(args: argparse.Namespace) -> None:
        seen.append((args.device, rank(), world_size()))

    assert script.run(main, parse, ["--device", "auto"]) == 0
    assert seen == [("auto", 0, 1)]


def test_processes_of_torchrun_are_joined(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\n"
        "from parallel import script\n"
        "from parallel.collectives import gather_objects\n"
        "from test_script import parse\n"
        "def main(args):\n"
        "    ranks = ''.join(gather_objects(os.environ['RANK']))\n"
        "    os.write(1, f'{ranks}\\n'.encode())\n"
        "sys.exit(script.run(main, parse, []))\n"
    )
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    settings = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path}
    launcher = ["-m", "parallel.launch", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(program)],
        env={**os.environ, **settings},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["01", "01"]


def test_world_size_without_torchrun_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert script.run(lambda *given: None, parse, []) == 2
    err = capsys.readouterr().err
    assert "error: WORLD_SIZE=2: is set, but not by torchrun" in err
    assert err.count("\n") == 1
