"""Freezing a network, and its conv layers in one pass."""

import pytest
import torch
from conftest import tiny

from models.frozen import frozen

X = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_a_frozen_network_needs_no_gradients_and_is_restored() -> None:
    model = tiny(sobel=True)
    wanted = {name: p.requires_grad for name, p in model.named_parameters()}
    model.classifier.eval()
    with frozen(model):
        assert not any(module.training for module in model.modules())
        assert not any(p.requires_grad for p in model.parameters())
    assert model.features.training
    assert not model.classifier.training
    assert {name: p.requires_grad for name, p in model.named_parameters()} == wanted


def test_a_change_is_noticed() -> None:
    model = tiny()
    with (
        pytest.raises(RuntimeError, match=r"has changed: features\.0\.bias$"),
        frozen(model),
        torch.no_grad(),
    ):
        model.get_parameter("features.0.bias")[3] += 1e-6
    with pytest.raises(RuntimeError, match=r"features\.1\.running_mean"), frozen(model):
        model.features.train()(X)


def test_several_layers_in_one_pass_equal_those_of_single_passes() -> None:
    model = tiny(sobel=True).eval()
    found = {layer: maps.clone() for layer, maps in model.each_conv_features(X, [2, 1])}
    assert list(found) == [1, 2]
    for layer, maps in found.items():
        assert torch.equal(maps, model.conv_features(X, layer))
        assert (maps >= 0).all()
    assert model.conv_layers == 2
    with pytest.raises(ValueError, match="tiny has conv layers 1 to 2, not 3"):
        dict(model.each_conv_features(X, [1, 3]))
