"""Starts runs of main.py without delay: this process has imported everything and forks.

Usage: run_server.py, with a request on each line of stdin, as JSON:

    {"start": [arguments of main.py], "ranks": 2, "folder": "/tmp/x"}
        starts this many processes, connected as under torchrun, and answers with their IDs. Each
        leads a process group and prints to `folder`/output_<rank>. Rank 0 keeps its current stage
        in `folder`/stage and the number of its changes to files in `folder`/changes. Options for
        rank 0: "kill_at": 7 kills it just before that change; "stuck_in": STAGE makes it compute
        there for ever; "pause_in": [STAGE, 2] makes it create `folder`/paused when it reaches the
        stage for the second time, and wait until that file is gone. Options for all ranks: "beat",
        the seconds between two heartbeats; "silence", the seconds after which other ranks than 0
        print an error; "stall_at": [RANK, 7], with which this rank's seventh read of an image
        creates `folder`/paused, and waits until that file is gone; "print_buffers", which prints
        the sum of each buffer after every epoch; "slow": [RANK, 0.1], the seconds that each read
        of an image by this rank takes longer; "threads" of torch; "whole", the most bytes of
        spread heads that a checkpoint holds. With "script": PATH, the
        processes run this script instead of main.py.
    {"wait": [process IDs]}
        answers with the exit statuses once all have ended; −9 means SIGKILL, which a process also
        gets if it runs for minutes.
"""

import collections
import contextlib
import hashlib
import itertools
import json
import mmap
import os
import runpy
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from conftest import tiny
from networks import plain
from runs import STAGES
from torch import nn

import main
import training.run
from cluster import pickles
from data import loading
from data.images import ImageList
from methods import sharded
from models import MODELS
from parallel import heartbeat
from parallel.collectives import broadcast_buffers
from system import cli
from training import experiment
from training.run import Run

LONGEST = 240  # seconds
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def shared(path: Path) -> mmap.mmap:
    """A number in a file, which other processes can read at any time."""
    path.write_bytes(bytes(8))
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 8)


def note_stages(noted: mmap.mmap, request: dict[str, Any]) -> None:
    """Write the number of the innermost stage under way."""
    paused = Path(request["folder"], "paused")
    times: collections.Counter[str] = collections.Counter()

    @contextlib.contextmanager
    def noting(stage: str) -> Iterator[None]:
        before, noted[0] = noted[0], STAGES.index(stage)
        times[stage] += 1
        if [stage, times[stage]] == request.get("pause_in"):
            paused.touch()
            while paused.exists():
                time.sleep(0.001)
        if stage == request.get("stuck_in"):
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # holds no GIL
        yield
        noted[0] = before

    def during(stage: str, owner: Any, name: str) -> None:
        work: Callable[..., Any] = getattr(owner, name)

        def noted_work(*args: Any, **options: Any) -> Any:
            with noting(stage):
                return work(*args, **options)

        setattr(owner, name, noted_work)

    timed: Callable[..., Any] = Run._timed

    @contextlib.contextmanager
    def noted_stage(self: Run, name: str, *more: Any) -> Iterator[Callable[[int], None]]:
        with noting(name), timed(self, name, *more) as advance:
            yield advance

    Run._timed = noted_stage  # type: ignore[method-assign, assignment]
    during("logs taken back", experiment.Experiment, "__enter__")
    during("checkpoint", experiment, "save_checkpoint")
    during("clusters file", pickles.Logger, "log")
    during("assignment", experiment.Experiment, "save_assignment")
    during("metrics", experiment.Experiment, "log_epoch")
    during("report", main, "write_report")


def stall(paused: Path, number: int) -> None:
    """Let this process's `number`-th read of an image, as from a slow disk, wait."""
    reads = itertools.count(1)
    opened = ImageList.open
    loading.SMALL = 0  # small images are read in every pass, as large ones are

    def slow(images: ImageList, index: int) -> BinaryIO:
        if next(reads) == number:
            paused.touch()
            while paused.exists():
                time.sleep(0.001)
        return opened(images, index)

    ImageList.open = slow  # type: ignore[method-assign, assignment]


def slow_down(seconds: float) -> None:
    """Let each read of an image take longer."""
    opened = ImageList.open
    loading.SMALL = 0

    def slow(images: ImageList, index: int) -> BinaryIO:
        time.sleep(seconds)
        return opened(images, index)

    ImageList.open = slow  # type: ignore[method-assign, assignment]


def count_changes(folder: str, count: mmap.mmap, kill_at: int | None) -> None:
    """Count the changes to files below a folder: opening for writing, fsync, renaming, removing."""

    def change() -> None:
        number = int.from_bytes(count[:8], "little") + 1
        count[:8] = number.to_bytes(8, "little")
        if number == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event not in ("open", "os.rename", "os.remove", "os.mkdir", "shutil.copyfile"):
            return
        if not str(args[0]).startswith(folder) or (event == "open" and not args[2] & WRITES):
            return
        change()

    fsync = os.fsync

    def counted_fsync(file: int) -> None:
        change()
        fsync(file)

    sys.addaudithook(audit)
    os.fsync = counted_fsync  # type: ignore[assignment]


def run(request: dict[str, Any], rank: int, port: int) -> int:
    """Run main.py in a forked process."""
    folder = Path(request["folder"])
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    output = os.open(folder / f"output_{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    ranks = str(request["ranks"])
    if ranks != "1":
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=ranks)
        os.environ.update(WORLD_SIZE=ranks, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(request.get("threads", 1))
    MODELS.update(tiny=tiny, plain=plain)
    if "script" in request:
        return run_script(request["script"], request["start"])
    heartbeat.BEAT = request.get("beat", heartbeat.BEAT)
    cli.LONGEST_SILENCE = request.get("silence", cli.LONGEST_SILENCE)
    sharded.WHOLE = request.get("whole", sharded.WHOLE)
    if "print_buffers" in request:
        training.run.broadcast_buffers = broadcast_and_print
    if rank == request.get("stall_at", [None])[0]:
        stall(folder / "paused", request["stall_at"][1])
    if rank == request.get("slow", [None])[0]:
        slow_down(request["slow"][1])
    if rank > 0:
        return cli.run(main.main, main.parse_args, request["start"])
    stage = shared(folder / "stage")
    note_stages(stage, request)
    count_changes(str(folder / "exp"), shared(folder / "changes"), request.get("kill_at"))
    status = cli.run(main.main, main.parse_args, request["start"])
    stage[0] = STAGES.index("end")
    return status


def run_script(path: str, arguments: list[str]) -> int:
    """Run a script with these arguments. Returns its exit status."""
    sys.argv = [path, *arguments]
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def broadcast_and_print(model: nn.Module) -> None:
    """In place of `broadcast_buffers` in `training.run`."""
    broadcast_buffers(model)
    sys.stdout.write(f"{[float(buffer.double().sum()) for buffer in model.buffers()]}\n")


def fork(request: dict[str, Any], rank: int, port: int) -> int:
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            status = run(request, rank, port)
        finally:
            sys.stdout.flush()
            os._exit(status)
    return pid


@contextlib.contextmanager
def killed_after(seconds: int, pids: list[int]) -> Iterator[None]:
    """Kill processes that run longer: a test fails then, and doesn't hang."""

    def kill(number: int, frame: object) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    signal.signal(signal.SIGALRM, kill)
    signal.alarm(seconds)
    yield
    signal.alarm(0)


def answer(request: dict[str, Any]) -> list[int]:
    if "wait" in request:
        with killed_after(LONGEST, request["wait"]):
            return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in request["wait"]]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return [fork(request, rank, port) for rank in range(request["ranks"])]


if __name__ == "__main__":
    sys.stdout.write("[]\n")  # imports are done
    sys.stdout.flush()
    while line := sys.stdin.readline():
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()
