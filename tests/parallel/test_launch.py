"""launch.py: torchrun, its exit status, its signals, and its output when it fails."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from runs import Server, output_of
from torch.distributed.elastic.multiprocessing import PContext

from parallel import launch as launch_module
from parallel.signals import SIGNALS

ROOT = Path(__file__).parents[2]


def start(script: Path, source: str, ignored: str = "") -> subprocess.Popen[str]:
    """Start a script in two processes, with some signals ignored; the variable `rank` is theirs."""
    head = "import os, signal, sys, time\nrank = int(os.environ['LOCAL_RANK'])"
    script.write_text(f"{head}\n{source}\n")
    command = ["-m", "parallel.launch", "--standalone", "--nproc_per_node", "2", str(script), "a"]
    return subprocess.Popen(
        ["sh", "-c", f'{ignored}exec "$@"', "sh", sys.executable, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def launch(script: Path, source: str) -> subprocess.CompletedProcess[str]:
    """Run a script in two processes to its end."""
    launcher = start(script, source)
    output, error = launcher.communicate(timeout=120)
    return subprocess.CompletedProcess(launcher.args, launcher.returncode, output, error)


def test_the_help_shows_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        launch_module._parse_args(["--help"])
    text = capsys.readouterr().out
    assert text.startswith("usage: python -m parallel.launch [")
    assert text.endswith("Details: docs/distributed.md\n")


def test_no_temporary_folder_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    monkeypatch.setattr(launch_module._Launched, "forward_signals", lambda launched: None)
    assert launch_module.main(["script.py"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match("launch.py: error: No usable temporary directory .*; set TMPDIR to a", line)


def test_processes_that_succeed(tmp_path: Path) -> None:
    source = (
        "os.write(1, (sys.argv[1] + os.environ['WORLD_SIZE'] + '\\n').encode())"  # in one write
    )
    done = launch(tmp_path / "script.py", source)
    assert (done.returncode, done.stdout) == (0, "a2\na2\n")


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    """The first process prints it, even if the other one fails long before."""
    source = f"sys.path.insert(0, {str(ROOT)!r})\nfrom system import cli\n"
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
def test_other_failures_are_reported_with_the_process(
    tmp_path: Path, source: str, status: int, reason: str
) -> None:
    done = launch(tmp_path / "script.py", source)
    assert done.returncode == status
    assert reason in done.stderr
    assert "local_rank: 1" in done.stderr
    pid_and_host = rf"\(on {socket.gethostname()}, pid \d+\)"
    how = "was killed by SIGKILL" if status == 137 else "ended with status 1"
    *_, last = done.stderr.splitlines()
    assert re.match(f"launch.py: error: process 1 {pid_and_host} {how}; the others were", last)


def test_a_killed_process_counts_as_the_cause_of_later_failures(tmp_path: Path) -> None:
    """Another process may lose its connection, and fail, in the same second."""
    source = f"""
died = {str(tmp_path / "died")!r}
if rank:
    os.close(os.open(died, os.O_CREAT))
    os.kill(os.getpid(), 9)
while not os.path.exists(died):
    pass
sys.exit(1)
"""
    done = launch(tmp_path / "script.py", source)
    assert "launch.py: error: process 1 (on" in done.stderr


READY = """
def tell(number, frame):
    os.write(1, f"{rank} got {signal.Signals(number).name}\\n".encode())
    sys.exit(0)

for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGQUIT):
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, tell)
os.write(1, b"ready\\n")
time.sleep(60)
"""


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGHUP"])
def test_a_signal_reaches_all_processes_and_the_exit_status_is_0(tmp_path: Path, name: str) -> None:
    launcher = start(tmp_path / "script.py", READY)
    assert launcher.stdout is not None
    assert [launcher.stdout.readline() for _ in range(2)] == ["ready\n", "ready\n"]
    launcher.send_signal(signal.Signals[name])
    output, error = launcher.communicate(timeout=120)
    assert sorted(output.splitlines()) == [f"0 got {name}", f"1 got {name}"]
    assert (launcher.returncode, error) == (0, "")


def test_launcher_and_processes_ignore_what_is_ignored_at_the_start(tmp_path: Path) -> None:
    """`nohup` ignores SIGHUP; a shell ignores SIGQUIT in background jobs."""
    launcher = start(tmp_path / "script.py", READY, ignored='trap "" HUP QUIT; ')
    assert launcher.stdout is not None
    assert [launcher.stdout.readline() for _ in range(2)] == ["ready\n", "ready\n"]
    for number in (signal.SIGHUP, signal.SIGQUIT):  # as a terminal that closes, to all processes
        os.killpg(launcher.pid, number)
    launcher.send_signal(signal.SIGUSR1)
    output, error = launcher.communicate(timeout=120)
    assert sorted(output.splitlines()) == ["0 got SIGUSR1", "1 got SIGUSR1"]
    assert (launcher.returncode, error) == (0, "")


def test_a_signal_that_comes_while_the_processes_start_reaches_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(PContext, "start", lambda _: os.kill(os.getpid(), signal.SIGUSR1))
    before = {number: signal.getsignal(number) for number in SIGNALS}
    child = subprocess.Popen(["sleep", "60"])
    launched = launch_module._Launched()
    launched.forward_signals()
    try:
        PContext.start(SimpleNamespace(pids=lambda: {0: child.pid}))  # type: ignore[arg-type]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert child.wait(timeout=30) == -signal.SIGUSR1
    assert launched.signals == [signal.SIGUSR1]


def test_an_end_by_a_signal_is_not_reported(tmp_path: Path) -> None:
    launcher = start(tmp_path / "script.py", READY)
    assert launcher.stdout is not None
    assert [launcher.stdout.readline() for _ in range(2)] == ["ready\n", "ready\n"]
    launcher.send_signal(signal.SIGTERM)
    assert launcher.communicate(timeout=120)[1] == ""
    assert launcher.returncode == 128 + signal.SIGTERM


def test_a_stopped_run_with_workers_can_be_resumed(
    server: Server, tree: Path, tmp_path: Path
) -> None:
    """The processes that resume it are forked, which saves their imports."""
    exp = tmp_path / "exp"
    command = [sys.executable, "-m", "parallel.launch", "--standalone", "--nproc_per_node", "2"]
    flags = "--arch resnet18_small --sobel --size 32 --k 4 --batch 8 --workers 1 --no-report"
    flags += " --device cpu --precision fp32 --epochs"
    command += [str(ROOT / "main.py"), str(tree), *flags.split(), "500", "--resume", "auto"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    run = subprocess.Popen(
        [*command, "--exp", str(exp)], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    while run.poll() is None and not (exp / "checkpoint.pth.tar").exists():
        time.sleep(0.05)
    run.send_signal(signal.SIGTERM)
    output, error = run.communicate(timeout=120)
    saved = exp / "checkpoint.pth.tar"
    onward = f"to resume: the same command with --resume {saved}\n"
    assert (run.returncode, output, error) == (0, f"stopped by SIGTERM; {onward}", "")

    epochs = len((exp / "metrics.jsonl").read_text().splitlines()) + 1
    resumed = server.start(tree, tmp_path, ranks=2, workers=1, flags=f"{flags} {epochs}")
    assert server.wait(resumed) == [0, 0], output_of(tmp_path)
    lines = (exp / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(epochs))
