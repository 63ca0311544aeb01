"""NaN and infinity stop a run at their step; earlier results stay."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import load_metrics
from torch import nn

from checkpoints.checkpoint import load_model
from checkpoints.folder import is_sound
from methods import deepcluster
from models import ConvNet
from system.errors import InputError
from training.experiment import Bystander
from training.finite import MOST_SKIPPED, STEPS_BETWEEN_LOOKS, PendingLosses
from training.state import State

Train = Callable[..., Path]
SGD_STEP = torch.optim.SGD.step


@pytest.fixture
def good(tree: Path, train: Train) -> Iterator[Path]:
    """A run of one epoch of five steps, whose files must not change."""
    folder = train(tree, "--no-report")
    names = ("checkpoint.pth.tar", "checkpoint.previous.pth.tar", "metrics.jsonl", "clusters")
    before = {name: (folder / name).read_bytes() for name in names}
    yield folder
    assert {name: (folder / name).read_bytes() for name in names} == before
    load_model(folder / "checkpoint.pth.tar")


def go_on(train: Train, tree: Path, good: Path, *flags: str) -> Path:
    resume = ["--resume", str(good / "checkpoint.pth.tar"), "--epochs", "3", "--no-report"]
    return train(tree, *resume, *flags)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_stops_the_run_at_its_step(
    tree: Path, train: Train, good: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    cross_entropy, steps, taken = deepcluster.F.cross_entropy, [], []

    def spoil(logits: torch.Tensor, *others: Any, **options: Any) -> torch.Tensor:
        steps.append(len(logits))
        losses = cross_entropy(logits, *others, **options)
        return losses * torch.where(torch.arange(8) == 6, value, 1.0) if len(steps) == 3 else losses

    def step(optimizer: torch.optim.SGD, closure: None = None) -> None:
        taken.append(optimizer)
        SGD_STEP(optimizer)

    monkeypatch.setattr(deepcluster.F, "cross_entropy", spoil)
    monkeypatch.setattr(torch.optim.SGD, "step", step)
    with pytest.raises(InputError, match=r"loss became (nan|inf) in step 2 of epoch 1") as error:
        go_on(train, tree, good)
    assert len(steps) == 3
    assert len(taken) == 2 * 2, "body and head, in steps 0 and 1"
    assert f"the last good checkpoint is {good / 'checkpoint.pth.tar'}: try" in str(error.value)
    assert "loss became" in (good / "log.txt").read_text()


@pytest.mark.parametrize("layer", ["all", "the last"])
def test_gradients_stop_the_run_before_they_reach_the_weights(
    tree: Path, train: Train, good: Path, monkeypatch: pytest.MonkeyPatch, layer: str
) -> None:
    steps: list[int] = []
    spoiled: list[torch.Tensor] = []

    class Spoil(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            steps.append(1)
            return gradient / 0 if len(steps) == 4 and layer == "all" else gradient

    def spoil_bias(gradient: torch.Tensor) -> torch.Tensor:
        return gradient / 0 if len(steps) == 4 else gradient

    def spoil(model: ConvNet, x: torch.Tensor) -> torch.Tensor:
        bias = model.top_layer.bias if model.top_layer is not None else None
        if layer == "the last" and bias is not None and all(bias is not b for b in spoiled):
            spoiled.append(bias)
            bias.register_hook(spoil_bias)
        return Spoil.apply(forward(model, x))

    forward = ConvNet.forward
    monkeypatch.setattr(ConvNet, "forward", spoil)
    with pytest.raises(InputError, match="gradients became NaN or infinite in step 3 of epoch 1"):
        go_on(train, tree, good)
    assert len(steps) == 4


def test_features_stop_the_run(
    tree: Path, train: Train, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedding, batches = ConvNet.embedding, []

    def spoil(model: ConvNet, x: torch.Tensor) -> torch.Tensor:
        result = embedding(model, x)
        if not model.training:
            batches.append(len(x))
            if len(batches) == 2:
                result[3, 5] = float("nan")
        return result

    monkeypatch.setattr(ConvNet, "embedding", spoil)
    wanted = "features became NaN or infinite in batch 1 of the pass for epoch 1 .*; the last good"
    with pytest.raises(InputError, match=wanted):
        go_on(train, tree, good)
    assert not (good / "bad_images.txt").exists()


def test_weights_that_are_not_finite_are_not_saved(
    tree: Path, train: Train, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finite gradients in an epoch's last step can spoil the weights."""
    steps: list[int] = []

    def spoil(optimizer: torch.optim.SGD, closure: None = None) -> None:
        SGD_STEP(optimizer)
        steps.append(1)
        if len(steps) == 10:
            with torch.no_grad():
                optimizer.param_groups[0]["params"][0].fill_(float("inf"))

    monkeypatch.setattr(torch.optim.SGD, "step", spoil)
    with pytest.raises(InputError, match="are not saved, after 5 steps of epoch 1"):
        go_on(train, tree, good, "--checkpoints", "9")
    assert is_sound(good / "checkpoints" / "checkpoint_1.pth.tar"), "of step 4"


def test_a_real_learning_rate_that_is_far_too_high(tree: Path, train: Train, good: Path) -> None:
    with pytest.raises(InputError, match=r"became (nan|inf|NaN or infinite) .*; "):
        go_on(train, tree, good, "--lr", "1e30")
    assert [line["epoch"] for line in load_metrics(good)] == [0]


def pending(enabled: bool = False) -> tuple[PendingLosses, nn.Parameter]:
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    state = State(2)
    state.scaler = torch.amp.GradScaler("cpu", enabled=enabled)
    return PendingLosses(state, [weight], Bystander()), weight


def test_in_fp16_a_step_may_overflow_but_not_many_in_a_row() -> None:
    losses, weight = pending(enabled=True)
    assert weight.grad is not None
    for run in (MOST_SKIPPED - 1, MOST_SKIPPED - 1):
        weight.grad.fill_(1)
        losses.add(torch.ones(2))
        weight.grad.fill_(float("inf"))
        for _ in range(run):
            losses.add(torch.ones(2))
    with pytest.raises(InputError, match=f"gradients became NaN or infinite, {MOST_SKIPPED} times"):
        losses.add(torch.ones(2))
    losses, _ = pending(enabled=True)
    with pytest.raises(InputError, match="the loss became nan"):
        losses.add(torch.tensor([1.0, float("nan")]))


def test_of_steps_checked_together_the_first_bad_one_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a GPU, steps are checked together. Those before the bad one count in the mean."""
    losses, _ = pending()
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda self: True))
    for step in range(STEPS_BETWEEN_LOOKS - 1):
        losses.state.step = step
        bad = float("inf") if step >= 7 else float(step)
        losses.add(torch.tensor([bad, 1.0]))
    assert losses.state.convnet_loss.count == 0
    with pytest.raises(InputError, match=r"loss became inf in step 7 of epoch 2 .*; nothing was"):
        losses.flush()
    assert losses.state.convnet_loss.count == 14
    assert losses.state.convnet_loss.avg == pytest.approx((sum(range(7)) + 7) / 14)


def test_a_batch_without_images_counts_for_nothing() -> None:
    losses, _ = pending()
    losses.add(torch.empty(0))
    losses.add(torch.tensor([3.0]))
    assert (losses.state.convnet_loss.avg, losses.state.convnet_loss.count) == (3.0, 1)
