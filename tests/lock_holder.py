"""Another process that holds a lock."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOLD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from system.locks import sole_user
with sole_user(Path(sys.argv[2]), "busy"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def held_elsewhere(lock: Path, script: str = HOLD) -> Iterator["subprocess.Popen[bytes]"]:
    """Hold the lock until the block ends or the process is killed."""
    command = [sys.executable, "-c", script, str(ROOT), str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        yield other
