"""A second method is one class and a row in `METHODS`: here with its own flags, groups, memory."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from runs import assert_same_weights
from torch import Tensor, nn

import main
from checkpoints.checkpoint import read_checkpoint
from data.loading import Batch
from methods.deepcluster import DeepCluster
from methods.method import Method, Running
from system.device import Compute

Train = Callable[..., Path]


class Remembering(DeepCluster):
    """DeepCluster with a memory of losses, and another learning rate for convolutions."""

    order_settings: ClassVar[tuple[str, ...]] = (*DeepCluster.order_settings, "slowness")
    form: ClassVar[dict[str, Any]] = {**DeepCluster.form, "memory": torch.Tensor}

    def __init__(self, args: argparse.Namespace, compute: Compute) -> None:
        super().__init__(args, compute)
        self.memory, self.last = torch.zeros(0), torch.zeros(0)

    @staticmethod
    def add_flags(parser: argparse.ArgumentParser) -> None:
        DeepCluster.add_flags(parser)
        parser.add_argument("--slowness", type=float, default=10.0)

    def groups(self) -> list[dict[str, Any]]:
        body, *others = super().groups()
        network, lr = self.network, body["lr"]
        slow = {**body, "params": network.features.parameters(), "lr": lr / self.args.slowness}
        return [slow, {**body, "params": network.classifier.parameters()}, *others]

    def relabel(self, run: Running) -> None:
        super().relabel(run)
        self.memory = torch.zeros(run.image_count)

    def losses(self, forward: nn.Module, batch: Batch) -> Tensor:
        losses = super().losses(forward, batch)
        self.last = losses.detach()
        return losses

    def after_step(self, batch: Batch) -> None:
        real = batch.index >= 0
        self.memory[batch.index[real]] = self.last[real]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "memory": self.memory}

    def load_state_dict(self, state: dict[str, Any], with_heads: bool) -> None:
        super().load_state_dict(state, with_heads)
        self.memory = state["memory"]


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> type[Method]:
    monkeypatch.setitem(main.METHODS, "remembering", Remembering)
    return Remembering


def test_it_trains_and_resumes_within_an_epoch(
    second: type[Method], tree: Path, train: Train
) -> None:
    flags = ["--method", "remembering", "--slowness", "5", "--epochs", "2"]
    whole = train(tree, *flags, exp="whole")
    saved = read_checkpoint(whole / "checkpoint.pth.tar")
    assert saved["method"] == "remembering"
    assert (saved["memory"] > 0).sum() > 10
    assert [group["lr"] for group in saved["optimizer"]["param_groups"]] == [0.002, 0.01]

    cut = train(tree, *flags, "--checkpoints", "7", exp="cut")
    middle = cut / "checkpoints" / "checkpoint_1.pth.tar"
    assert read_checkpoint(middle)["step"] == 2
    again = ["--resume", str(middle), "--checkpoints", "25000"]
    train(tree, *again, exp="cut")  # the checkpoint names the method, and has its flags
    assert_same_weights(whole / "checkpoint.pth.tar", cut / "checkpoint.pth.tar")
    assert torch.equal(read_checkpoint(cut / "checkpoint.pth.tar")["memory"], saved["memory"])


def test_a_method_has_its_own_flags(
    second: type[Method], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.parse_args(["x", "--method", "remembering", "--slowness", "3"]).slowness == 3
    with pytest.raises(SystemExit):
        main.parse_args(["x", "--slowness", "3"])
    assert "argument --slowness: belongs to --method remembering" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main.parse_args(["x", "--method", "forgetting"])
    assert "invalid choice: 'forgetting'" in capsys.readouterr().err


def test_a_checkpoint_of_another_method_is_an_error(
    second: type[Method], tree: Path, train: Train
) -> None:
    path = train(tree) / "checkpoint.pth.tar"
    with pytest.raises(main.InputError, match="holds a run of --method deepcluster, not of rem"):
        train(tree, "--resume", str(path), "--method", "remembering", "--epochs", "2")
