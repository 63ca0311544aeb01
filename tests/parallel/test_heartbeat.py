"""When a process dies, the others end within a minute and name it."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist
from runs import Server, output_of, send, wait_for

from parallel import heartbeat
from parallel.heartbeat import OTHER_DIED, meet
from system.errors import InputError

ROOT = Path(__file__).parents[2]

# Two processes under their launchers: one is killed, the other waits, in a collective or elsewhere
SCRIPT = """
import os, signal, sys, time
import torch.distributed as dist
from parallel.collectives import process_group, rank

with process_group("cpu"):
    dist.barrier()
    if rank() == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[2] == "collective":
        dist.barrier()
    time.sleep(300)
"""


@pytest.mark.parametrize("stuck_in", [None, "clustering"])
def test_a_process_that_is_killed_ends_the_others(
    server: Server, tree: Path, tmp_path: Path, stuck_in: str | None
) -> None:
    """It ends them in training, and in a computation that would take hours."""
    pause = None if stuck_in else ["training", 2]
    processes = server.start(tree, tmp_path, ranks=2, stuck_in=stuck_in, pause_in=pause)
    if stuck_in:
        wait_for(tmp_path, stuck_in)
        os.kill(processes[1], signal.SIGKILL)
    else:
        send(tmp_path, processes[1], signal.SIGKILL)
    killed = time.monotonic()
    assert server.wait(processes) == [OTHER_DIED, -signal.SIGKILL], output_of(tmp_path)
    assert time.monotonic() - killed < 60
    who = f"process 1 (on {socket.gethostname()}, pid {processes[1]}) has died"
    assert output_of(tmp_path) == f"run_server.py: error: {who}; so this run ends\n"


def test_a_process_that_stays_silent_counts_as_dead(
    server: Server, tree: Path, tmp_path: Path
) -> None:
    """Its machine may have lost its power, for example."""
    processes = server.start(tree, tmp_path, ranks=2, beat=0.1, pause_in=["training", 2])
    send(tmp_path, processes[1], signal.SIGSTOP)
    assert server.wait(processes[:1]) == [OTHER_DIED]
    assert f"pid {processes[1]}) gives no sign of life; so" in output_of(tmp_path)
    os.kill(processes[1], signal.SIGKILL)
    server.wait(processes[1:])


@pytest.mark.parametrize(
    ("dead", "wait_in", "said"),
    [
        (1, "collective", r"process 1 \(on \S+, pid \d+\) (has died|was killed by SIGKILL)"),
        (0, "sleep", r"process 0 \(on|the launcher at \S+, that of process 0, is gone"),
    ],
)
def test_a_process_that_is_killed_ends_those_on_other_machines(
    tmp_path: Path, dead: int, wait_in: str, said: str
) -> None:
    """Two launchers imitate two machines."""
    (tmp_path / "script.py").write_text(SCRIPT)
    with socket.create_server(("127.0.0.1", 0)) as free:
        end = f"127.0.0.1:{free.getsockname()[1]}"
    nodes = f"--nnodes 2 --nproc_per_node 1 --rdzv_backend c10d --rdzv_id 1 --rdzv_endpoint {end}"
    command = [sys.executable, "-m", "parallel.launch", *nodes.split()]
    command += [str(tmp_path / "script.py"), str(dead), wait_in]
    settings = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    launchers = [
        subprocess.Popen(command, env={**os.environ, **settings}, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = []
    for launcher in launchers:
        outputs.append(launcher.communicate(timeout=120)[1])
    statuses = sorted(launcher.returncode for launcher in launchers)
    assert statuses == [OTHER_DIED, 128 + signal.SIGKILL], outputs
    survivor = outputs[[launcher.returncode for launcher in launchers].index(OTHER_DIED)]
    assert re.search(said, survivor), survivor
    assert "Traceback" not in survivor
    named = rf"process {dead} \(on {socket.gethostname()}, pid \d+\) was killed by SIGKILL"
    assert re.search(f"launch.py: error: {named}; the others were ended", "".join(outputs))


def test_the_wait_for_a_process_that_never_starts_ends_after_minutes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its flags may be bad, for example."""
    store = dist.TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)
    there = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    for name, value in {**there, "TORCHELASTIC_USE_AGENT_STORE": "True", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WORLD_SIZE", "1")
    meet()
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr(heartbeat, "LONGEST_START", timedelta(seconds=0.5))
    with pytest.raises(InputError, match=r"^process 1, 2 has not started within 0:00:00\.5"):
        meet()
