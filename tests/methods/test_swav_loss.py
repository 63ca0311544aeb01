"""The swapped-prediction loss, and training a toy network with it, against the released numbers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference_numbers import SWAV
from torch import nn

from methods.swav import swap, swapped_prediction_loss
from training.optimizers import LARS

SCORES = torch.from_numpy(SWAV["loss_scores"])  # 8 crops of 8 samples


@pytest.mark.parametrize(("crops", "value"), [(8, "loss_value_2_6"), (2, "loss_value_2")])
def test_it_gives_the_released_losses(crops: int, value: str) -> None:
    loss = swapped_prediction_loss(SCORES[: 8 * crops], crops, [0, 1], 0.1, 0.05, 3)
    assert loss.item() == pytest.approx(float(SWAV[value]), abs=1e-5)


def test_the_loss_of_an_image_is_that_of_its_crops() -> None:
    losses, codes = swap(SCORES.unflatten(0, (8, 8)), [0, 1], 0.1, 0.05, 3)
    assert losses.shape == (8,)
    assert codes.shape == (2, 8, 12)
    whole = swapped_prediction_loss(SCORES, 8, [0, 1], 0.1, 0.05, 3)
    torch.testing.assert_close(losses.mean(), whole)


def test_the_queue_joins_the_batch_in_the_codes() -> None:
    """The first half of a batch, with the second half as its queue, gives the codes, and so the
    losses, that it has in the whole batch."""
    parts = SCORES[:16].unflatten(0, (2, 8))
    whole, _ = swap(parts, [0, 1], 0.1, 0.05, 3)
    half, _ = swap(parts[:, :4], [0, 1], 0.1, 0.05, 3, queued=parts[:, 4:])
    torch.testing.assert_close(half, whole[:4])


def test_equal_scores_cost_ln_k() -> None:
    loss = swapped_prediction_loss(torch.zeros(16, 12), 2, [0, 1], 0.1, 0.05, 3)
    assert loss.item() == pytest.approx(np.log(12), rel=1e-6)


def test_no_gradient_goes_through_the_codes() -> None:
    scores = SCORES[:16].clone().requires_grad_()
    swapped_prediction_loss(scores, 2, [0], 0.1, 0.05, 3).backward()
    assert scores.grad is not None
    assert scores.grad[:8].abs().max() == 0 < scores.grad[8:].abs().max()


def test_twelve_steps_are_the_released_ones() -> None:
    weight, bias, prototypes = (
        nn.Parameter(torch.from_numpy(SWAV[f"step_{name}0"])) for name in ("w", "b", "protos")
    )
    optimizer = LARS([weight, bias, prototypes], 0.0, 0.9, 1e-6)
    losses = []
    for step, (batch, lr) in enumerate(zip(SWAV["step_batches"], SWAV["swav_lrs"], strict=True)):
        optimizer.param_groups[0]["lr"] = float(lr)
        prototypes.data = F.normalize(prototypes.data)
        rows = torch.from_numpy(batch).flatten(0, 1)
        scores = F.normalize(rows @ weight.T + bias) @ prototypes.T
        loss = swapped_prediction_loss(scores, 8, [0, 1], 0.1, 0.05, 3)
        optimizer.zero_grad()
        loss.backward()
        if step < 3:
            prototypes.grad = None
        optimizer.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, SWAV["swav_noqueue_losses"], atol=1e-4)
    for name, parameter in (("w", weight), ("b", bias), ("protos", prototypes)):
        found, expected = parameter.detach().numpy(), SWAV[f"swav_noqueue_{name}"]
        np.testing.assert_allclose(found, expected, atol=1e-4)
