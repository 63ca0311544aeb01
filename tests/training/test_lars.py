"""LARS and the learning rates against the released numbers."""

from typing import Any

import numpy as np
import pytest
import torch
from reference_numbers import SWAV
from torch import nn

from training.optimizers import LARS
from training.schedules import warmup_cosine

NAMES = [name.split("_p0_")[1] for name in SWAV.files if name.startswith("larc_wd1e-6_p0_")]


def released(kind: str, name: str) -> torch.Tensor:
    return torch.from_numpy(SWAV[f"larc_wd1e-6_{kind}_{name}"])


def test_three_steps_are_the_released_ones() -> None:
    parameters = {name: nn.Parameter(released("p0", name)) for name in NAMES}
    optimizer = LARS(parameters.values(), lr=0.0, momentum=0.9, weight_decay=1e-6)
    for step, lr in enumerate(SWAV["larc_lrs"], start=1):
        optimizer.param_groups[0]["lr"] = float(lr)
        for name, parameter in parameters.items():
            gradient = released(f"g{step}", name)
            parameter.grad = gradient if gradient.numel() else None
        optimizer.step()
        for name, parameter in parameters.items():
            expected = released(f"p{step}", name)
            torch.testing.assert_close(parameter.data, expected, rtol=1e-6, atol=1e-6)
    for name, parameter in parameters.items():
        momentum = optimizer.state[parameter]["momentum_buffer"]
        torch.testing.assert_close(momentum, released("momentum3", name), rtol=1e-6, atol=1e-6)


def test_a_tensor_of_zeros_takes_its_first_step_unscaled() -> None:
    bias = nn.Parameter(torch.zeros(3))
    optimizer = LARS([bias], lr=0.5, momentum=0.9, weight_decay=0.1)
    bias.grad = torch.tensor([1.0, 2.0, 3.0])
    optimizer.step()
    assert bias.tolist() == [-0.5, -1.0, -1.5]


def test_its_state_is_loaded_like_that_of_sgd() -> None:
    def trained(steps: int, state: dict[str, Any] | None = None) -> tuple[nn.Parameter, LARS]:
        weight = nn.Parameter(torch.ones(4))
        optimizer = LARS([weight], 0.1, 0.9, 1e-4)
        if state is not None:
            weight.data, saved = state["weight"], state["optimizer"]
            optimizer.load_state_dict(saved)
        for _ in range(steps):
            weight.grad = weight.detach() ** 2 - torch.arange(4)
            optimizer.step()
        return weight, optimizer

    whole, _ = trained(5)
    first, optimizer = trained(2)
    state = {"weight": first.detach().clone(), "optimizer": optimizer.state_dict()}
    assert torch.equal(trained(3, state)[0], whole)


def test_the_learning_rates_are_those_of_400_epochs() -> None:
    per_epoch = int(SWAV["lr400_iters_per_epoch"])
    for position, expected in zip(SWAV["lr400_positions"], SWAV["lr400_values"], strict=True):
        found = warmup_cosine(int(position), per_epoch, 400, 4.8, 0.0048, 10, 0.3)
        assert found == pytest.approx(expected, rel=1e-12)


def test_without_warm_up_it_starts_at_the_base() -> None:
    rates = [warmup_cosine(i, 5, 2, 1.0, 0.0, 0, 0.5) for i in range(10)]
    np.testing.assert_allclose(rates, (1 + np.cos(np.pi * np.arange(10) / 10)) / 2)


def test_one_iteration_of_warm_up_is_the_start() -> None:
    assert [warmup_cosine(i, 1, 2, 1.0, 0.0, 1, 0.5) for i in range(2)] == [0.5, 1.0]
