"""Data on its way to the GPU and back: pinned memory, copies that nobody waits for, the feature
pass."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny

from benchmarks.gpu.waits import count_copies, count_waits
from cluster.moments import BLOCK, Moments
from data.batch import Batch
from data.images import find_images
from data.loading import EpochBatches, ImageDataset, make_loader
from data.transforms import central_crop, to_input
from features.forward import Features, ToHost, compute_features, forward_pass
from models import ConvNet
from system.device import Compute

pytestmark = pytest.mark.gpu
GPU, CPU = torch.device("cuda"), torch.device("cpu")


def batches_for(device: torch.device, folder: Path, workers: int = 0) -> list[Batch]:
    images = find_images(folder)
    batches = EpochBatches(7)
    batches.start_epoch(0, np.arange(len(images)))
    return list(make_loader(ImageDataset(images, central_crop(32)), batches, workers, device))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_pinned(tree: Path, workers: int) -> None:
    (tree / "a" / "000.png").write_bytes(b"no image")
    expected = batches_for(CPU, tree)
    for batch, other in zip(batches_for(GPU, tree, workers), expected, strict=True):
        assert batch.pixels.is_pinned()
        assert batch.index.is_pinned()
        assert batch.turns.is_pinned()
        assert batch.index[:3].is_pinned(), "as a part of it travels"
        assert torch.equal(batch.pixels, other.pixels)
        assert torch.equal(batch.index, other.index)


def test_a_batch_without_images_is_pinned() -> None:
    none = torch.empty(0, dtype=torch.int64)
    batch = Batch(torch.empty(0, 3, 0, 0, dtype=torch.uint8), none, {3: "unreadable"}).pin_memory()
    assert (len(batch.pixels), len(batch.index)) == (0, 0)


def test_network_input_is_that_of_the_cpu_in_channels_last(tree: Path) -> None:
    pixels = batches_for(GPU, tree)[0].pixels
    found = to_input(pixels, GPU)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.cpu(), to_input(pixels, CPU), rtol=1e-6, atol=1e-6)


def test_results_reach_the_host_while_the_device_works() -> None:
    """Their memory on the device is used again before they are fetched."""
    busy = torch.randn(4096, 4096, device=GPU)
    x = torch.arange(1_000_000, device=GPU, dtype=torch.float32)
    for _ in range(20):
        busy = (busy @ busy).clamp(-1, 1)
    x += busy[0, 0] * 0
    on_its_way = ToHost(x, x > 5)
    assert all(copy.is_pinned() for copy in on_its_way._copies)
    x.zero_()
    del x
    torch.full((1_000_000,), -1.0, device=GPU)
    numbers, large = on_its_way.fetch()
    np.testing.assert_array_equal(numbers, np.arange(1_000_000, dtype=np.float32))
    assert large.sum() == 1_000_000 - 6


def features_on(device: torch.device, model: ConvNet, batches: list[Batch]) -> Features:
    compute = Compute(device, "fp32")
    count = sum(len(batch.index) for batch in batches)
    return compute_features(batches, model.to(device), range(count), compute, print)  # type: ignore[arg-type]


@pytest.fixture
def _without_tf32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.fp32_precision
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before[0]
    torch.backends.cuda.matmul.allow_tf32 = before[1] == "tf32"


@pytest.mark.usefixtures("_without_tf32")
def test_features_are_the_cpus(tree: Path) -> None:
    model = tiny(sobel=True).eval()
    expected = features_on(CPU, model, batches_for(CPU, tree))
    found = features_on(GPU, model, batches_for(GPU, tree))
    assert found.rows.dtype == np.float16
    np.testing.assert_allclose(found.rows, expected.rows, rtol=2e-3, atol=2e-4)
    assert found.moments is not None
    assert expected.moments is not None
    for of_gpu, of_cpu in zip(found.moments.reduce(), expected.moments.reduce(), strict=True):
        if isinstance(of_gpu, torch.Tensor):
            torch.testing.assert_close(of_gpu.cpu(), of_cpu, rtol=1e-2, atol=1e-6)


def test_the_pass_waits_for_nothing_but_the_batch_before(tree: Path) -> None:
    model, batches = tiny(sobel=True).eval().to(GPU), batches_for(GPU, tree)
    moments = Moments(32, GPU)

    def steps() -> Iterator[None]:
        loader: Any = batches
        with torch.inference_mode():
            on_gpu = Compute(GPU, "bf16")
            for _, _, rows in forward_pass(loader, model.embedding, model.std, on_gpu, print):
                moments.add(rows.repeat(BLOCK // 7, 1))
                yield

    list(steps())  # warm up
    assert count_waits(steps()) == {}
    assert count_copies(steps()) == {}


def test_a_wait_and_a_copy_are_counted() -> None:
    """Or else the tests that find none would say nothing."""
    x = torch.ones(1000, device=GPU)

    def three() -> Iterator[float]:
        for _ in range(3):
            yield float(x.sum())

    ((where, waits),) = count_waits(three()).items()
    assert where.startswith("tests/gpu/test_gpu_passes.py:")
    assert waits == 3
    large = torch.zeros(1_000_000)
    copies = count_copies(large.to(GPU, non_blocking=True) for _ in range(3))
    assert sum(copies.values()) == 3


def test_rows_that_are_not_finite_are_named_at_the_end() -> None:
    moments = Moments(3, GPU)
    rows = torch.rand(2 * BLOCK, 3)
    rows[BLOCK + 5, 1] = torch.nan
    moments.add(rows.to(GPU))
    with pytest.raises(ValueError, match=f"row {BLOCK + 5} is not finite"):
        moments.reduce()
