"""The linear probes of DeeperCluster's release, against its published settings and PyTorch."""

import pytest
import torch
from networks import vgg_like

import eval_linear
from data.transforms import random_crop
from evaluation import linear as probe
from evaluation.linear_run import Settings
from models.layers import AVGPOOL
from system.errors import InputError

IMAGENET = [0.005, 0.01, 0.03, 0.03, 0.03, 0.03, 0.02, 0.03, 0.03, 0.03, 0.02, 0.02, 0.02]
PLACES = [0.003, 0.005, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.03, 0.01, 0.01, 0.02]


def settings(*flags: str) -> Settings:
    args = eval_linear.parse_args(["--data", "d", "--model", "m", *flags])
    return Settings(**{field: getattr(args, field) for field in Settings.__annotations__})


@pytest.mark.parametrize(
    ("protocol", "published"),
    [("deepercluster", IMAGENET), ("deepercluster-places205", PLACES)],
)
def test_the_settings_are_the_published_ones(protocol: str, published: list[float]) -> None:
    chosen = settings("--protocol", protocol)
    assert [chosen.rate_of(layer) for layer in range(1, 14)] == published
    assert (chosen.epochs, chosen.batch_size, chosen.wd, chosen.momentum) == (100, 256, -5, 0.9)
    assert (chosen.recipe.normalised, chosen.recipe.nesterov) == (False, False)
    assert chosen.recipe.view is random_crop
    assert settings("--protocol", protocol, "--lr", "0.5").rate_of(7) == 0.5


def test_the_settings_for_voc_are_the_published_ones() -> None:
    args = eval_linear.parse_args(
        ["--data", "d", "--model", "m", "--protocol", "deepercluster-voc"]
    )
    assert (args.conv, args.tencrops, args.size) == (("13",), False, 224)
    chosen = settings("--protocol", "deepercluster-voc")
    assert (chosen.epochs, chosen.batch_size, chosen.wd, chosen.momentum) == (60, 128, -5, 0.9)
    assert (chosen.rate_of(13), chosen.steps, chosen.cosine) == (0.02, None, False)
    assert (chosen.recipe.normalised, chosen.recipe.nesterov) == (False, False)
    assert chosen.recipe.view is random_crop
    assert chosen.recipe.voc
    optimizer = chosen.optimizer(probe.Heads(vgg_like().eval(), [13], 20, 32, seed=0))
    for t in (0, 1, 2400):
        chosen.set_rate(optimizer, epoch=t // 40, iteration=t)
        (group,) = optimizer.param_groups
        assert group["lr"] == pytest.approx(0.02 / (1 + 0.02 * 1e-5 * t) ** 0.5, rel=1e-12)
    assert settings("--protocol", "deepercluster-voc", "--batch_size", "256").batch_size == 256


def test_each_layer_has_its_own_rate_which_falls_with_every_iteration() -> None:
    chosen = settings("--protocol", "deepercluster")
    model = vgg_like().eval()
    chosen.check_layers(model, range(1, 14))
    heads = probe.Heads(model, [1, 2, 7], 3, 32, seed=0)
    optimizer = chosen.optimizer(heads)
    groups = optimizer.param_groups
    for t in (0, 1, 500_000):
        chosen.set_rate(optimizer, epoch=t // 5000, iteration=t)
        expected = [lr / (1 + lr * 1e-5 * t) ** 0.5 for lr in (0.005, 0.01, 0.02)]
        assert [group["lr"] for group in groups] == pytest.approx(expected, rel=1e-12)
    state = heads.state_dict()
    for layer, group in zip((1, 2, 7), groups, strict=True):
        weight, bias = group["params"]
        assert weight.data_ptr() == state[f"linear.{layer}.weight"].data_ptr()
        assert bias.data_ptr() == state[f"linear.{layer}.bias"].data_ptr()
        assert (group["weight_decay"], group["momentum"]) == (pytest.approx(1e-5), 0.9)


def test_a_resumed_optimiser_keeps_the_rates() -> None:
    chosen = settings("--protocol", "deepercluster")
    heads = probe.Heads(vgg_like().eval(), [1, 2], 3, 32, seed=0)
    first, second = chosen.optimizer(heads), chosen.optimizer(heads)
    chosen.set_rate(first, 3, 1000)
    second.load_state_dict(first.state_dict())
    for optimizer in (first, second):
        chosen.set_rate(optimizer, 4, 2000)
    assert [g["lr"] for g in second.param_groups] == [g["lr"] for g in first.param_groups]
    assert len({g["lr"] for g in second.param_groups}) == 2


def test_layers_without_a_rate_are_an_error() -> None:
    model = vgg_like()
    with pytest.raises(InputError, match=r"of vgg16; give --lr for avgpool$"):
        settings("--protocol", "deepercluster").check_layers(model, [1, AVGPOOL])
    settings("--protocol", "deepercluster", "--lr", "1").check_layers(model, [1, AVGPOOL])
    settings("--protocol", "paper").check_layers(model, [1, AVGPOOL])


def test_one_step_is_torchs_sgd_with_a_rate_for_each_layer() -> None:
    chosen = settings("--protocol", "deepercluster")
    heads = probe.Heads(vgg_like().eval(), [1, 7], 3, 32, seed=0)
    optimizer = chosen.optimizer(heads)
    chosen.set_rate(optimizer, 0, 0)
    before = {name: weight.detach().clone() for name, weight in heads.named_parameters()}
    for parameter in heads.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, weight in heads.named_parameters():
        lr = 0.005 if name.startswith("linear.1.") else 0.02
        expected = before[name] - lr * (1 + 1e-5 * before[name])
        torch.testing.assert_close(weight.detach(), expected)
