"""Several processes: sharing one GPU over gloo, and with NCCL on one GPU each."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from runs import load_metrics

from parallel.heartbeat import OTHER_DIED

ROOT = Path(__file__).parents[2]
COLLECTIVES = ROOT / "tests" / "sharded_collectives.py"
LAUNCHER = [sys.executable, "-m", "parallel.launch", "--standalone", "--nproc_per_node", "2"]
# visible GPUs, and whether NCCL is used
SHARED = pytest.param("0", False, marks=pytest.mark.gpu, id="one GPU")
OWN = pytest.param("0,1", True, marks=pytest.mark.gpu(2), id="two GPUs")

KILLED = """
import os, signal, sys, torch
import torch.distributed as dist
from parallel.collectives import process_group, rank, uses_gpus

with process_group("auto"):
    assert uses_gpus()
    x = torch.ones(1, device="cuda")
    dist.all_reduce(x)
    if rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.all_reduce(x)  # of a process that is gone
    print(x.item())
"""


def launch(devices: str, *script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LAUNCHER, *script],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": devices, "OMP_NUM_THREADS": "1",
             "PYTHONPATH": str(ROOT)},
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(("devices", "nccl"), [SHARED, OWN])
def test_collectives_gradients_and_synchronised_batch_norm(devices: str, nccl: bool) -> None:
    done = launch(devices, str(COLLECTIVES), "auto")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"2 processes, cuda, nccl: {nccl}\n"
    assert ("processes share 1 GPU(s)" in done.stderr) == (not nccl)


CROPS = "--nmb_crops 2 1 --size_crops 32 16 --hidden_mlp 16 --feat_dim 8"
METHODS = {
    "deepcluster": "--k 4",
    "swav": f"--method swav {CROPS} --k 4",
    "deepclusterv2": f"--method deepclusterv2 {CROPS} --k 4",
    "deepercluster": "--method deepercluster --super_classes 8 --k 16 --niter 3 --shard_heads",
}


@pytest.mark.parametrize(
    ("devices", "method"),
    [
        *(
            pytest.param("0", each, marks=pytest.mark.gpu)
            for each in ("deepcluster", "deepercluster")
        ),
        *(pytest.param("0,1", each, marks=pytest.mark.gpu(2)) for each in METHODS),
    ],
)
def test_each_method_trains(tree: Path, tmp_path: Path, method: str, devices: str) -> None:
    """With several workers and a last batch that is smaller, and without a line on stderr but what
    is meant to be there."""
    base = f"--arch resnet18_small --size 32 --batch 16 --epochs 2 --workers 1 --exp {tmp_path}/exp"
    done = launch(devices, "main.py", str(tree), *f"{base} {METHODS[method]} --no-report".split())
    assert done.returncode == 0, done.stderr
    lines = load_metrics(tmp_path / "exp")
    assert [line["epoch"] for line in lines] == [0, 1]
    assert all(np.isfinite(line["convnet_loss"]) for line in lines)
    assert "Traceback" not in done.stderr


@pytest.mark.gpu(2)
def test_a_process_that_dies_ends_one_that_waits_in_nccl(tmp_path: Path) -> None:
    """Within a minute; NCCL itself would wait for hours."""
    (tmp_path / "script.py").write_text(KILLED)
    start = time.monotonic()
    done = launch("0,1", str(tmp_path / "script.py"))
    assert time.monotonic() - start < 90
    assert done.returncode in (OTHER_DIED, 128 + 9)
    assert re.search(r"process 1 \(on \S+, pid \d+\) (has died|was killed by SIGKILL)", done.stderr)
