"""Training on the GPU: as on the CPU, without waits in a step, in every precision, resumed."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import plain
from runs import load_metrics

from benchmarks.gpu import steps
from benchmarks.gpu.in_memory import InMemory
from benchmarks.gpu.waits import count_copies, count_waits
from checkpoints.checkpoint import load_model, read_checkpoint
from data.images import find_images
from models import MODELS
from system.device import select_compute

pytestmark = pytest.mark.gpu
GPU = torch.device("cuda")
Train = Callable[..., Path]

CROPS = "--nmb_crops 2 2 --size_crops 32 16 --hidden_mlp 16 --feat_dim 8"
METHODS = {
    "deepcluster": "--k 4",
    "deepclusterv2": f"--method deepclusterv2 {CROPS} --k 4 --lr 0.1",
    "swav": f"--method swav {CROPS} --k 4 --lr 0.1 --queue_length 16 --epoch_queue_starts 0",
    "deepercluster": "--method deepercluster --super_classes 8 --k 6 --niter 3 --lr 0.02",
}


@pytest.fixture(params=list(METHODS))
def flags(request: pytest.FixtureRequest) -> list[str]:
    return METHODS[request.param].split()


@pytest.fixture(autouse=True)
def _backends_as_before() -> Iterator[None]:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.allow_tf32, matmul.fp32_precision
    yield
    cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = *before[:2], before[2] == "tf32"


def test_the_first_epoch_is_the_cpus(
    flags: list[str], tree: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a network without dropout, whose draws differ between devices. Products in TF32 may move
    an image to another cluster."""
    monkeypatch.setitem(MODELS, "plain", plain)
    losses = []
    for device in ("cuda", "cpu"):
        exp = train(tree, *flags, "--arch", "plain", "--device", device, exp=device)
        losses.append(load_metrics(exp)[0]["convnet_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=0.1)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_each_precision_trains_and_resumes(
    flags: list[str], precision: str, tree: Path, train: Train
) -> None:
    device = ["--device", "cuda", "--precision", precision]
    exp = train(tree, *flags, *device)
    more = ["--resume", str(exp / "checkpoint.pth.tar"), "--epochs", "2"]
    train(tree, *flags, *device, *more)
    lines = load_metrics(exp)
    assert [line["epoch"] for line in lines] == [0, 1]
    assert all(np.isfinite(line["convnet_loss"]) for line in lines)
    assert all(line["peak_memory_gib"]["gpu"] > 0 for line in lines)
    checkpoint = read_checkpoint(exp / "checkpoint.pth.tar")
    assert bool(checkpoint["grad_scaler"]) == (precision == "fp16")
    assert {weight.device.type for weight in checkpoint["state_dict"].values()} == {"cpu"}
    assert load_model(exp / "checkpoint.pth.tar").arch == "tiny"


def test_a_run_goes_on_on_the_cpu_and_back(flags: list[str], tree: Path, train: Train) -> None:
    exp = train(tree, *flags, "--device", "cuda")
    for epochs, device in ((2, "cpu"), (3, "cuda")):
        more = ["--resume", str(exp / "checkpoint.pth.tar"), "--epochs", str(epochs)]
        train(tree, *flags, *more, "--device", device)
    assert [line["epoch"] for line in load_metrics(exp)] == [0, 1, 2]


@pytest.fixture(params=list(steps.TINY))
def memory(request: pytest.FixtureRequest, tree: Path) -> InMemory:
    flags = f"{steps.TINY[request.param]} --batch 4 --workers 0"
    return InMemory(flags, find_images(tree), select_compute("cuda"), batches=10)


def test_the_host_waits_for_nothing_in_a_step(memory: InMemory) -> None:
    list(memory.take(10))  # warm up
    for count in (count_waits, count_copies):
        some = memory.take(10)
        for _ in range(3):
            next(some)
        assert count(some) == {}


def test_gradients_are_in_channels_last(memory: InMemory) -> None:
    list(memory.take(2))
    weights = [p for p in memory.method.network.parameters() if p.ndim == 4 and p.shape[2] > 1]
    for weight in weights:
        assert weight.is_contiguous(memory_format=torch.channels_last)
        assert weight.grad is not None
        assert weight.grad.is_contiguous(memory_format=torch.channels_last)


def test_a_step_that_overflows_in_fp16_leaves_all_optimisers_weights(tree: Path) -> None:
    """Those of the body and of the head; the scale is halved once."""
    flags = f"{steps.TINY['deepcluster']} --batch 4 --workers 0"
    memory = InMemory(flags, find_images(tree), select_compute("cuda", "fp16"), batches=4)
    list(memory.take(1))
    memory.run.state.scaler = torch.amp.GradScaler("cuda", init_scale=2.0**126)
    weights = list(memory.method.trained.parameters())
    before = [weight.detach().clone() for weight in weights]
    some = memory.steps()
    next(some)
    assert memory.run.state.scaler.get_scale() == 2.0**125
    assert all(torch.equal(*pair) for pair in zip(weights, before, strict=True))
    memory.run.state.scaler.load_state_dict(
        {**memory.run.state.scaler.state_dict(), "scale": 1024.0}
    )
    next(some)
    assert not any(torch.equal(*pair) for pair in zip(weights[-2:], before[-2:], strict=True))
    assert not all(torch.equal(*pair) for pair in zip(weights[:-2], before[:-2], strict=True))


def test_a_run_repeats_itself_but_for_rounding(tree: Path, train: Train) -> None:
    """`cudnn.benchmark` may choose other convolutions, and sums have another order."""
    losses = []
    for name in ("one", "other"):
        exp = train(tree, "--device", "cuda", exp=name)
        losses.append(load_metrics(exp)[0]["convnet_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
