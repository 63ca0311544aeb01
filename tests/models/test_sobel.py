"""The Sobel filters, the margin of DeeperCluster's networks, and the merge with the first layer."""

from collections.abc import Callable

import pytest
import torch
from conftest import tiny
from networks import alexnet_features, vgg_like, with_statistics
from reference_numbers import SOBEL
from torch import nn
from torch.nn import functional as F

from models import MODELS, ConvNet
from models.sobel import sobel_filters, sobel_to_rgb
from system.errors import InputError


def sides(model: ConvNet) -> list[int]:
    x = torch.zeros(1, 3, 224, 224)
    return [maps.shape[2] for _, maps in model.each_conv_features(x, [1, 3, 5, 8, 11])]


def test_sobel_filters_with_a_margin_are_those_of_the_released_network() -> None:
    x, expected = map(torch.from_numpy, (SOBEL["sobel_in"], SOBEL["sobel_out"]))
    found = sobel_filters()(F.pad(x, [1] * 4))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_sobel_to_rgb_is_the_composition_of_both_layers_borders_included() -> None:
    torch.manual_seed(0)
    x, convolution = torch.randn(2, 3, 12, 15), nn.Conv2d(2, 5, 3, padding=1)
    grey, sobel = sobel_filters()
    derivatives = F.conv2d(F.pad(grey(x), [2] * 4), sobel.get_parameter("weight"))
    weight, bias = sobel_to_rgb(convolution.weight, convolution.bias)
    assert weight.shape == (5, 3, 5, 5)
    assert bias is convolution.bias
    found = F.conv2d(F.pad(x, [2] * 4), weight, bias, padding=1)
    torch.testing.assert_close(found, convolution(derivatives), rtol=0, atol=1e-5)


def test_the_kernel_of_one_weight_by_hand() -> None:
    """A single 1 of the horizontal channel, right of the middle: the derivative, one to the
    right; a third of it for each colour."""
    weight = torch.zeros(1, 2, 3, 3)
    weight[0, 0, 1, 2] = 1
    merged, bias = sobel_to_rgb(weight, None)
    expected = torch.zeros(5, 5)
    expected[1:4, 2:5] = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]) / 3
    assert bias is None
    torch.testing.assert_close(merged[0], expected.expand(3, 5, 5))


@torch.inference_mode()
@pytest.mark.parametrize("make", [vgg_like, alexnet_features])
def test_a_network_with_a_margin_computes_the_same_without_its_sobel_filters(
    make: Callable[[bool], ConvNet],
) -> None:
    model = with_statistics(make(True))
    model.margin = 1
    x = torch.randn(2, 3, 96, 96, dtype=torch.float64)
    expected = dict(model.each_conv_features(x, range(1, 6)))
    model.merge_sobel()
    assert model.sobel is None
    for layer, maps in model.each_conv_features(x, range(1, 6)):
        torch.testing.assert_close(maps, expected[layer])


@torch.inference_mode()
def test_without_a_margin_only_the_edges_differ() -> None:
    model = with_statistics(vgg_like(True))
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    before = model.conv_features(x, 1)
    model.merge_sobel()
    after = model.conv_features(x, 1)
    torch.testing.assert_close(after[..., 1:-1, 1:-1], before[..., 1:-1, 1:-1])
    assert not torch.allclose(after[..., 0, :], before[..., 0, :])


def test_a_network_without_sobel_filters_cannot_merge_them() -> None:
    with pytest.raises(InputError, match="--sobel2rgb: tiny has no Sobel filters here; leave it"):
        tiny().merge_sobel()


@torch.inference_mode()
@pytest.mark.parametrize("sobel", [True, False])
def test_a_margin_gives_the_released_networks_maps(sobel: bool) -> None:
    model = vgg_like(sobel).eval()
    assert sides(model) == [224, 112, 56, 28, 14]
    model.margin = 1
    assert sides(model) == [226, 113, 56, 28, 14]
    x = torch.randn(2, 3, 224, 224)
    assert model(x).shape == (2, 1000)
    padded = F.pad(x, [1] * 4)
    own = nn.Sequential(*(model.sobel or ()), *model.features)
    torch.testing.assert_close(model.features(model._edges(x)), own(padded))
    through = nn.Sequential(*model.modules_before_relu(3))(x).relu()
    torch.testing.assert_close(model.conv_features(x, 3), through)


def test_vgg16_here_has_the_layers_of_the_real_one() -> None:
    with torch.device("meta"):
        assert vgg_like().state_dict().keys() == MODELS["vgg16"]().state_dict().keys()
