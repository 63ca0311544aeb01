"""Part: the tests marked `gpu`. docs/gpu.md says what each shows."""

import functools
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu.setting import NO_GPU, Setting, Work

ROOT = Path(__file__).parents[2]
PROCESSES = 4  # that share the GPU
COUNTS = re.compile(r"(\d+) (passed|failed|skipped|errors?)\b")


def works(setting: Setting) -> dict[str, Work]:
    return {"pytest -m gpu": functools.partial(run_tests, setting)}


def run_tests(setting: Setting) -> dict[str, Any]:
    """Run the tests, with all that they print in `tests.txt`."""
    if not setting.on_gpu:
        return NO_GPU
    log = setting.out / "tests.txt"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider"]
    if importlib.util.find_spec("xdist"):
        command += ["-n", str(PROCESSES)]
    with log.open("w") as file:
        done = subprocess.run(command, cwd=ROOT, stdout=file, stderr=file, check=False)
    return outcome(log.read_text(), done.returncode)


def outcome(output: str, status: int) -> dict[str, Any]:
    """How many tests passed and how many were skipped; if not all passed, which did not."""
    counts = {what: int(count) for count, what in COUNTS.findall(output)}
    if status == 0:
        return {"passed": counts.get("passed", 0), "skipped tests": counts.get("skipped", 0)}
    names = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    last = (output.strip().splitlines() or ["nothing printed"])[-1]
    return {"failed": "; ".join([last, *names])}
