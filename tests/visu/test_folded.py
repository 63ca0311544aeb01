"""A folded network gives the same results and gradients as the network."""

import pytest
import torch
from conftest import tiny
from networks import alexnet_features, with_statistics
from torch import nn

from visu.folded import BlockConvolution, folded


@pytest.mark.parametrize("sobel", [True, False])
@pytest.mark.parametrize(("layer", "side"), [(1, 67), (1, 98), (2, 64), (5, 65)])
def test_a_folded_network_has_the_networks_activations_and_gradients(
    sobel: bool, layer: int, side: int
) -> None:
    model = with_statistics(alexnet_features(sobel))
    x = torch.randn(2, 3, side, side + 3, dtype=torch.float64, requires_grad=True)
    ours = folded(model, layer)(x)
    after = model.conv_features(x, layer)
    torch.testing.assert_close(ours.relu(), after)
    assert ours.min() < 0
    weights = torch.randn_like(after)
    (expected,) = torch.autograd.grad(after, x, weights)
    (gradient,) = torch.autograd.grad(ours.relu(), x, weights)
    torch.testing.assert_close(gradient, expected)


def test_folding_does_not_change_the_model() -> None:
    model = tiny(sobel=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    network = folded(model, 2).bfloat16()
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(11, 4, 2), (5, 2, 2), (4, 2, 0), (2, 3, 1)]
)
def test_a_convolution_over_blocks_has_the_same_results(
    kernel: int, stride: int, padding: int
) -> None:
    convolution = nn.Conv2d(2, 5, kernel, stride, padding).double()
    x = torch.randn(2, 2, 25, 30, dtype=torch.float64)
    torch.testing.assert_close(BlockConvolution(convolution)(x), convolution(x))
