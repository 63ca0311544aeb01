"""The two-level loss and its heads against the released program's numbers, and plain products."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference_numbers import DEEPER
from torch import Tensor, nn

from methods.deepercluster import two_level_losses
from methods.two_level import TwoLevelHeads, two_level_scores
from methods.two_level_settings import cluster_counts

CLASSES, IMAGES = 4, 6  # images of each super-class, which the release has on a process of its own
ORDER = torch.from_numpy(np.random.default_rng(0).permutation(CLASSES * IMAGES))


Weights = tuple[Tensor, Tensor, Tensor, Tensor]


def leaf(name: str) -> Tensor:
    return torch.from_numpy(DEEPER[f"loss_{name}"]).requires_grad_()


def released() -> tuple[Tensor, Weights, Tensor, Tensor]:
    """Features `(24, 5)`, the heads, and both targets `(24,)`, in one batch of mixed order."""
    features = torch.from_numpy(DEEPER["loss_f"]).flatten(0, 1)[ORDER].requires_grad_()
    heads = leaf("Wv"), leaf("bv"), leaf("Ws"), leaf("bs")
    super_target = torch.arange(CLASSES).repeat_interleave(IMAGES)[ORDER]
    return features, heads, super_target, torch.from_numpy(DEEPER["loss_target"]).flatten()[ORDER]


def test_it_gives_the_released_losses() -> None:
    features, heads, super_target, sub_target = released()
    losses = two_level_losses(features, *heads, super_target, sub_target)
    assert [each.shape for each in losses] == [(24,)] * 2
    for name, found in zip(("loss_super", "loss_sub"), losses, strict=True):
        means = [found[super_target == number].mean().item() for number in range(CLASSES)]
        np.testing.assert_allclose(means, DEEPER[name], rtol=0, atol=1e-6)
    flat = (losses[0] + losses[1]).mean().item()
    assert flat == pytest.approx(float(DEEPER["flat_loss"]), abs=1e-6)


def test_it_gives_the_released_gradients() -> None:
    """A sub-head's is S times that of the mean over all images: the mean over its own."""
    features, heads, super_target, sub_target = released()
    losses = two_level_losses(features, *heads, super_target, sub_target)
    (losses[0] + losses[1]).mean().backward()
    gradients = [(each.grad if each.grad is not None else each) for each in (features, *heads)]
    own = gradients[0].new_empty(CLASSES * IMAGES, 5)
    own[ORDER] = gradients[0] * CLASSES
    expected = DEEPER["loss_grad_f_local"].reshape(CLASSES * IMAGES, 5)
    np.testing.assert_allclose(own.numpy(), expected, rtol=0, atol=1e-6)
    names = ("Wv_mean", "bv_mean", "Ws", "bs")
    for gradient, name, factor in zip(gradients[1:], names, (1, 1, CLASSES, CLASSES), strict=True):
        expected = DEEPER[f"loss_grad_{name}"]
        np.testing.assert_allclose(gradient.numpy() * factor, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("classes", [[2, 0, 2, 1, 1], [1], []])
def test_each_row_is_scored_by_the_head_of_its_super_class(classes: list[int]) -> None:
    """Also where super-classes have no row."""
    torch.manual_seed(0)
    features, target = torch.randn(len(classes), 6), torch.tensor(classes, dtype=torch.int64)
    weights = torch.randn(4, 6), torch.randn(4), torch.randn(4, 3, 6), torch.randn(4, 3)
    found_super, found_sub = two_level_scores(features, *weights, target)
    rectified = features.clamp(min=0)
    torch.testing.assert_close(found_super, rectified @ weights[0].T + weights[1])
    every = torch.einsum("bd,skd->bsk", rectified, weights[2]) + weights[3]
    torch.testing.assert_close(found_sub, every[torch.arange(len(classes)), target])


def test_a_row_is_multiplied_with_its_own_head_only(monkeypatch: pytest.MonkeyPatch) -> None:
    products = []
    linear = F.linear

    def counted(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        products.append(len(rows) * len(weight))
        return linear(rows, weight, bias)

    monkeypatch.setattr(F, "linear", counted)
    weights = torch.randn(8, 6), torch.randn(8), torch.randn(8, 100, 6), torch.randn(8, 100)
    two_level_scores(torch.randn(32, 6), *weights, torch.arange(8).repeat(4))
    assert sum(products) == 32 * 8 + 32 * 100


def test_equal_scores_cost_ln_s_and_ln_k() -> None:
    zeros = torch.zeros(4, 6), torch.zeros(4), torch.zeros(4, 7, 6), torch.zeros(4, 7)
    target = torch.tensor([0, 3, 1])
    losses = two_level_losses(torch.randn(3, 6), *zeros, target, target)
    for found, count in zip(losses, (4, 7), strict=True):
        torch.testing.assert_close(found, torch.full((3,), math.log(count)))


def test_heads_start_as_pytorchs_linear_layers() -> None:
    heads = TwoLevelHeads(64, 4, 500)
    heads.reset(seed=1, epoch=0, with_super=True)
    torch.manual_seed(0)
    layer = nn.Linear(64, 500)
    for ours, theirs in ((heads.sub.weight[2], layer.weight), (heads.sub.bias[1], layer.bias)):
        assert float(ours.abs().max()) <= 1 / 8
        assert float(ours.std()) == pytest.approx(float(theirs.std()), rel=0.1)
        assert float(ours.mean()) == pytest.approx(0, abs=0.02)
    assert 0.1 < float(heads.super.weight.abs().max()) <= 1 / 8
    assert not torch.equal(heads.sub.weight[0], heads.sub.weight[1])


def test_new_heads_are_a_function_of_the_seed_and_the_epoch() -> None:
    def drawn(seed: int, epoch: int) -> list[Tensor]:
        heads = TwoLevelHeads(8, 4, 3)
        heads.reset(seed, epoch, with_super=True)
        return [parameter.detach() for parameter in heads.parameters()]

    same, later, other = drawn(1, 2), drawn(1, 3), drawn(2, 2)
    for number, one in enumerate(drawn(1, 2)):
        assert torch.equal(one, same[number])
        assert not torch.equal(one, later[number])
        assert not torch.equal(one, other[number])


def test_the_super_head_can_stay() -> None:
    heads = TwoLevelHeads(8, 4, 3)
    heads.reset(1, 0, with_super=True)
    before = {name: weight.clone() for name, weight in heads.state_dict().items()}
    heads.reset(1, 3, with_super=False)
    changed = {n for n, weight in heads.state_dict().items() if not torch.equal(weight, before[n])}
    assert changed == {"sub.weight", "sub.bias"}


def test_the_numbers_of_classes_are_the_released_ones() -> None:
    for run in DEEPER["run_arithmetic"].tolist():
        super_classes, rotnet, k, m, each = run[3:8]
        assert cluster_counts(super_classes, bool(rotnet), k) == (m, each)
