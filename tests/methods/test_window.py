"""The signs of health of an epoch's last steps, against the definition."""

import numpy as np
import pytest
import torch
from torch import Tensor

from methods import window
from methods.window import STEPS, Window

NAMES = ("window_loss", "mean_cosine", "code_entropy")


def step(images: int) -> tuple[Tensor, Tensor, Tensor]:
    rows = torch.nn.functional.normalize(torch.randn(images, 5))
    return rows, torch.rand(images), torch.rand(images)


def signs_of(rows: Tensor, losses: Tensor, entropies: Tensor) -> list[float]:
    cosines = (rows @ rows.T)[~torch.eye(len(rows), dtype=torch.bool)]
    return [losses.mean().item(), cosines.mean().item(), entropies.mean().item()]


def test_signs_are_means_over_images_and_pairs_of_the_last_steps() -> None:
    torch.manual_seed(0)
    found, steps = Window(NAMES), [step(4) for _ in range(STEPS + 3)]
    assert found.means() == dict.fromkeys(NAMES)
    for number, each in enumerate(steps):
        found.add(*each)
        if number == 50:
            found.to_plain()
    expected = [signs_of(*each) for each in steps[-STEPS:]]
    np.testing.assert_allclose(found.to_plain(), expected, atol=1e-6)
    assert found.means() == pytest.approx(
        dict(zip(NAMES, np.mean(expected, axis=0), strict=True)), abs=1e-6
    )
    found.clear()
    assert found.to_plain() == []


def test_a_step_of_one_image_or_none_is_left_out() -> None:
    found = Window(NAMES)
    for images in (1, 2, 0):
        found.add(*step(images))
    assert len(found.to_plain()) == 1


def test_two_processes_have_the_signs_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    steps, one, other = [step(4) for _ in range(3)], Window(NAMES), Window(NAMES)
    for each in steps:
        one.add(*(values[:1] for values in each))
        other.add(*(values[1:] for values in each))
    of_other = torch.stack(list(other._sums))
    monkeypatch.setattr(window, "world_size", lambda: 2)
    monkeypatch.setattr(window, "gather_alike", lambda own: torch.cat([own, of_other]))
    np.testing.assert_allclose(one.to_plain(), [signs_of(*each) for each in steps], atol=1e-6)


def test_a_loaded_window_goes_on_with_the_same_bits() -> None:
    torch.manual_seed(0)
    steps = [step(3) for _ in range(6)]
    whole, saved, loaded = Window(NAMES), Window(NAMES), Window(NAMES)
    for each in steps:
        whole.add(*each)
    for each in steps[:4]:
        saved.add(*each)
    loaded.load(saved.to_plain())
    for each in steps[4:]:
        loaded.add(*each)
    assert loaded.to_plain() == whole.to_plain()
