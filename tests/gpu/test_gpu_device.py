"""The device itself: kernels, TF32, full memory, and which GPU is visible."""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from system import cli
from system.device import full_float32, select_compute

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).parents[2]
GPU = torch.device("cuda")


@pytest.fixture(autouse=True)
def _tf32_as_before() -> Iterator[None]:
    before = torch.backends.cuda.matmul.fp32_precision
    benchmark = torch.backends.cudnn.benchmark
    yield
    torch.backends.cuda.matmul.allow_tf32 = before == "tf32"
    torch.backends.cudnn.benchmark = benchmark


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_first_kernels_run(precision: str) -> None:
    compute = select_compute("cuda", precision)
    assert torch.backends.cudnn.benchmark
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 2))
    x = torch.rand(2, 3, 8, 8)
    with torch.no_grad(), compute.autocast():
        found = network.to(GPU)(x.to(GPU)).float().cpu()
        expected = network.cpu()(x)
    torch.testing.assert_close(found, expected.float(), rtol=2e-2, atol=2e-2)


def error_of_a_product() -> float:
    a, b = (torch.randn(512, 512, generator=torch.Generator().manual_seed(n)) for n in (0, 1))
    exact = a.double() @ b.double()
    return float(((a.to(GPU) @ b.to(GPU)).cpu() - exact).norm() / exact.norm())


@pytest.mark.parametrize("newer_name", [False, True])
def test_full_float32_has_no_tf32(newer_name: bool) -> None:
    """Also in a program that has used torch's newer name for the switch."""
    select_compute("cuda", "fp32")
    if newer_name:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    if torch.cuda.get_device_capability() >= (8, 0):
        assert error_of_a_product() > 3e-5, "outside, products are in TF32"
    with full_float32():
        assert error_of_a_product() < 3e-6


def test_a_full_gpu_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fill(args: argparse.Namespace) -> None:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.empty(2 * total, dtype=torch.uint8, device=GPU)

    assert cli.run(fill, lambda argv: argparse.Namespace(), []) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "GPU memory ran out: CUDA out of memory. Tried to allocate" in error


SAID = """
import numpy as np, torch
from clustering import run_kmeans
from system.device import select_compute
x = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
run_kmeans(x, 3)
print(select_compute().device.type, torch.cuda.device_count())
"""


def on_visible(devices: str) -> str:
    """k-means in a process that sees only these GPUs."""
    done = subprocess.run(
        [sys.executable, "-c", SAID], env={**os.environ, "CUDA_VISIBLE_DEVICES": devices},
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_visible_gpus_everything_is_on_the_cpu() -> None:
    assert on_visible("") == "cpu 0\n"


def test_a_gpu_or_a_part_of_one_is_chosen_by_its_name() -> None:
    """A part has a name that begins with MIG; a process can use a single one."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("nvidia-smi, which lists the names, is not installed")
    names = re.findall(r"UUID: ([\w-]+)", listed.stdout)
    parts = [name for name in names if name.startswith("MIG-")]
    assert on_visible((parts or names)[0]) == "cuda 1\n"
    if len(parts) > 1:
        assert on_visible(",".join(parts[:2])) == "cuda 1\n"
