"""The heads of SwAV and DeepCluster-v2, against a forward pass written by hand in float64."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models import untrained
from models.heads import Heads, MultiCropNet, heads_for
from system.errors import InputError

Arrays = dict[str, np.ndarray]


def by_hand(features: np.ndarray, w: Arrays, eps: float = 1e-5) -> tuple[np.ndarray, np.ndarray]:
    """Linear, batch norm in training mode, ReLU, linear, unit length; scores of one set."""
    x = features @ w["projection_head.0.weight"].T + w["projection_head.0.bias"]
    x = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + eps)
    x = np.maximum(x * w["projection_head.1.weight"] + w["projection_head.1.bias"], 0)
    x = x @ w["projection_head.3.weight"].T + w["projection_head.3.bias"]
    embedding = x / np.linalg.norm(x, axis=1, keepdims=True)
    return embedding, embedding @ w["prototypes.weight"].T


def arrays(heads: Heads) -> Arrays:
    return {name: tensor.double().numpy() for name, tensor in heads.state_dict().items()}


def some_heads(**sizes: Any) -> Heads:
    torch.manual_seed(0)
    usual: dict[str, Any] = {"features": 12, "feat_dim": 5, "hidden": 8, "prototypes": [7]}
    return Heads(**usual | sizes)


@torch.no_grad()
def test_heads_compute_linear_batch_norm_relu_linear_unit_length_and_scores() -> None:
    heads = some_heads()
    features = torch.randn(30, 12)
    embedding, scores = heads(features)
    expected, expected_scores = by_hand(features.double().numpy(), arrays(heads))
    np.testing.assert_allclose(embedding, expected, atol=1e-5)
    (found,) = scores
    np.testing.assert_allclose(found, expected_scores, atol=1e-5)


@torch.no_grad()
def test_a_single_linear_layer_and_a_head_without_batch_norm() -> None:
    features = torch.randn(30, 12)
    for sizes in ({"hidden": 0}, {"batch_norm": False}):
        heads = some_heads(**sizes)
        w = {name: torch.from_numpy(array) for name, array in arrays(heads).items()}
        x = features.double()
        if sizes == {"hidden": 0}:
            x = x @ w["projection_head.weight"].T + w["projection_head.bias"]
        else:
            x = (x @ w["projection_head.0.weight"].T + w["projection_head.0.bias"]).clamp(min=0)
            x = x @ w["projection_head.2.weight"].T + w["projection_head.2.bias"]
        expected = x / x.square().sum(dim=1, keepdim=True).sqrt()
        torch.testing.assert_close(heads(features)[0], expected.float(), atol=1e-5, rtol=0)


@torch.no_grad()
def test_each_set_of_prototypes_scores_the_same_embedding() -> None:
    heads = some_heads(prototypes=[7, 3, 7])
    embedding, scores = heads(torch.randn(30, 12))
    assert [len(layer.weight) for layer in heads.prototype_sets()] == [7, 3, 7]
    for i, found in enumerate(scores):
        weight = heads.state_dict()[f"prototypes.prototypes{i}.weight"]
        torch.testing.assert_close(found, embedding @ weight.T)


@torch.no_grad()
def test_unit_length_and_scores_are_computed_in_float32_under_autocast() -> None:
    heads = some_heads()
    with torch.autocast("cpu", torch.bfloat16):
        embedding, scores = heads(torch.randn(30, 12))
    assert embedding.dtype == scores[0].dtype == torch.float32
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(30), atol=1e-6, rtol=0)
    torch.testing.assert_close(scores[0], embedding @ heads.prototypes.weight.T)


NAMES = {  # as in the released files
    (2048, True, 1): ["projection_head.0.weight", "projection_head.0.bias",
        "projection_head.1.weight", "projection_head.1.bias", "projection_head.1.running_mean",
        "projection_head.1.running_var", "projection_head.1.num_batches_tracked",
        "projection_head.3.weight", "projection_head.3.bias", "prototypes.weight"],
    (10240, False, 1): ["projection_head.0.weight", "projection_head.0.bias",
        "projection_head.2.weight", "projection_head.2.bias", "prototypes.weight"],
    (0, True, 3): ["projection_head.weight", "projection_head.bias",
        "prototypes.prototypes0.weight", "prototypes.prototypes1.weight",
        "prototypes.prototypes2.weight"],
}  # fmt: skip


@pytest.mark.parametrize(("hidden", "batch_norm", "sets"), list(NAMES))
def test_names_are_those_of_the_released_files(hidden: int, batch_norm: bool, sets: int) -> None:
    with torch.device("meta"):
        heads = Heads(2048, 128, hidden, [3000] * sets, batch_norm)
    assert list(heads.state_dict()) == NAMES[hidden, batch_norm, sets]


def test_linear_layers_start_uniform_within_one_over_the_root_of_their_inputs() -> None:
    heads = some_heads(features=400, hidden=900, feat_dim=100, prototypes=[500])
    for layer in (m for m in heads.modules() if isinstance(m, nn.Linear)):
        bound = 1 / math.sqrt(layer.in_features)
        assert layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)


class Recorder(nn.Module):
    """Stands in front of a module and notes the shapes of its inputs."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.shapes: list[torch.Size] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(x.shape)
        return self.module(x)


@torch.no_grad()
@pytest.mark.parametrize(("arch", "sides"), [("resnet18_small", (32, 24)), ("alexnet", (72, 64))])
def test_the_network_sees_each_resolution_and_the_head_all_crops(
    arch: str, sides: tuple[int, int]
) -> None:
    network = untrained(arch, sobel=False, out=2, seed=0)
    network.top_layer = None
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    net = MultiCropNet(network, Heads(network.embedding_dim, 5, 8, [7]))
    large, small = (torch.randn(n, 3, s, s) for n, s in zip((6, 9), sides, strict=True))
    features = torch.cat([network(large), network(small)])
    expected, _ = by_hand(features.double().numpy(), arrays(net.heads))

    recorder = Recorder(network)
    net.network = recorder  # type: ignore[assignment]
    embedding, (scores,) = net([large, small])

    assert recorder.shapes == [large.shape, small.shape]
    np.testing.assert_allclose(embedding, expected, atol=1e-4)
    assert scores.shape == (15, 7)


@torch.no_grad()
@pytest.mark.parametrize("sizes", [
    {}, {"hidden": 0}, {"batch_norm": False}, {"prototypes": [7, 3, 7]}, {"prototypes": []},
])  # fmt: skip
def test_heads_are_rebuilt_from_their_weights_alone(sizes: dict[str, Any]) -> None:
    heads = some_heads(**sizes).eval()
    again = heads_for({name: tensor.half() for name, tensor in heads.state_dict().items()}).eval()
    features = torch.randn(30, 12)
    (embedding, scores), (expected, expected_scores) = again(features), heads(features)
    torch.testing.assert_close(
        [embedding, *scores], [expected, *expected_scores], atol=0.01, rtol=0
    )
    assert again.state_dict().keys() == heads.state_dict().keys()
    assert embedding.dtype == torch.float32


def test_a_list_of_one_set_of_prototypes_is_a_single_set() -> None:
    weights = some_heads().state_dict()
    weights["prototypes.prototypes0.weight"] = weights.pop("prototypes.weight")
    assert "prototypes.weight" in heads_for(weights).state_dict()


def test_weights_of_other_heads_are_named() -> None:
    weights = some_heads().state_dict()
    for wrong, named in [
        ({}, "no projection head"),
        ({"projection_head.0.weight": torch.ones(3)}, "no projection head"),
        ({**weights, "prototypes.bias": torch.ones(7)}, "prototypes.bias"),
        ({**weights, "prototypes.weight": torch.ones(7, 6)}, "prototypes.weight"),
        ({n: w for n, w in weights.items() if n != "projection_head.1.bias"}, "head.1.bias"),
    ]:
        with pytest.raises(InputError, match=named):
            heads_for(wrong)
