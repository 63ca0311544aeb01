"""The protocols of fine-tuning, value by value against the published ones."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny
from torch import nn

import eval_semisup
from data.transforms import random_crop
from evaluation.finetuning import new_top_layer
from evaluation.linear_run import for_all
from evaluation.semisup import PROTOCOLS, FineTuning, settings_of
from evaluation.whole import Whole
from models import ConvNet
from system.device import select_compute

CPU = select_compute("cpu", "fp32")


def settings(flags: str = "", percent: float = 100) -> FineTuning:
    command = ["--data", "d", "--model", "m", *flags.split()]
    return settings_of(eval_semisup.parse_args(command), percent)[0]


def note(flags: str = "", percent: float = 100) -> str:
    command = ["--data", "d", "--model", "m", *flags.split()]
    return settings_of(eval_semisup.parse_args(command), percent)[1]


def optimizer_of(chosen: FineTuning, sobel: bool = True) -> torch.optim.SGD:
    return chosen.optimizer(Whole(tiny(sobel=sobel, out=3), 32, CPU))


def rates(chosen: FineTuning, per_epoch: int = 3) -> list[list[float]]:
    """The learning rates of the trunk and of the top layer in each iteration of the run."""
    optimizer = optimizer_of(chosen)
    found = []
    for iteration in range(chosen.epochs * per_epoch):
        chosen.set_rate(optimizer, iteration // per_epoch, iteration)
        found.append([group["lr"] for group in optimizer.param_groups])
    return found


def each(epochs: int, trunk: float, top: float, per_epoch: int = 3) -> list[Any]:
    return [pytest.approx([trunk, top], rel=1e-12)] * (epochs * per_epoch)


def test_swavs_rates_with_1_percent() -> None:
    expected = each(12, 0.02, 5) + each(4, 0.004, 1) + each(4, 0.0008, 0.2)
    assert rates(settings("--protocol swav", 1)) == expected


@pytest.mark.parametrize("percent", [0.3, 0.01, 3])
def test_a_few_percent_take_the_rates_of_1(percent: float) -> None:
    assert rates(settings("--protocol swav", percent)) == rates(settings("--protocol swav", 1))
    assert note("", percent) == (
        "--lr 0.02 --lr_last_layer 5: as for 1 % of the labels, because --protocol swav has no "
        f"rates for {percent} %"
    )


@pytest.mark.parametrize("percent", [10, 100, 5])
def test_swavs_rates_with_10_percent_and_with_others(percent: float) -> None:
    expected = each(12, 0.01, 0.2) + each(4, 0.002, 0.04) + each(4, 0.0004, 0.008)
    assert rates(settings("--protocol swav", percent)) == expected


@pytest.mark.parametrize("percent", [1, 10, 100])
def test_vissls_rates(percent: float) -> None:
    expected = each(30, 0.05, 0.05) + each(40, 0.005, 0.005)
    assert rates(settings("--protocol vissl", percent)) == expected
    doubled = settings("--protocol vissl --batch_size 512", percent)
    assert rates(doubled)[0] == pytest.approx([0.1, 0.1])
    assert settings("--protocol vissl --batch_size 512 --lr 0.05").lr == 0.05


@pytest.mark.parametrize("percent", [1, 100])
def test_deeperclusters_rates(percent: float) -> None:
    expected = each(30, 0.1, 0.1) + each(30, 1e-2, 1e-2) + each(30, 1e-3, 1e-3)
    assert rates(settings("--protocol deepercluster", percent)) == expected + each(10, 1e-4, 1e-4)


@pytest.mark.parametrize(
    ("protocol", "decay", "nesterov", "sync_bn"),
    [
        ("swav", 0, False, "pytorch"),
        ("vissl", 0, True, "none"),
        ("deepercluster", 1e-4, False, "none"),
    ],
)
def test_the_other_values(protocol: str, decay: float, nesterov: bool, sync_bn: str) -> None:
    chosen = settings(f"--protocol {protocol}")
    for group in optimizer_of(chosen).param_groups:
        assert (group["momentum"], group["dampening"], group["nesterov"]) == (0.9, 0, nesterov)
        assert group["weight_decay"] == pytest.approx(decay, rel=1e-12)
    assert (chosen.batch_size, chosen.size, chosen.sync_bn) == (256, 224, sync_bn)
    assert chosen.recipe.view is random_crop


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--epochs 3", {"epochs": 3}),
        ("--lr 0.3 --lr_last_layer 4", {"lr": 0.3, "lr_last_layer": 4}),
        ("--steps 9 2", {"steps": (2, 9)}),
        ("--steps", {"steps": ()}),
        ("--gamma 0.5", {"gamma": 0.5}),
        ("--momentum 0.8 --wd -5", {"momentum": 0.8, "wd": -5}),
        ("--sync_bn none", {"sync_bn": "none"}),
        ("--sync_bn pytorch", {"sync_bn": "pytorch"}),
        ("--batch_size 64", {"batch_size": 64}),
    ],
)
def test_flags_win(protocol: str, flags: str, expected: dict[str, Any]) -> None:
    chosen = settings(f"--protocol {protocol} {flags}", percent=1)
    assert {name: getattr(chosen, name) for name in expected} == expected


def test_one_rate_is_that_of_the_top_layer_too_but_for_swav() -> None:
    assert settings("--protocol vissl --lr 0.3").lr_last_layer == 0.3
    assert settings("--protocol deepercluster --lr 0.3").lr_last_layer == 0.3
    assert settings("--protocol swav --lr 0.3", percent=1).lr_last_layer == 5


def test_rates_that_are_not_published_have_a_note() -> None:
    assert note("", percent=1) == note("", percent=10) == ""
    assert note("", percent=100 * 12811 / 1281167) == "", "SimCLR's list of 1 %"
    assert note("", percent=5) == (
        "--lr 0.01 --lr_last_layer 0.2: as for 10 % of the labels, because --protocol swav has no "
        "rates for 5 %"
    )
    assert note("--lr 0.5", percent=5).startswith("--lr_last_layer 0.2: as for 10 %")
    assert note("--lr 0.5 --lr_last_layer 1", percent=5) == ""
    assert note("--protocol vissl", percent=5) == note("--protocol deepercluster", percent=5) == ""


@pytest.mark.parametrize("sobel", [False, True])
def test_the_top_layer_is_a_group_and_the_sobel_filters_are_in_none(sobel: bool) -> None:
    model = tiny(sobel=sobel, out=3)
    trunk, top = settings().optimizer(Whole(model, 32, CPU)).param_groups
    names = {parameter: name for name, parameter in model.named_parameters()}
    assert [names[p] for p in top["params"]] == ["top_layer.weight", "top_layer.bias"]
    others = {name for name in names.values() if not name.startswith(("sobel", "top_layer"))}
    assert {names[p] for p in trunk["params"]} == others


def test_vissl_leaves_out_the_rest_of_a_division_into_batches_with_1_percent() -> None:
    chosen = settings("--protocol vissl --batch_size 8", percent=1.2)
    orders = {images: chosen.order(2, images) for images in (5, 8, 20, 24)}
    assert {images: len(order) for images, order in orders.items()} == {5: 5, 8: 8, 20: 16, 24: 24}
    assert all(len(np.unique(order)) == len(order) for order in orders.values())
    cases = [("swav", 1), ("deepercluster", 1), ("vissl", 10), ("vissl", 100), ("vissl", 0.3)]
    others = [settings(f"--protocol {name} --batch_size 8", percent) for name, percent in cases]
    assert [sorted(other.order(2, 20)) for other in others] == [list(range(20))] * 5


@pytest.mark.parametrize(("images", "kept"), [(16, 16), (17, 16), (19, 16), (20, 20), (23, 23)])
def test_a_synchronised_batch_has_an_image_for_each_of_four_processes(
    images: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.linear_run.world_size", lambda: 4)
    order = np.arange(images)
    plain = nn.Sequential(nn.BatchNorm2d(3))
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(nn.BatchNorm2d(3)))
    assert len(for_all(plain, order, 8)) == images
    assert for_all(synchronised, order, 8).tolist() == list(range(kept))


def pooled(model: ConvNet, x: torch.Tensor) -> torch.Tensor:
    return model.features(x).mean(dim=(2, 3))


def test_the_new_layer_is_linear_on_a_resnets_pooled_embedding() -> None:
    features = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU())
    model = ConvNet("resnet", features, 1, nn.Sequential(), 8, 4, sobel=False, ends=[1])
    new_top_layer(model, 3, seed=1)
    assert model.top_layer is not None
    weight, bias = model.top_layer.weight, model.top_layer.bias
    assert weight.shape == (3, 8)
    bound = 1 / math.sqrt(8)
    assert 0.7 * bound < weight.abs().max() <= bound, "PyTorch's initial weights"
    x = torch.randn(2, 3, 32, 32)
    scores = Whole(model, 32, CPU)({"network": x.flatten(1)})["network"]
    torch.testing.assert_close(scores, pooled(model, x) @ weight.T + bias)
