"""Which backend the processes of a machine use, and which collectives there are."""

import ast
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from parallel import collectives

ROOT = Path(__file__).parents[2]
# Of torch.distributed, those that gloo has for tensors on the CPU: tests/sharded_collectives.py
# calls all of them. `ReduceOp.AVG`, `all_to_all_single` and `barrier(device_ids)` are NCCL's.
OF_GLOO = {
    "all_gather", "all_gather_into_tensor", "all_gather_object", "all_reduce", "broadcast",
    "reduce_scatter_tensor",
}  # fmt: skip
OTHERS = {
    "DistError", "PrefixStore", "ReduceOp.MAX", "Store", "TCPStore", "destroy_process_group",
    "get_backend", "get_rank", "get_world_size", "init_process_group", "is_initialized",
}  # fmt: skip


@pytest.mark.parametrize(
    ("gpus", "processes", "backend", "chosen"),
    [(0, 2, "gloo", []), (2, 2, "nccl", [1]), (4, 2, "nccl", [1]), (1, 2, "gloo", [0])],
)
def test_nccl_needs_a_gpu_for_each_process(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    gpus: int,
    processes: int,
    backend: str,
    chosen: list[int],
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert collectives._take_gpu() == backend
    assert taken == chosen
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("LOCAL_RANK", "0")
    collectives._take_gpu()
    shared = "warning: 2 processes share 1 GPU(s): slower than a GPU for each\n"
    assert capsys.readouterr().err == (shared if gpus == 1 else "")


def test_no_call_is_of_nccl_alone() -> None:
    used: set[str] = set()
    for path in ROOT.glob("**/*.py"):
        room = path.relative_to(ROOT).parts[0]
        if room == "tests" or room.startswith("."):
            continue
        source = path.read_text("utf-8")
        if "distributed" not in source:
            continue
        assert room == "parallel" or "torch.distributed" not in source, path
        found = {
            ast.unparse(node).removeprefix("dist.")
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("dist.")
        }
        used |= {name for name in found if not any(other.startswith(f"{name}.") for other in found)}
    assert used == OF_GLOO | OTHERS


def test_synchronised_batch_norm_is_left_out_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's needs GPUs."""
    monkeypatch.setattr(collectives, "world_size", lambda: 2)
    model = nn.Sequential(nn.BatchNorm2d(2))
    assert type(collectives.synchronised(model, torch.device("cpu"))[0]) is nn.BatchNorm2d
    assert type(collectives.synchronised(model, torch.device("cuda"))[0]) is nn.SyncBatchNorm


def test_each_collective_is_called_under_gloo() -> None:
    """By the script that test_processes.py runs."""
    script = (ROOT / "tests" / "sharded_collectives.py").read_text()
    module = ast.parse((ROOT / "parallel" / "collectives.py").read_text())
    callers = {
        function.name
        for function in module.body
        if isinstance(function, ast.FunctionDef)
        and any(re.search(rf"\bdist\.{name}\(", ast.unparse(function)) for name in OF_GLOO)
    }
    assert callers
    assert {name for name in callers if f"{name}(" not in script} == set()
