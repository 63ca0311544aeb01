"""Started by test_fuzz_readers.py: one reader over many damaged files in a separate process, which
may crash or hang.

Usage: fuzz_campaign.py READER FOLDER FIRST COUNT; tries COUNT inputs from number FIRST and prints
a line of JSON with the findings. Their inputs are in FOLDER/findings; after a crash or a hang, the
input is still where the reader reads it.
"""

import contextlib
import faulthandler
import io
import json
import random
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from readers import READERS, Reader, small_networks

FILES = Path("/proc/self/fd")  # that this process has open
SLOW = 2.0  # seconds of processor time; more for a small file is a finding
HANG = 60  # seconds after which the process is ended
MOST_GROWTH = 200  # MiB by which one file may raise the peak memory
ADDRESSES = 8 << 30  # bytes of address space beyond those of the libraries
MOST_FINDINGS = 20
STDERR = 2


def campaign(reader: Reader, name: str, folder: Path, first: int, count: int) -> dict[str, Any]:
    """Let a reader read this many damaged files. Returns counts, seconds, MiB, and `findings`: by
    input number, a description of the error."""
    findings: dict[int, str] = {}
    bad, slowest, began = 0, 0.0, time.monotonic()
    files = len(list(FILES.iterdir()))
    for number in range(first, first + count):
        data = reader.damage(random.Random(f"{name} {number}"))
        memory, start = peak(), time.process_time()
        faulthandler.dump_traceback_later(HANG, exit=True, file=STDERR)
        try:
            bad += reader.error_of(data) is not None
        except BaseException as error:
            findings[number] = _in_words(error)
        faulthandler.cancel_dump_traceback_later()
        seconds = time.process_time() - start
        slowest = max(slowest, seconds)
        if seconds > SLOW:
            findings.setdefault(number, f"took {seconds:.1f} s")
        if number > first and peak() - memory > MOST_GROWTH:
            findings.setdefault(number, f"took {peak() - memory:.0f} MiB")
        if number in findings:
            (folder / "findings").mkdir(exist_ok=True)
            (folder / "findings" / f"{name}_{number}").write_bytes(data)
            if len(findings) == MOST_FINDINGS:
                break
    left_open = len(list(FILES.iterdir())) - files
    if left_open > 5:
        findings[first] = f"{left_open} files are left open"
    return {
        "reader": name,
        "inputs": number + 1 - first,
        "bad input": bad,
        "seconds": round(time.monotonic() - began, 1),
        "slowest": round(slowest, 3),
        "peak_mib": round(peak()),
        "findings": findings,
    }


def peak() -> float:
    """The peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _in_words(error: BaseException) -> str:
    *_, last = traceback.extract_tb(error.__traceback__)
    place = f"{Path(last.filename).name}:{last.lineno}"
    ours = [
        f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename
    ]
    where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
    return f"{type(error).__name__}: {str(error)[:300]} ({where}, {place})"


def main(name: str, folder: Path, first: int, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with small_networks():
        reader = READERS[name](folder)
        for sample in reader.samples:
            assert reader.error_of(sample) is None, "a valid file is bad input"
        with Path("/proc/self/statm").open() as status:
            addresses = int(status.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (addresses + ADDRESSES, resource.RLIM_INFINITY))
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            result = campaign(reader, name, folder, first, count)
    print(json.dumps(result))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
