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
ALONE = ["tests/gpu/test_gpu_clustering.py", "-k", "faiss_continues"]
LIMIT = 70  # seconds of all tests, of the 95 of the part
COUNTS = re.compile(r"(\d+) (passed|failed|skipped|errors?)\b")


def works(setting: Setting) -> dict[str, Work]:
    at_once = ["-n", str(PROCESSES)] if importlib.util.find_spec("xdist") else []
    return {
        "pytest -m gpu": functools.partial(run_tests, setting, at_once, "tests.txt"),
        "one that fills the GPU": functools.partial(run_tests, setting, ALONE, "alone.txt"),
    }


def run_tests(setting: Setting, flags: list[str], name: str) -> dict[str, Any]:
    """Run tests, with all that they print in a file of this name."""
    if not setting.on_gpu:
        return NO_GPU
    log = setting.out / name
    command = [sys.executable, "-m", "pytest", "-v", "-m", "gpu", "-p", "no:cacheprovider", *flags]
    with log.open("w") as file:
        try:
            done = subprocess.run(
                command, cwd=ROOT, stdout=file, stderr=file, check=False, timeout=LIMIT
            )
        except subprocess.TimeoutExpired:  # the workers of pytest end with it
            return {"failed": f"took longer than {LIMIT} s; {log} names those that ended"}
    return outcome(log.read_text(), done.returncode)


def outcome(output: str, status: int) -> dict[str, Any]:
    """How many tests passed and how many were skipped; if not all passed, which did not."""
    counts = {what: int(count) for count, what in COUNTS.findall(output)}
    if status == 0:
        return {"passed": counts.get("passed", 0), "skipped tests": counts.get("skipped", 0)}
    names = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    last = (output.strip().splitlines() or ["nothing printed"])[-1]
    return {"failed": "; ".join([last, *names])}
