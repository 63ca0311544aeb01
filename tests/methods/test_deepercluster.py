"""Ten steps of DeeperCluster on a toy network, beside the same steps in float64, written from the
release's arithmetic: rotations, two losses, a mean over its own images for each sub-head, new heads
without momentum at each clustering. And what its flags may be.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ErrorLine
from made_crops import COMPUTE
from torch import Tensor, nn

import main
from cluster.clusters import Clusters
from cluster.whitening import Normalisation
from data.loading import Batch
from methods.deepercluster import DeeperCluster
from methods.health import check_rotations
from models import MODELS, untrained
from models.convnet import ConvNet, conv_layers
from training.optimizers import make_optimizer
from training.state import State
from training.updates import Updates

IMAGES, BATCH, SIDE, PER_EPOCH = 20, 8, 12, 2  # the last 4 draws of an epoch are left out
LR, MOMENTUM, DECAY = 0.05, 0.9, 1e-3
MODES = {  # flags, super-clusters, rotations, sub-clusters of each
    "rotations and clusters": ("--super_classes 8 --k 6", 2, 4, 3),
    "one super-cluster": ("--super_classes 4 --k 3", 1, 4, 3),
    "no rotations": ("--super_classes 2 --k 6 --rotnet false", 2, 1, 3),
    "rotations only": ("--super_classes 4 --k 1", 1, 4, 1),
}


def toy(sobel: bool = False, out: int = 1000) -> ConvNet:
    """A convolution with batch norm, pooled to 2 × 2, and a linear layer."""
    features = conv_layers(3, [(6, 3, 2, 1)])
    classifier = nn.Sequential(nn.Linear(24, 10), nn.ReLU())
    return ConvNet("toy", features, 2, classifier, 10, out, sobel)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "toy", toy)


def parse(flags: str) -> argparse.Namespace:
    base = f"images --method deepercluster --arch toy --batch {BATCH} --lr {LR} --wd -3 --epochs 5"
    return main.parse_args([*base.split(), *["--reassignment", "2"], *flags.split()])


class FakeRun:
    """A run, as a method sees it."""

    image_count, images_digest, epoch = IMAGES, "digest", 0
    optimizer: torch.optim.Optimizer

    def forget_momentum(self, parameters: Iterable[nn.Parameter]) -> None:
        for parameter in parameters:
            self.optimizer.state.pop(parameter, None)

    @contextlib.contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        yield lambda done: None

    def frozen_pass(self, every: int = 1) -> Any:
        raise AssertionError("clusters are given")

    def augmented_pass(self, order: np.ndarray) -> Any:
        raise AssertionError("it needs none")

    def inspect(self, features: Any) -> None:
        raise AssertionError("clusters are given")


def with_given_clusters(method: DeeperCluster, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Give a method random clusters at each clustering. Returns the epochs of these, as a list that
    grows."""
    epochs: list[int] = []

    def cluster(run: FakeRun, pca: object, each: int) -> tuple[np.ndarray, Clusters, np.ndarray]:
        epochs.append(run.epoch)
        found = np.random.default_rng(run.epoch).integers(method.k, size=IMAGES)
        found[: method.k] = range(method.k)
        clusters = Clusters("Kmeans", run.epoch, Normalisation(), np.ones((1, 10), np.float32))
        return found, clusters, np.empty((0, 10), np.float32)

    monkeypatch.setattr(method, "_cluster", cluster)
    return epochs


class Images:
    """Random crops, new ones in each batch; those of an image have its colour, and noise."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.colours = self.rng.integers(60, 196, size=(IMAGES, 3, 1, 1))

    def batch(self, order: np.ndarray) -> tuple[Batch, np.ndarray]:
        """A batch as the loader makes it, and its pixels as `(B, 3, side, side)`."""
        index, turns = order.T
        noise = self.rng.integers(-60, 60, (len(index), 3, SIDE, SIDE))
        crops = (self.colours[index] + noise).astype(np.uint8)
        pairs = zip(crops, turns, strict=True)
        pixels = np.stack([np.rot90(crop, quarters, axes=(1, 2)) for crop, quarters in pairs])
        tensors = (torch.from_numpy(each.copy()) for each in (pixels, index, turns))
        shown, numbers, quarters = tensors
        return Batch(shown, numbers, {}, quarters), pixels


class Float64:
    """The network, the heads and the optimiser in float64."""

    def __init__(self, method: DeeperCluster) -> None:
        self.weights: dict[str, Tensor] = {}
        self.velocity: dict[str, Tensor] = {}
        self.take(method)

    def take(self, method: DeeperCluster, prefix: str = "") -> None:
        """Take a method's weights whose names begin with `prefix`, at rest."""
        for name, weight in method.trained.named_parameters():
            if name.startswith(prefix):
                self.weights[name] = weight.detach().double().clone().requires_grad_()
                self.velocity[name] = torch.zeros_like(weight, dtype=torch.float64)

    def losses(
        self, pixels: np.ndarray, supers: np.ndarray, subs: np.ndarray
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The two losses of each image, `(B,)`, and the super-class of the highest score."""
        w = {name.split(".", 1)[1]: weight for name, weight in self.weights.items()}
        x = (pixels / 255 - PIXEL_MEAN) / PIXEL_STD
        x = torch.from_numpy(x)
        x = nn.functional.conv2d(x, w["features.0.weight"], w["features.0.bias"], 2, 1)
        mean = x.mean((0, 2, 3), keepdim=True)
        x = (x - mean) / (x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
        x = x * w["features.1.weight"].view(-1, 1, 1) + w["features.1.bias"].view(-1, 1, 1)
        x = x.relu().unflatten(2, (2, 3)).unflatten(4, (2, 3)).mean(dim=(3, 5)).flatten(1)
        x = (x @ w["classifier.0.weight"].T + w["classifier.0.bias"]).relu()
        scores = x @ w["super.weight"].T + w["super.bias"]
        own = [
            w["sub.weight"][number] @ row + w["sub.bias"][number]
            for number, row in zip(supers.tolist(), x, strict=True)
        ]
        rows = range(len(x))
        of_super = -scores.log_softmax(dim=1)[rows, supers.tolist()]
        of_sub = -torch.stack(own).log_softmax(dim=1)[rows, subs.tolist()]
        return of_super, of_sub, scores.argmax(dim=1)

    def update(self, of_super: Tensor, of_sub: Tensor, supers: np.ndarray) -> None:
        """SGD. Each sub-head's gradient is that of the mean over its own images."""
        names = list(self.weights)
        found = torch.autograd.grad((of_super + of_sub).mean(), list(self.weights.values()),
                                    retain_graph=True)  # fmt: skip
        gradients = dict(zip(names, found, strict=True))
        for name in ("heads.sub.weight", "heads.sub.bias"):
            own = torch.zeros_like(gradients[name])
            for number in set(supers.tolist()):
                mean = of_sub[torch.from_numpy(supers == number)].mean()
                (gradient,) = torch.autograd.grad(mean, self.weights[name], retain_graph=True)
                own[number] = gradient[number]
            gradients[name] = own
        for name, weight in self.weights.items():
            with torch.no_grad():
                gradient = gradients[name] + DECAY * weight
                self.velocity[name] = MOMENTUM * self.velocity[name] + gradient
                weight -= LR * self.velocity[name]


PIXEL_MEAN = np.array([0.485, 0.456, 0.406]).reshape(3, 1, 1)
PIXEL_STD = np.array([0.229, 0.224, 0.225]).reshape(3, 1, 1)


@pytest.mark.parametrize("mode", MODES)
def test_ten_steps_are_those_of_float64(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flags, m, rotations, each = MODES[mode]
    args = parse(flags)
    main.METHODS["deepercluster"].check_flags(args, IMAGES, COMPUTE.device)
    method, run, images = DeeperCluster(args, COMPUTE), FakeRun(), Images()
    epochs = with_given_clusters(method, monkeypatch)
    assert (method.super_clusters, method.rotations, method.each) == (m, rotations, each)
    run.optimizer = optimizer = make_optimizer(method.groups())
    state, exact, steps = State(0), Float64(method), 0
    for run.epoch in range(5):
        method.relabel(run)
        if m * each > 1 and run.epoch % 2 == 0:
            exact.take(method, "heads" if m > 1 else "heads.sub")
        order = method.draw(run.epoch)
        assert order.shape == (PER_EPOCH * BATCH, 2)
        blank, _ = images.batch(order[:1])
        updates = Updates(args, method, COMPUTE, state, optimizer, PER_EPOCH, blank)
        right = []
        for draws in order.reshape(-1, BATCH, 2):
            batch, pixels = images.batch(draws)
            updates.prepare(BATCH)
            losses = method.losses(updates.forward, batch)
            updates.backward(losses, BATCH)
            updates.step()
            clusters = method.assignment[draws[:, 0]]
            supers = clusters // each * rotations + draws[:, 1]
            assert np.bincount(supers, minlength=m * rotations).tolist() == [
                BATCH // (m * rotations)
            ] * (m * rotations)
            of_super, of_sub, best = exact.losses(pixels, supers, clusters % each)
            found = losses.detach().double()
            torch.testing.assert_close(found, (of_super + of_sub).detach(), rtol=1e-4, atol=1e-5)
            exact.update(of_super, of_sub, supers)
            right += (best.numpy() % rotations == draws[:, 1]).tolist()
            steps += 1
        metrics = method.metrics(None)
        if rotations > 1:
            assert metrics["rotation_accuracy"] == np.mean(right)
        state.finish_epoch()
    assert steps == 10
    assert epochs == ([0, 2, 4] if m * each > 1 else [])
    for name, weight in method.trained.named_parameters():
        if name != "network.features.0.bias":  # in front of batch norm: its gradient is rounding
            expected = exact.weights[name].detach().float()
            torch.testing.assert_close(weight.detach(), expected, rtol=1e-3, atol=1e-5)


def test_its_linear_layers_begin_as_pytorchs() -> None:
    found = DeeperCluster(parse("--k 4"), COMPUTE).network.state_dict()
    weight, bias = found["classifier.0.weight"], found["classifier.0.bias"]
    assert 0.15 < weight.abs().max().item() <= 24**-0.5
    assert bias.any()
    plain, other = (untrained("toy", False, 2, 31, each).state_dict() for each in (True, False))
    assert torch.equal(plain["classifier.0.weight"], weight)
    assert torch.equal(other["features.0.weight"], found["features.0.weight"])
    assert not other["classifier.0.bias"].any()


def test_a_state_can_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    args = parse("--super_classes 8 --k 6")
    method, run = DeeperCluster(args, COMPUTE), FakeRun()
    epochs = with_given_clusters(method, monkeypatch)
    run.optimizer = make_optimizer(method.groups())
    run.epoch = 1
    method.relabel(run)
    assert epochs == [1], "there were no clusters yet"
    batch, _ = Images().batch(method.draw(1)[:BATCH])
    method.losses(method.trained, batch)
    state = {**method.state_dict(), "images_digest": "digest", "settings": vars(args)}
    assert method.form.keys() == method.state_dict().keys()
    assert all(isinstance(state[name], kind) for name, kind in method.form.items())
    assert DeeperCluster.is_sound(state, step=1)
    other = DeeperCluster(args, COMPUTE)
    again = with_given_clusters(other, monkeypatch)
    other.load_state_dict(state, with_heads=True)
    assert np.array_equal(other.draw(1), method.draw(1))
    assert other.metrics(None) == method.metrics(None)
    for one, two in zip(method.heads.parameters(), other.heads.parameters(), strict=True):
        assert torch.equal(one, two)
    other.relabel(run)
    assert again == [], "within a period"
    run.images_digest = "of other images"
    other.relabel(run)
    assert again == [1]


def test_a_blank_image_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    method, run = DeeperCluster(parse("--k 6"), COMPUTE), FakeRun()
    with_given_clusters(method, monkeypatch)
    run.optimizer = make_optimizer(method.groups())
    method.relabel(run)
    blank, _ = Images().batch(np.array([[-1, 0]]))
    method.losses(method.trained.eval(), blank)
    assert method.state_dict()["tally"] == [0.0] * 4


@pytest.mark.parametrize(
    ("accuracy", "epoch", "warns"),
    [(0.25, 1, True), (0.26, 5, True), (0.25, 0, False), (0.4, 3, False), (None, 3, False)],
)
def test_rotations_that_are_not_learned_give_a_warning(
    accuracy: float | None, epoch: int, warns: bool
) -> None:
    assert [line.startswith("the rotations are not learned: ") for line in
            check_rotations(accuracy, epoch)] == [True] * warns  # fmt: skip


ROTATED = {"rotation_accuracy": 0.5, "ln_k": 4.0}
ADVICE = {
    "it learns": (1, {"convnet_loss": 3.5}, ""),
    "nothing of its clusters": (1, {"convnet_loss": 3.99},
        "the convnet loss 3.990 is not below ln S + ln K = 4.000, the loss of guessing: "),
    "no rotations": (1, {"convnet_loss": 3.99, "rotation_accuracy": 0.25}, "the rotations are not"),
    "far above": (1, {"convnet_loss": 4.3, "rotation_accuracy": 0.25}, "the convnet loss 4.300 is"),
    "the first epoch": (0, {"convnet_loss": 4.3}, ""),
}  # fmt: skip


@pytest.mark.parametrize("case", ADVICE)
def test_a_run_that_does_not_learn_gets_one_line_of_advice(case: str) -> None:
    epoch, metrics, begins = ADVICE[case]
    found = DeeperCluster(parse("--k 6"), COMPUTE).advice({**ROTATED, **metrics, "epoch": epoch})
    assert len(found) == bool(begins)
    assert all(line.startswith(begins) for line in found)


def test_a_run_of_rotations_gets_no_advice_on_clusters() -> None:
    method = DeeperCluster(parse("--k 1"), COMPUTE)
    metrics = {"epoch": 1, "rotation_accuracy": 0.3, "ln_k": 1.386, "convnet_loss": 1.38}
    assert method.advice(metrics) == []
    (line,) = method.advice({**metrics, "convnet_loss": 1.5})
    assert line.startswith("the convnet loss 1.500 is far above 1.386")


WRONG = {
    "--batch 10": "each batch has equally many images of each of 4 super-classes; give 8,",
    "--batch 11": "give 12, or another multiple of 4",
    "--batch 2": "give 4, or another multiple of 4",
    "--batch 39 --super_classes 16 --k 40": "give 32, or",
    "--batch 44": "more than the 40 images; only whole batches are trained on, so give 40 at most",
    "--batch 44 --super_classes 16 --k 40": "so give 32 at most",
    "--super_classes 44 --k 11": "--super_classes 44: each batch has images of each super-class, "
    "more than the 40 images; give 40 at most",
    "--size_dataset 10 --super_classes 16": "more than the 10 images; give 8 at most",
    "--size_dataset 3 --k 3": "more than the 3 images; give more images",
    "--super_classes 6": "must be a multiple of 4 with rotations; give 8, or --rotnet false",
    "--super_classes 1": "--super_classes 1: must be a multiple of 4 with rotations; give 4, or",
    "--super_classes 16 --k 3": "--k 3: fewer than the 4 super-clusters; give 4 or more",
    "--k 41": "--k 41: more clusters than the 40 images of",
    "--k 1 --rotnet false --super_classes 1": "--k 1: without rotations nothing is left to learn",
    "--k 0": "'0' is not a whole number of 1 or more",
    "--rotnet yes": "'yes' is neither true nor false",
    "--reassignment 0": "'0' is not a whole number of 1 or more",
    "--size_dataset 9 --k 10": "--k 10: more clusters than the 9 images of",
    "--kmeans_init random": "--kmeans_init: belongs to --method deepcluster",
}


@pytest.mark.parametrize("flags", WRONG)
def test_flags_that_do_not_fit(flags: str, tree: object, error_line: ErrorLine) -> None:
    base = "--method deepercluster --arch toy --size 32 --batch 8 --k 4 --workers 0 --device cpu"
    assert WRONG[flags] in error_line(main, tree, *base.split(), *flags.split())


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (
            "--k 1",
            "--k 1: RotNet, which learns rotations; only the finished network gets clusters, 150:",
        ),
        ("--k 10 --super_classes 16", "--k 10: 8 clusters, 2 in each of 4 super-clusters"),
        ("--k 12 --super_classes 16", ""),
        ("--k 12", ""),
    ],
)
def test_a_number_of_clusters_other_than_k_is_printed(flags: str, line: str) -> None:
    said = DeeperCluster.fit_settings(parse(flags), 3000)
    assert len(said) == (line != "")
    assert "".join(said).startswith(line)


@pytest.mark.parametrize(
    ("words", "value"), [("true on 1 TRUE", True), ("false off 0 False", False)]
)
def test_the_originals_words_for_true_and_false(words: str, value: bool) -> None:
    for word in words.split():
        assert parse(f"--rotnet {word}").rotnet is value


def test_the_defaults_are_the_releases() -> None:
    args = main.parse_args(["images", "--method", "deepercluster"])
    found = {name: vars(args)[name] for name in ("lr", "wd", "momentum", "epochs", "nmb_cluster")}
    assert found == {"lr": 0.1, "wd": -5, "momentum": 0.9, "epochs": 100, "nmb_cluster": 10000}
    assert (args.super_classes, args.rotnet, args.reassignment, args.niter) == (4, True, 3, 10)
