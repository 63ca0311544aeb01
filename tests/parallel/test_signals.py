"""Signals: the first stops a run after its step, the second at once; processes stop together."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny
from runs import Server, assert_same, output_of, send, wait_for

import main
from checkpoints.folder import place_of
from models import MODELS
from parallel import signals as preemption
from parallel.heartbeat import OTHER_DIED
from parallel.signals import SIGNALS, Stopping, stop_on_signals
from system.errors import InputError, Stopped

ROOT = Path(__file__).parents[2]


def place(folder: Path) -> tuple[int, int]:
    """The epoch and the step of a run's last checkpoint."""
    found = place_of(folder / "exp" / "checkpoint.pth.tar")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("number", "stage"),
    [
        (signal.SIGTERM, "training"),
        (signal.SIGUSR1, "features"),
        (signal.SIGINT, "clustering"),
        (signal.SIGHUP, "training"),
    ],
)
def test_a_signal_ends_a_run_that_can_be_resumed(
    server: Server, tree: Path, tmp_path: Path, number: int, stage: str
) -> None:
    """The run ends at the next step of its stage, and keeps its earlier work."""
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    processes = server.start(tree, cut, pause_in=[stage, 2])
    send(cut, processes[0], number)
    assert server.wait(processes) == [0], output_of(cut)
    name = signal.Signals(number).name
    checkpoint = cut / "exp" / "checkpoint.pth.tar"
    onward = f"stopped by {name}; to resume: the same command with --resume {checkpoint}\n"
    assert output_of(cut) == onward
    assert f"stopped: {name}\n" in (cut / "exp" / "log.txt").read_text()
    epoch, step = place(cut)
    assert (epoch > 0, step > 0) == (True, stage == "training")

    assert server.wait(server.start(tree, whole)) == [0]
    assert server.wait(server.start(tree, cut)) == [0], output_of(cut)
    assert_same(whole, cut)


def test_a_run_stopped_before_its_first_checkpoint_starts_over(
    server: Server, tree: Path, tmp_path: Path
) -> None:
    processes = server.start(tree, tmp_path / "run", pause_in=["features", 1])
    send(tmp_path / "run", processes[0], signal.SIGTERM)
    assert server.wait(processes) == [0]
    said = "the same command, which starts over: nothing was saved yet"
    assert output_of(tmp_path / "run") == f"stopped by SIGTERM; to resume: {said}\n"
    assert server.wait(server.start(tree, tmp_path / "run")) == [0]


@pytest.mark.parametrize("stage", ["training", "features", "clustering"])
def test_two_processes_stop_together_if_one_gets_a_signal(
    server: Server, tree: Path, tmp_path: Path, stage: str
) -> None:
    processes = server.start(tree, tmp_path / "run", ranks=2, pause_in=[stage, 2])
    send(tmp_path / "run", processes[1], signal.SIGTERM)
    assert server.wait(processes) == [0, 0], output_of(tmp_path / "run")
    assert re.match(r"stopped by .*; to resume: the same", output_of(tmp_path / "run"))
    assert (place(tmp_path / "run")[1] > 0) == (stage == "training")


def test_workers_ignore_signals(server: Server, tree: Path, tmp_path: Path) -> None:
    """Terminals and launchers send signals to all processes. No worker prints anything."""
    processes = server.start(tree, tmp_path / "run", workers=2, pause_in=["training", 2])
    send(tmp_path / "run", processes[0], signal.SIGINT, group=True)
    assert server.wait(processes) == [0]
    (line,) = output_of(tmp_path / "run").splitlines()
    assert line.startswith("stopped by SIGINT; to resume")
    assert place(tmp_path / "run")[1] > 0


def test_the_second_signal_ends_a_run_at_once(server: Server, tree: Path, tmp_path: Path) -> None:
    """It also ends a computation that would take hours."""
    processes = server.start(tree, tmp_path / "run", stuck_in="clustering")
    wait_for(tmp_path / "run", "clustering")
    os.kill(processes[0], signal.SIGTERM)
    for _ in range(3):  # a busy machine may deliver two together, which count as one
        time.sleep(1.5 * preemption.ONE_SIGNAL)
        os.kill(processes[0], signal.SIGINT)
    assert server.wait(processes) == [128 + signal.SIGINT]


def test_one_signal_ends_a_run_that_waits_for_a_disk(
    server: Server, tree: Path, tmp_path: Path
) -> None:
    """The look at grey levels reads 8 images, each pass and each epoch 40, in batches of 8. The run
    keeps what it has done."""
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    for read, reached in ((101, (1, 0)), (58, (1, 1))):  # in features, and then in training
        processes = server.start(tree, cut, stall_at=[0, read])
        while not (cut / "paused").exists():
            time.sleep(0.001)
        os.kill(processes[0], signal.SIGTERM)
        assert server.wait(processes) == [0]
        assert output_of(cut).count("stopped by SIGTERM; to resume: the same command with") == 1
        assert place(cut) == reached
        (cut / "output_0").unlink()
        (cut / "paused").unlink()
    assert server.wait(server.start(tree, whole)) == [0]
    assert server.wait(server.start(tree, cut)) == [0], output_of(cut)
    assert_same(whole, cut)


def test_one_signal_ends_processes_that_train_while_one_waits_for_a_disk(
    server: Server, tree: Path, tmp_path: Path
) -> None:
    """The other one waits for its gradients, and can't save."""
    processes = server.start(tree, tmp_path, ranks=2, stall_at=[1, 66], silence=0, beat=0.2)
    while not (tmp_path / "paused").exists():
        time.sleep(0.001)
    for process in processes:
        os.kill(process, signal.SIGTERM)
    assert server.wait(processes) == [OTHER_DIED, 2]
    (line,) = (tmp_path / "output_1").read_text().splitlines()
    assert "error: SIGTERM came while process 1 waited for images; to resume from" in line
    assert place(tmp_path) == (1, 0)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_whose_worker_is_killed_ends(
    server: Server, tree: Path, tmp_path: Path, ranks: int
) -> None:
    """The workers of the feature pass die while the epoch's batches are trained on."""
    processes = server.start(
        tree, tmp_path, ranks, workers=1, pause_in=["training", 1], silence=0, beat=0.2
    )
    while not (tmp_path / "paused").exists():
        time.sleep(0.001)
    pid = processes[-1]
    for worker in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        os.kill(int(worker), signal.SIGKILL)
    (tmp_path / "paused").unlink()
    assert server.wait(processes) == [OTHER_DIED, 2][-ranks:]
    (line,) = (tmp_path / f"output_{ranks - 1}").read_text().splitlines()
    assert "was killed by SIGKILL, as the kernel does when memory runs out; give fewer" in line


def test_a_run_with_workers_that_fails_ends(server: Server, tree: Path, tmp_path: Path) -> None:
    """Workers that outlive a failure for a moment have the signals' pipe open, too."""
    run = server.start(tree, tmp_path / "run", workers=2, more=["--lr", "1e30", "--epochs", "9"])
    assert server.wait(run) == [2]
    (line,) = output_of(tmp_path / "run").splitlines()
    assert "became" in line


def test_two_runs_cannot_share_a_folder(server: Server, tree: Path, tmp_path: Path) -> None:
    first = server.start(tree, tmp_path / "run", stuck_in="clustering")
    wait_for(tmp_path / "run", "clustering")
    second = server.start(tree, tmp_path / "other", more=["--exp", str(tmp_path / "run" / "exp")])
    assert server.wait(second) == [2]
    assert "another run of main.py is working there" in output_of(tmp_path / "other")
    os.kill(first[0], signal.SIGKILL)
    assert server.wait(first) == [-9]
    third = server.start(tree, tmp_path / "run", more=["--epochs", "1"])
    assert server.wait(third) == [0], output_of(tmp_path / "run")


def test_a_signal_sent_twice_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm and the launcher may both send it, for example."""
    ended: list[int] = []
    monkeypatch.setattr(preemption.os, "_exit", ended.append)
    stopping = Stopping()
    stopping.receive(signal.SIGUSR1)
    stopping.receive(signal.SIGUSR1)
    assert (stopping.asked, ended) == ("SIGUSR1", [])
    monkeypatch.setattr(preemption, "ONE_SIGNAL", 0.0)
    stopping.receive(signal.SIGTERM)
    assert (stopping.asked, ended) == ("SIGUSR1", [143])


def test_processes_with_gpus_ask_each_other_every_20_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question makes the host wait for the device. Here another process got the signal."""
    asked: list[int] = []

    def all_reduce(flag: np.ndarray) -> np.ndarray:
        asked.append(step)
        return flag + 1

    monkeypatch.setattr(preemption, "world_size", lambda: 2)
    monkeypatch.setattr(preemption, "uses_gpus", lambda: True)
    monkeypatch.setattr(preemption, "all_reduce", all_reduce)
    stopping = Stopping()
    stopped = []
    for step in range(1, 50):
        if stopping.agreed():
            stopped.append(step)
    assert stopped == asked == [20, 40]
    with pytest.raises(Stopped, match="a signal to another process"):
        stopping.check()


def test_signals_are_noted_only_within_the_block() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with stop_on_signals() as stopping:
        stopping.check()
        os.kill(os.getpid(), signal.SIGUSR1)
        while not stopping.agreed():
            time.sleep(0.001)
        with pytest.raises(Stopped, match="SIGUSR1"):
            stopping.checked(lambda done: None)(1)
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert signal.set_wakeup_fd(-1) == -1
    assert not [t for t in threading.enumerate() if "_listen" in t.name]


def test_an_ignored_signal_stays_ignored() -> None:
    """Shells ignore SIGINT in background jobs."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with stop_on_signals() as stopping:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.1)
            assert stopping.asked is None
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_closed_terminal_does_not_end_the_output() -> None:
    """Writing to a terminal that has closed fails, but a run may print until it has saved."""
    here, terminal = os.openpty()
    source = (
        "import os, signal, sys, time\n"
        "from parallel.signals import stop_on_signals\n"
        "with stop_on_signals() as stopping:\n"
        "    os.write(1, b'!')\n"
        "    while not stopping.asked:\n"
        "        time.sleep(0.01)\n"
        "    print('stopped by', stopping.asked, flush=True)\n"
    )
    settings = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.Popen(
        [sys.executable, "-c", source], env=settings, stdout=terminal, stderr=subprocess.PIPE
    )
    os.close(terminal)
    assert os.read(here, 1) == b"!"
    os.close(here)
    run.send_signal(signal.SIGHUP)
    assert run.communicate(timeout=120) == (None, b"")
    assert run.returncode == 0


def test_workers_forked_by_a_server_ignore_signals() -> None:
    """Python 3.14 forks workers from a server by default. torchrun signals the server, too."""
    source = (
        "import multiprocessing, os, signal, time\n"
        "from parallel import signals as preemption\n"
        "multiprocessing.set_start_method('forkserver')\n"
        "os.setsid()\n"
        "if __name__ == '__main__':\n"
        "    with preemption.stop_on_signals() as stopping:\n"
        "        worker = multiprocessing.Process(target=time.sleep, args=(1,))\n"
        "        worker.start()\n"
        "        os.killpg(0, signal.SIGTERM)\n"
        "        worker.join()\n"
        "        print(stopping.asked, worker.exitcode)\n"
    )
    settings = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=120)
    assert done.stdout == "SIGTERM 0\n", done.stderr


def test_auto_needs_exp(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.parse_args([str(tree), "--resume", "auto"])
    assert "--resume auto: give --exp, the folder to" in capsys.readouterr().err


def test_auto_skips_damaged_checkpoints_unless_all_are_damaged(
    server: Server, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    assert server.wait(server.start(tree, tmp_path / "run")) == [0]
    exp = tmp_path / "run" / "exp"
    auto = [str(tree), "--exp", str(exp), "--resume", "auto"]
    assert main.parse_args(auto).resume == exp / "checkpoint.pth.tar"
    (exp / "checkpoint.pth.tar").write_bytes(b"cut off")
    assert main.parse_args(auto).resume == exp / "checkpoint.previous.pth.tar"
    (exp / "checkpoint.previous.pth.tar").write_bytes(b"cut off")
    assert main.parse_args(auto).resume == exp / "checkpoints" / "checkpoint_2.pth.tar"
    for path in (exp / "checkpoints").iterdir():
        path.write_bytes(b"cut off")
    with pytest.raises(InputError, match="a damaged one; the other checkpoints there are damaged"):
        main.parse_args(auto)
    shutil.rmtree(exp / "checkpoints")
    (exp / "checkpoint.previous.pth.tar").unlink()
    with pytest.raises(InputError, match="a damaged one; there is no other"):
        main.parse_args(auto)
