"""The model zoos' linear probes, against PyTorch's own modules and NumPy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import tiny
from torch import Tensor, nn
from torchvision.transforms import v2

import eval_linear
from data.batch import Batch
from data.transforms import Lighting, apply_seeded, resized_crop, to_input
from evaluation import linear as probe
from evaluation.linear_norm import ChannelNorm
from evaluation.linear_recipes import RECIPES
from evaluation.linear_results import in_words
from evaluation.linear_run import Settings
from models import ConvNet, untrained
from models.layers import AVGPOOL, Layer, layers_or_avgpool
from system.device import select_compute
from system.errors import InputError

CPU = torch.device("cpu")
COMPUTE = select_compute("cpu", "fp32")
LABELS = torch.arange(12) % 3

# of ImageNet's colours, as Krizhevsky's code has them
EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
EIGENVECTORS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)


def settings(protocol: str, *flags: str) -> Settings:
    args = eval_linear.parse_args(["--data", "d", "--model", "m", "--protocol", protocol, *flags])
    return Settings(**{field: getattr(args, field) for field in Settings.__annotations__})


def batches() -> list[Batch]:
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (3, 4, 3, 32, 32), dtype=torch.uint8, generator=random)
    return [Batch(each, torch.arange(4 * i, 4 * i + 4), {}) for i, each in enumerate(pixels)]


@pytest.fixture
def model() -> ConvNet:
    torch.manual_seed(0)
    return tiny().eval()


@pytest.fixture
def heads(model: ConvNet) -> probe.Heads:
    return probe.Heads(model, [2], 3, 32, seed=5, normalised=True)


def train(model: ConvNet, heads: probe.Heads, optimizer: torch.optim.SGD) -> float:
    """The mean loss of an epoch."""
    losses = probe.train_epoch(
        model, heads, optimizer, batches(), LABELS, COMPUTE,  # type: ignore[arg-type]
        set_rate=lambda batch: None, on_unreadable=lambda u: None, advance=lambda n: None,
    )  # fmt: skip
    return losses[2]


def maps_of(model: ConvNet, batch: Batch) -> Tensor:
    with torch.no_grad():
        maps = model.conv_features(to_input(batch.pixels, CPU), 2)
        return F.adaptive_avg_pool2d(maps, 24)  # 16·24² = 9216


def test_training_equals_batch_norm_and_nesterovs_momentum_by_hand(
    model: ConvNet, heads: probe.Heads
) -> None:
    """Step by step: v ← m·v + g + wd·w, w ← w − lr·(g + wd·w + m·v)."""
    norm, linear = nn.BatchNorm2d(16, affine=False), nn.Linear(9216, 3)
    linear.load_state_dict(heads.linear["2"].state_dict())
    loss = train(model, heads, settings("modelzoo", "--lr", "0.1", "--wd=-1").optimizer(heads))

    velocity = [torch.zeros_like(p) for p in linear.parameters()]
    expected = []
    for batch in batches():
        logits = linear(norm(maps_of(model, batch)).flatten(1))
        each = F.cross_entropy(logits, LABELS[batch.index])
        expected.append(float(each.detach()))
        gradients = torch.autograd.grad(each, list(linear.parameters()))
        with torch.no_grad():
            for p, v, g in zip(linear.parameters(), velocity, gradients, strict=True):
                step = g + 0.1 * p
                v.mul_(0.9).add_(step)
                p.sub_(step + 0.9 * v, alpha=0.1)
    assert loss == pytest.approx(np.mean(expected), rel=1e-5)
    state = heads.state_dict()
    for name, reference in linear.named_parameters():
        torch.testing.assert_close(state[f"linear.2.{name}"], reference, rtol=1e-4, atol=1e-5)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(state["norm.2.mean"], norm.running_mean)
    torch.testing.assert_close(state["norm.2.var"], norm.running_var)


def test_validation_uses_the_running_statistics_unchanged(
    model: ConvNet, heads: probe.Heads
) -> None:
    train(model, heads, settings("modelzoo").optimizer(heads))
    before = {name: tensor.clone() for name, tensor in heads.state_dict().items()}
    found = probe.validate(
        model, heads, batches(), LABELS, COMPUTE,  # type: ignore[arg-type]
        on_unreadable=lambda u: None, advance=lambda n: None,
    )  # fmt: skip
    norm = nn.BatchNorm2d(16, affine=False).eval()
    norm.running_mean, norm.running_var = before["norm.2.mean"], before["norm.2.var"]
    rows = torch.cat([norm(maps_of(model, batch)).flatten(1) for batch in batches()])
    logits = F.linear(rows, before["linear.2.weight"], before["linear.2.bias"])
    assert found[2]["loss"] == pytest.approx(float(F.cross_entropy(logits, LABELS)), rel=1e-5)
    for name, tensor in heads.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_one_value_or_none_does_not_change_the_running_statistics() -> None:
    norm = ChannelNorm(3)
    norm(torch.randn(8, 3))
    before = norm.mean.clone(), norm.var.clone()
    assert norm(torch.full((1, 3), 7.0)).tolist() == [[0.0, 0.0, 0.0]]
    assert norm(torch.empty(0, 3)).shape == (0, 3)
    assert torch.equal(norm.mean, before[0])
    assert torch.equal(norm.var, before[1])


@pytest.mark.parametrize(
    ("protocol", "epochs", "rates"),
    [
        ("modelzoo", 90, {0: 0.01, 29: 0.01, 30: 1e-3, 59: 1e-3, 60: 1e-4, 89: 1e-4}),
        ("modelzoo-places205", 28, {0: 0.01, 6: 0.01, 7: 1e-3, 14: 1e-4, 21: 1e-5, 27: 1e-5}),
        ("modelzoo-inat18", 84, {23: 0.01, 24: 1e-3, 47: 1e-3, 48: 1e-4, 71: 1e-4, 72: 1e-5}),
        ("modelzoo-avgpool", 100, {0: 30, 59: 30, 60: 3, 79: 3, 80: 0.3, 99: 0.3}),
    ],
)
def test_the_rate_is_divided_by_ten_at_the_steps(
    heads: probe.Heads, protocol: str, epochs: int, rates: dict[int, float]
) -> None:
    chosen = settings(protocol)
    assert chosen.epochs == epochs
    optimizer = chosen.optimizer(heads)
    for epoch, rate in rates.items():
        chosen.set_rate(optimizer, epoch, iteration=1000 * epoch)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate), epoch


def test_swavs_rate_is_proportional_to_the_batch_and_falls_by_a_cosine(
    heads: probe.Heads,
) -> None:
    chosen = settings("swav", "--batch_size", "64")
    assert (chosen.epochs, chosen.lr) == (100, pytest.approx(0.075))
    assert settings("swav").lr == pytest.approx(0.3)
    assert settings("swav", "--batch_size", "64", "--lr", "0.3").lr == 0.3
    torchs = torch.optim.SGD(heads.parameters(), 0.075)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(torchs, T_max=100)
    optimizer = chosen.optimizer(heads)
    for epoch in range(100):
        chosen.set_rate(optimizer, epoch, iteration=1000 * epoch)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(schedule.get_last_lr()[0])
        torchs.step()
        schedule.step()


def test_steps_replace_swavs_cosine(heads: probe.Heads) -> None:
    chosen = settings("swav", "--steps", "60", "80")
    optimizer = chosen.optimizer(heads)
    for epoch, rate in {0: 0.3, 59: 0.3, 60: 0.03, 80: 0.003}.items():
        chosen.set_rate(optimizer, epoch, iteration=epoch)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate)


def test_the_optimisers_of_the_protocols(heads: probe.Heads) -> None:
    def group(*flags: str) -> tuple[float, bool]:
        (found,) = settings(*flags).optimizer(heads).param_groups
        return found["weight_decay"], found["nesterov"]

    assert group("paper") == (1e-4, False)
    for protocol in ("modelzoo", "modelzoo-places205", "modelzoo-inat18"):
        assert group(protocol) == (1e-4, True)
    assert group("modelzoo-avgpool") == (0, False)
    assert group("swav") == (pytest.approx(1e-6), False)
    assert group("modelzoo", "--momentum", "0") == (1e-4, False), (
        "torch demands a momentum for Nesterov's"
    )


def test_flags_override_the_protocol() -> None:
    flags = "--epochs 9 --lr 0.5 --wd=-3 --steps 6 4 --momentum 0.5"
    given = settings("modelzoo", *flags.split())
    assert (given.epochs, given.lr, given.wd, given.momentum) == (9, 0.5, -3, 0.5)
    assert given.steps == (4, 6)
    assert settings("modelzoo", "--steps").steps == (), "a constant rate"
    assert settings("paper").steps is None


def moved(pixels: Tensor, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels after `Lighting`, and by its formula before rounding."""
    found = apply_seeded(Lighting(0.1), pixels, seed)
    draws = apply_seeded(lambda _: torch.randn(3), pixels, seed).double().numpy()
    shift = EIGENVECTORS @ (0.1 * draws * EIGENVALUES)
    return found.numpy(), pixels.numpy() + 255 * shift[:, None, None]


def test_lighting_equals_its_formula_to_half_a_grey_level() -> None:
    pixels = torch.randint(256, (3, 20, 20), dtype=torch.uint8)
    pixels[:, 0], pixels[:, 1] = 0, 255
    for seed in range(50):
        found, expected = moved(pixels, seed)
        assert found.dtype == np.uint8
        assert np.abs(found - expected.clip(0, 255)).max() < 0.501


def test_lighting_has_the_covariance_of_imagenets_colours() -> None:
    grey = torch.full((3, 1, 1), 128, dtype=torch.uint8)
    shifts = np.array([moved(grey, seed)[0][:, 0, 0] - 128.0 for seed in range(4000)])
    expected = EIGENVECTORS @ np.diag((25.5 * EIGENVALUES) ** 2) @ EIGENVECTORS.T
    rounding = np.eye(3) / 12
    np.testing.assert_allclose(np.cov(shifts.T), expected + rounding, rtol=0.08, atol=0.05)


def test_crops_for_places_cover_the_resized_image() -> None:
    rows, columns = torch.meshgrid(torch.arange(40), torch.arange(60), indexing="ij")
    pixels = torch.stack([rows, columns, rows]).to(torch.uint8)
    view, places = resized_crop(35), set()  # of a short side of 40
    for seed in range(60):
        crop = apply_seeded(view, pixels, seed)
        top, (left, right) = int(crop[0, 0, 0]), crop[1, 0, [0, -1]].tolist()
        assert abs(left - right) == 34
        places.add((top, min(left, right), left < right))
    assert {top for top, _, _ in places} == set(range(6))
    assert min(left for _, left, _ in places) < 3, "beyond the central square"
    assert max(left for _, left, _ in places) > 22
    assert {straight for _, _, straight in places} == {True, False}


@pytest.mark.parametrize("protocol", RECIPES)
def test_views_have_the_input_size_and_depend_on_the_seed(protocol: str) -> None:
    view: v2.Transform = RECIPES[protocol].view(32)
    pixels = torch.randint(256, (3, 50, 70), dtype=torch.uint8)
    first, again, other = (apply_seeded(view, pixels, seed) for seed in (1, 1, 2))
    assert first.shape == (3, 32, 32)
    assert first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_avgpool_is_a_residual_networks_embedding() -> None:
    network = untrained("resnet18_small", sobel=True, out=2, seed=0).eval()
    layers = layers_or_avgpool(network, ["all", AVGPOOL])
    assert layers == [1, 2, 3, 4, 5, AVGPOOL]
    found = probe.Heads(network, layers, 3, 32, seed=0, normalised=True)
    assert found.dimensions == {1: 9216, 2: 9216, 3: 10368, 4: 9216, 5: 8192, AVGPOOL: 512}
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        pooled = found.pooled(network, x)
        torch.testing.assert_close(pooled[AVGPOOL], network.embedding(x), rtol=1e-4, atol=1e-5)


def test_resnet50_has_the_zoos_dimensions() -> None:
    network = untrained("resnet50", sobel=True, out=2, seed=0).eval()
    found = probe.Heads(network, [1, 2, 3, 4, 5, AVGPOOL], 3, 224, seed=0)
    assert list(found.dimensions.values()) == [9216, 9216, 8192, 9216, 8192, 2048]


def test_avgpool_does_not_depend_on_the_other_layers(model: ConvNet) -> None:
    def weights(*layers: Layer) -> Tensor:
        found = probe.Heads(model, layers, 3, 32, seed=5, normalised=True)
        probe.train_epoch(
            model, found, settings("modelzoo").optimizer(found), batches(), LABELS,  # type: ignore[arg-type]
            COMPUTE, set_rate=lambda batch: None, on_unreadable=lambda u: None,
            advance=lambda n: None,
        )  # fmt: skip
        return found.state_dict()[f"linear.{AVGPOOL}.weight"]

    torch.testing.assert_close(weights(AVGPOOL, 2, 1), weights(AVGPOOL), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("words", "layers"),
    [("all", [1, 2]), ("2", [2]), ("2 1 2", [1, 2]), ("avgpool 2", [2, AVGPOOL])],
)
def test_layers_are_sorted_and_distinct(model: ConvNet, words: str, layers: list[Layer]) -> None:
    assert layers_or_avgpool(model, words.split()) == layers


@pytest.mark.parametrize("words", ["3", "0", "1 all", "x", "avgpool 3", "avgpool 1 all", "pool"])
def test_unknown_layers_are_an_error(model: ConvNet, words: str) -> None:
    with pytest.raises(InputError, match="tiny has conv layers 1 to 2; give some of them"):
        layers_or_avgpool(model, words.split())


@pytest.mark.parametrize("protocol", RECIPES)
def test_each_protocol_has_its_description(protocol: str) -> None:
    words = in_words(eval_linear.__doc__ or "", protocol, RECIPES)
    assert f"\n\n{protocol}: " in words
    named = {name for name in RECIPES if f"\n\n{name}: " in words}
    assert named == {protocol, protocol.partition("-")[0]}, "its own, and the one it varies"
    assert words.startswith("Logistic regression")
