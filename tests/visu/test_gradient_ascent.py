"""Pictures of filters by gradient ascent."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny
from networks import network
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from checkpoints.checkpoint import save_checkpoint
from data.transforms import to_input
from models import MODELS
from models.convnet import ConvNet
from system.device import Compute, select_compute
from system.errors import InputError
from system.normalisation import IMAGENET_MEAN, IMAGENET_STD
from visu import gradient_ascent
from visu.ascent import (
    Ascent,
    as_picture,
    ascend,
    blur,
    gradient_of_objective,
    noise_of,
    slopes_of_objective,
)
from visu.folded import folded

CPU = torch.device("cpu")
SIDE = 40


def fp32() -> Compute:
    return select_compute("cpu", "fp32")


def reference_gradient(model: ConvNet, x: Tensor, number: int, wd: float) -> tuple[Tensor, float]:
    """The gradient of the objective of one picture `(3, S, S) float64`, by autograd, and the mean
    activation of its filter of conv2."""
    exact = copy.deepcopy(model).double().eval()
    x = x.clone().requires_grad_()
    assert exact.sobel is not None
    before = exact.features[:6](exact.sobel(x[None]))  # up to batch norm
    means = torch.clamp(before, min=0).mean((2, 3))
    own = float(means[0, number].detach())
    if own == 0:
        pieces = list(means[0])
        pieces[number] = before[0, number].mean()
        means = torch.stack(pieces)[None]
    objective = -F.cross_entropy(means, torch.tensor([number])) - wd * (x**2).sum()
    objective.backward()
    assert x.grad is not None
    return x.grad, own


def start(numbers: list[int]) -> Tensor:
    """The start of the ascent of conv2, as inputs of the network."""
    return to_input(torch.stack([noise_of(2, number, SIDE, 0) for number in numbers]), CPU)


def test_the_slopes_are_the_gradient_of_the_cross_entropy() -> None:
    means = (3 * torch.rand(4, 9)).double().requires_grad_()
    filters = torch.tensor([0, 8, 3, 3])
    (expected,) = torch.autograd.grad(-F.cross_entropy(means, filters, reduction="sum"), means)
    torch.testing.assert_close(slopes_of_objective(means.detach(), filters), expected)


def test_a_filter_far_above_the_others_still_has_a_slope() -> None:
    means = torch.tensor([[60.0, 0.0, 1.0]])
    expected = np.exp(-60) + np.exp(-59)
    assert float(slopes_of_objective(means, torch.tensor([0]))[0, 0]) == pytest.approx(expected)


@pytest.mark.parametrize("silent", [(), (3, 7), tuple(range(16))])
def test_the_gradient_is_that_of_the_objective(silent: tuple[int, ...]) -> None:
    model, numbers, wd = network(silent), [2, 3, 7], 1e-4
    x = start(numbers)
    gradient, mean = gradient_of_objective(folded(model, 2), x, torch.tensor(numbers), wd)
    for row, number in enumerate(numbers):
        expected, own = reference_gradient(model, x[row].double(), number, wd)
        torch.testing.assert_close(gradient[row].double(), expected, rtol=1e-3, atol=1e-7)
        assert float(mean[row]) == pytest.approx(own, rel=1e-4)
        assert (own == 0) == (number in silent)


def test_pictures_match_the_method_computed_step_by_step() -> None:
    """The reference is float64, one picture at a time, with the blur from SciPy."""
    model, numbers = network(silent=(3,)), [0, 3, 15]
    ascent = Ascent(lr=2.0, wd=1e-3, sig=0.6, step=3, niter=8, idim=SIDE)
    done = ascend(model, 2, numbers, ascent, fp32())
    for row, number in enumerate(numbers):
        x = start([number])[0].double()
        for iteration in range(1, 9):
            gradient, _ = reference_gradient(model, x, number, ascent.wd)
            x = x + ascent.lr * gradient / gradient.norm()
            if iteration in (3, 6):
                x = torch.from_numpy(gaussian_filter(x.numpy(), (0, 0.6, 0.6)))
        colours = x.numpy() * np.reshape(IMAGENET_STD, (3, 1, 1))
        colours += np.reshape(IMAGENET_MEAN, (3, 1, 1))
        shown = np.clip((colours - colours.mean()) / colours.std() * 0.1 + 0.5, 0, 1) * 255
        assert np.abs(shown - done.pictures[row].numpy()).max() < 0.6
        _, end = reference_gradient(model, x, number, ascent.wd)
        assert float(done.end[row]) == pytest.approx(end, rel=1e-3)
    assert (done.end > done.start)[[0, 2]].all()


@pytest.mark.parametrize(("sig", "side"), [(0.3, 20), (1.0, 21), (2.7, 16), (5.0, 6), (0.0, 9)])
def test_the_blur_matches_scipys(sig: float, side: int) -> None:
    x = torch.randn(2, 3, side, side)
    expected = gaussian_filter(x.double().numpy(), (0, 0, sig, sig))
    np.testing.assert_allclose(blur(x, sig).numpy(), expected, atol=1e-5)


def test_pictures_start_from_grey_noise() -> None:
    noise = noise_of(1, 5, 224, seed=0)
    assert float(noise.double().mean()) == pytest.approx(128, abs=0.3)
    assert float(noise.double().std()) == pytest.approx(20, abs=0.3)
    for other in (noise_of(2, 5, 224, 0), noise_of(1, 6, 224, 0), noise_of(1, 5, 224, 1)):
        assert not torch.equal(noise, other)


def test_a_picture_has_mean_half_and_standard_deviation_a_tenth() -> None:
    x = torch.randn(2, 3, 50, 50) * torch.tensor([0.1, 3.0]).view(2, 1, 1, 1) + 1
    shown = as_picture(x).double() / 255
    assert shown.mean((1, 2, 3)).tolist() == pytest.approx([0.5, 0.5], abs=0.002)
    assert shown.std((1, 2, 3)).tolist() == pytest.approx([0.1, 0.1], abs=0.002)
    assert len(as_picture(torch.ones(1, 3, 4, 4)).unique()) <= 3, "of one colour, and not NaN"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_picture_does_not_depend_on_the_others_in_its_batch(precision: str) -> None:
    """The last bit may differ for one small picture alone: torch may use another kernel for it."""
    model, compute, filters = network(), select_compute("cpu", precision), [0, 1, 2, 3, 9]
    ascent = Ascent(niter=10, idim=SIDE)
    together = ascend(model, 2, filters, ascent, compute)
    parts = [ascend(model, 2, some, ascent, compute) for some in (filters[:2], filters[2:])]
    assert torch.equal(torch.cat([part.pictures for part in parts]), together.pictures)
    assert torch.equal(torch.cat([part.end for part in parts]), together.end)
    alone = ascend(model, 2, [3], ascent, compute)
    assert (alone.pictures[0].int() - together.pictures[3].int()).abs().max() <= 1
    torch.testing.assert_close(alone.end[0], together.end[3], rtol=1e-3, atol=1e-5)


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of the tiny network, whose conv1 has 8 filters and conv2 16."""
    monkeypatch.setitem(MODELS, "tiny", tiny)
    path = tmp_path / "checkpoint.pth.tar"
    save_checkpoint(path, {"arch": "tiny", "state_dict": network(silent=(3,)).state_dict()})
    return path


def run(saved: Path, *flags: str) -> Path:
    """Run the script; returns its folder."""
    exp = saved.parent / "exp"
    base = f"--model {saved} --exp {exp} --idim {SIDE} --niter 10 --device cpu --precision fp32"
    gradient_ascent.main(gradient_ascent.parse_args([*base.split(), *flags]))
    return exp


def test_every_filter_of_a_layer_has_its_file(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exp = run(saved, "--conv", "1", "2", "--batch", "3", "--wd", "0")
    for layer, filters in ((1, 8), (2, 16)):
        names = {f"layer{layer}-channel{number}.jpeg" for number in range(filters)}
        files = set(exp.joinpath(f"conv{layer}").iterdir())
        assert {file.name for file in files} == names | {"filters.jpeg"}
        for file in files - {exp / f"conv{layer}" / "filters.jpeg"}:
            with Image.open(file) as picture:
                assert (picture.format, picture.size) == ("JPEG", (SIDE, SIDE))
    with Image.open(exp / "conv2" / "filters.jpeg") as sheet:
        assert sheet.width == 4 + 10 * 100, "ten in a row"
        assert 2 * 100 < sheet.height < 3 * 100
    lines = capsys.readouterr().out.splitlines()
    for layer, number in ((1, 0), (1, 7), (2, 15)):
        (line,) = (line for line in lines if line.startswith(f"conv{layer} filter {number}:"))
        assert line.endswith(", rose")
    assert "conv2 filter 3: activation 0 → 0, silent all the way" in lines


def test_the_files_contain_the_pictures(saved: Path) -> None:
    exp = run(saved, "--conv", "2", "--filters", "4-6", "15", "--batch", "2")
    done = ascend(network(silent=(3,)), 2, [4, 5, 6, 15], Ascent(niter=10, idim=SIDE), fp32())
    for number, expected in zip((4, 5, 6, 15), done.pictures, strict=True):
        with Image.open(exp / "conv2" / f"layer2-channel{number}.jpeg") as picture:
            pixels = np.asarray(picture, np.float64).mean(axis=2)
        assert np.abs(pixels - expected.double().mean(0).numpy()).mean() < 3, (
            "JPEG's loss; that of another filter is above 10"
        )
    assert len(list((exp / "conv2").iterdir())) == 5


def test_the_defaults_and_the_authors_presets() -> None:
    def parse(flags: str) -> tuple[float, int]:
        args = gradient_ascent.parse_args(["--model", "m", "--exp", "e", *flags.split()])
        assert (args.wd, args.sig, args.step, args.idim) == (1e-5, 0.3, 5, 224)
        return args.lr, args.niter

    assert parse("") == (3, 1000)
    assert parse("--preset conv1") == (3, 30_000)
    assert parse("--preset conv5") == (30, 3_000)
    assert parse("--niter 7 --preset conv5") == (30, 7), "a flag that is given wins"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--conv 3", "--conv 3: tiny has conv layers 1 to 2; give some of them, or all"),
        ("--arch vgg16", "--arch vgg16: {model} has --arch tiny; leave --arch out"),
        ("--filters 8", "--filters 8: conv1 of tiny has filters 0 to 7; give some of them, or "
         "ranges as in 0-31"),
        ("--filters 1 x-3", "--filters x-3: conv1 of tiny has filters 0 to 7; give some of them, "
         "or ranges as in 0-31"),
        ("--filters 5-2", "--filters 5-2: ends before it starts; give 2-5"),
        ("--conv 2 --idim 4", "--idim 4: too small for conv2 of tiny; give 5 or more"),
        ("--exp {model}/e", "--exp {model}/e/conv1: cannot write there: Not a directory"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_nothing_is_written(
    saved: Path, flags: str, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        run(saved, *flags.format(model=saved).split())
    assert str(caught.value) == message.format(model=saved)
    assert not (saved.parent / "exp").exists()
