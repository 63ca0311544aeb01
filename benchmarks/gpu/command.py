"""All that is to be measured on a GPU: the tests marked `gpu`, images per second, clustering at
ImageNet's size, the steps of each method with the host's waits, and a projected epoch.

Each part runs in a process of its own with a time limit, nine minutes in all. If one fails, the
others go on. `gpu.json` and `gpu.md`, a Markdown table, have what is there after each part.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.gpu import clusters, epoch, machine, own_tests, rates, steps
from benchmarks.gpu.setting import Setting, Work
from benchmarks.gpu.table import cell, markdown
from system.device import select_compute
from system.errors import Fault, InputError, shorten
from system.files import write_text

ROOT = Path(__file__).parents[2]


TINY_LIMIT = 1800  # seconds: a CPU may be slow and busy


class Part(NamedTuple):
    """A title, the functions that measure, and the most seconds that its process may take."""

    title: str
    works: Callable[[Setting], dict[str, Work]]
    limit: int


PARTS = {
    "machine": Part("The machine", machine.works, 25),
    "tests": Part("The tests marked `gpu`", own_tests.works, 95),
    "images": Part("Images per second", rates.works, 165),
    "clustering": Part("Clustering, seconds", clusters.works, 85),
    "methods": Part("Steps of each method", steps.works, 150),
    "epoch": Part("An epoch of ImageNet, seconds", epoch.works, 15),
}


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run all parts, or with `--part` one of them in this process. Returns the results.

    Raises:
        InputError: there is no GPU and no `--tiny`.
        Fault: a part failed; the others are in `gpu.json` and `gpu.md`.
    """
    if not args.tiny and (args.device == "cpu" or not torch.cuda.is_available()):
        raise InputError("no GPU with CUDA here; give --tiny to try the command on a CPU")
    args.out.mkdir(parents=True, exist_ok=True)
    return run_all(args) if args.part is None else run_part(args)


def run_all(args: argparse.Namespace) -> dict[str, Any]:
    """Run each part in a process, and write what is there after each."""
    for name in PARTS:
        (args.out / f"{name}.json").unlink(missing_ok=True)
    done: dict[str, dict[str, Any]] = {}
    for name, part in PARTS.items():
        limit = TINY_LIMIT if args.tiny else part.limit
        say(f"{name} (at most {limit} s)")
        start = time.monotonic()
        failed = run_in_process(name, args, limit)
        file = args.out / f"{name}.json"
        done[name] = {
            "title": part.title,
            "seconds": time.monotonic() - start,
            "results": json.loads(file.read_text()) if file.exists() else {},
            **({"failed": failed} if failed else {}),
        }
        write_text(args.out / "gpu.json", json.dumps(done, indent=2) + "\n")
        write_text(args.out / "gpu.md", markdown(done))
    say(f"\n{markdown(done)}\nwritten to {args.out}/gpu.json and gpu.md")
    if failed_parts := [name for name, part in done.items() if "failed" in part]:
        raise Fault(f"failed: {', '.join(failed_parts)}; see {args.out}/gpu.md")
    return done


def run_in_process(name: str, args: argparse.Namespace, limit: float) -> str:
    """Run a part. Returns why it failed, or nothing. Its process is ended with all that it
    started."""
    command = [sys.executable, "-m", "benchmarks", "gpu", "--part", name, "--device", args.device]
    command += ["--out", str(args.out.resolve()), *(["--tiny"] if args.tiny else [])]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        _, error = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return f"took longer than {limit:g} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    sys.stderr.write(error)
    if process.returncode == 0:
        return ""
    last = (error.strip().splitlines() or ["it printed nothing"])[-1]
    return f"status {process.returncode}: {shorten(last)}"


def run_part(args: argparse.Namespace) -> dict[str, Any]:
    """Run one part in this process, and write what is there after each measurement.

    Raises:
        Fault: a measurement failed; the others were made.
    """
    setting = Setting(args.tiny, select_compute(args.device), args.out)
    results: dict[str, dict[str, Any]] = {}
    for name, work in PARTS[args.part].works(setting).items():
        try:
            results[name] = work()
        except Exception as error:  # the others may still run
            traceback.print_exc()
            results[name] = {"failed": shorten(error) or type(error).__name__}
        say(f"  {name}: {in_words(results[name])}")
        write_text(args.out / f"{args.part}.json", json.dumps(results, indent=2) + "\n")
    if failed := [name for name, row in results.items() if "failed" in row]:
        raise Fault(f"failed: {', '.join(failed)}")
    return results


def in_words(row: dict[str, Any]) -> str:
    """A measurement's figures, or why there are none."""
    colon = {"skipped": ":", "failed": ":"}
    return ", ".join(f"{what}{colon.get(what, '')} {cell(value)}" for what, value in row.items())


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `run`, except the device."""
    add = parser.add_argument
    tiny_help = "on so little that a CPU takes seconds for each part"
    add("--tiny", action="store_true", help=tiny_help)
    add("--part", choices=list(PARTS), help="only this part, in this process, without a limit")
    out_help = "folder for gpu.json, gpu.md and a file of each part"
    add("--out", metavar="FOLDER", type=Path, default=Path("exp/gpu"), help=out_help)
