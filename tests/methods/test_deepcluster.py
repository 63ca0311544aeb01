"""DeepCluster without a run: labels, draws, losses, state."""

import argparse
import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import tiny, write_images
from torch import nn

import main
from data.images import find_images
from data.loading import Batch, ImageDataset, load_in_order
from data.transforms import central_crop, to_input
from features.forward import Features
from methods.deepcluster import DeepCluster
from methods.method import FrozenPass
from models import MODELS
from system.device import Compute, select_compute

Settings = Callable[..., argparse.Namespace]


class FakeRun:
    """A run, as a method sees it."""

    def __init__(self, folder: Path) -> None:
        self.images = find_images(folder)
        self.epoch, self.image_count = 0, len(self.images)
        self.images_digest = self.images.digest
        self.stages: list[str] = []
        self.seen: list[Features] = []

    @contextlib.contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        self.stages.append(name)
        yield lambda done: None

    @contextlib.contextmanager
    def frozen_pass(self, every: int = 1) -> Iterator[FrozenPass]:
        self.stages.append("features")
        dataset = ImageDataset(self.images, central_crop(32))
        images = range(0, self.image_count, every)
        loader = load_in_order(dataset, 8, 0, torch.device("cpu"), images)
        yield FrozenPass(loader, images, fail, fail, lambda done: None)

    def forget_momentum(self, parameters: Iterable[nn.Parameter]) -> None:
        raise AssertionError("its top layer is reset")

    def augmented_pass(
        self, order: np.ndarray
    ) -> contextlib.AbstractContextManager[Iterator[Batch]]:
        raise AssertionError("DeepCluster needs none")

    def inspect(self, features: Features) -> None:
        self.seen.append(features)


def fail(*args: Any) -> None:
    raise AssertionError(args)


@pytest.fixture
def compute() -> Compute:
    return select_compute("cpu", "fp32")


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    write_images(tmp_path / "images", 40)
    return FakeRun(tmp_path / "images")


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    return lambda *flags: main.parse_args(["images", "--arch", "tiny", "--k", "4", *flags])


def labelled(method: DeepCluster, labels: list[int], k: int) -> None:
    """Load an assignment into a method, as from a checkpoint."""
    assignment = torch.tensor(labels)
    state = {"assignment": assignment, "previous": assignment}
    method.args.nmb_cluster = k
    method.load_state_dict({**state, "clusters": None, "clustering_loss": 0.0}, with_heads=True)


def test_new_labels_come_from_the_frozen_networks_features(
    run: FakeRun, settings: Settings, compute: Compute
) -> None:
    method = DeepCluster(settings(), compute)
    before = {name: weight.clone() for name, weight in method.network.state_dict().items()}
    method.relabel(run)
    assert run.stages == ["features", "clustering"]
    assert run.seen[0].rows.shape == (40, 32)
    assert method.assignment.shape == (40,)
    assert set(method.assignment) <= set(range(4))
    assert method.network.top_layer is not None
    assert method.network.top_layer.weight.shape == (4, 32)
    assert method.clusters is not None
    assert (method.clusters.epoch, method.clusters.centroids.shape[0]) == (0, 4)
    for name, weight in before.items():
        assert torch.equal(weight, method.network.state_dict()[name]), name


def test_each_epoch_has_its_own_top_layer(
    run: FakeRun, settings: Settings, compute: Compute
) -> None:
    method = DeepCluster(settings(), compute)
    weights = []
    for run.epoch in (0, 1, 0):
        method.relabel(run)
        assert method.network.top_layer is not None
        weights.append(method.network.top_layer.weight.detach().clone())
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2]), "a function of the seed and the epoch"


def test_the_finished_networks_clusters_leave_the_last_epochs_labels(
    run: FakeRun, settings: Settings, compute: Compute
) -> None:
    method = DeepCluster(settings(), compute)
    method.relabel(run)
    labels, run.epoch = method.assignment.copy(), 1
    with torch.no_grad():
        method.network.get_parameter("features.0.weight").mul_(-1)
    found = method.finish(run)
    assert method.clusters is not None
    assert method.clusters.epoch == 1
    assert np.array_equal(method.assignment, labels)
    assert not np.array_equal(found, labels)


def test_the_loss_of_each_image_is_cross_entropy(settings: Settings, compute: Compute) -> None:
    method = DeepCluster(settings(), compute)
    labelled(method, [3, 0, 1, 2, 2, 2], 4)
    method.network.eval()
    pixels = torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8)
    losses = method.losses(method.trained, Batch(pixels, torch.tensor([5, 0, 2]), {}))
    logits = method.network(to_input(pixels, torch.device("cpu"))).double()
    expected = -F.log_softmax(logits, dim=1)[torch.arange(3), torch.tensor([2, 3, 1])]
    torch.testing.assert_close(losses.double(), expected)


def test_reweighted_losses_are_divided_by_the_root_of_the_cluster_size(
    settings: Settings, compute: Compute
) -> None:
    losses = {}
    batch = Batch(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.tensor([0, 1]), {})
    for flags in ((), ("--reweight",)):
        method = DeepCluster(settings(*flags), compute)
        labelled(method, [0, 1, 1, 1, 1], 2)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            assert method.network.top_layer is not None
            method.network.top_layer.reset_parameters()
        method.network.eval()
        losses[flags] = method.losses(method.trained, batch).detach()
    ratio = losses["--reweight",] / losses[()]
    torch.testing.assert_close(ratio, torch.tensor([4 / 3, 2 / 3]))  # sizes 1 and 4, mean 1


def test_a_blank_image_has_a_loss_if_the_last_image_is_left_out(
    settings: Settings, compute: Compute
) -> None:
    """A process without images in a batch uses a blank image of number −1."""
    method = DeepCluster(settings(), compute)
    labelled(method, [0, 1, 2, 3, -1], 4)
    blank = Batch(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.tensor([-1]), {})
    assert method.losses(method.trained.eval(), blank).isfinite().all()


def test_each_cluster_is_drawn_equally_often(settings: Settings, compute: Compute) -> None:
    method = DeepCluster(settings("--reassign", "3"), compute)
    labelled(method, [0] * 30 + [1] * 8 + [-1] * 7 + [2] * 2, 4)
    drawn = method.draw(epoch=5)
    assert len(drawn) == 3 * 40
    counts = np.bincount(method.assignment[drawn], minlength=3)
    assert counts.max() - counts.min() <= 2
    assert np.array_equal(drawn, method.draw(epoch=5))
    assert not np.array_equal(drawn, method.draw(epoch=6))


def test_the_top_layer_has_no_momentum_and_is_reset(settings: Settings, compute: Compute) -> None:
    method = DeepCluster(settings("--momentum", "0.8", "--lr", "0.1", "--wd", "-3"), compute)
    (body,) = method.groups()
    assert (body["lr"], body["momentum"], body["weight_decay"]) == (0.1, 0.8, 1e-3)
    labelled(method, [0, 1], 2)
    _, top = method.groups()
    assert (top["lr"], top.get("momentum", 0), top["weight_decay"]) == (0.1, 0, 1e-3)
    assert top["reset"]
    assert [p.shape for p in top["params"]] == [(2, 32), (2,)]


def test_a_state_can_be_loaded(run: FakeRun, settings: Settings, compute: Compute) -> None:
    method = DeepCluster(settings(), compute)
    method.relabel(run)
    state = method.state_dict()
    assert state.keys() == method.form.keys()
    assert all(isinstance(state[name], kind) for name, kind in method.form.items())
    assert DeepCluster.is_sound(state, step=3)
    other = DeepCluster(settings(), compute)
    other.load_state_dict(state, with_heads=True)
    assert other.network.top_layer is not None
    assert other.k == 4
    assert np.array_equal(other.draw(2), method.draw(2))
    assert other.metrics(None) == method.metrics(None)


@pytest.mark.parametrize(
    "change",
    [
        {"assignment": torch.tensor([[0, 1]])},
        {"assignment": torch.tensor([0.0, 1.0])},
        {"assignment": torch.tensor([0, 4] * 20)},
        {"assignment": torch.tensor([0, -2] * 20)},
        {"previous": torch.tensor([[0, 1]])},
        {"auto_dim": -3},
        {"auto_dim": 257},
    ],
)
def test_a_malformed_state_is_noticed(
    run: FakeRun, settings: Settings, compute: Compute, change: dict[str, Any]
) -> None:
    method = DeepCluster(settings(), compute)
    method.relabel(run)
    assert not DeepCluster.is_sound({**method.state_dict(), **change}, step=1)


def dimensions(method: DeepCluster) -> int:
    assert method.clusters is not None
    return method.clusters.whitening.components


def test_pseudo_labels_have_the_papers_dimensions_and_the_result_those_that_fit(
    tmp_path: Path, settings: Callable[..., argparse.Namespace], compute: Compute
) -> None:
    write_images(tmp_path / "images", 40)
    method, run = DeepCluster(settings(), compute), FakeRun(tmp_path / "images")
    method.relabel(run)
    assert dimensions(method) == 256
    method.finish(run)
    assert dimensions(method) == 3, "40 images, 12 for each"


def test_auto_becomes_the_number_of_the_first_clustering(
    tmp_path: Path,
    settings: Callable[..., argparse.Namespace],
    compute: Compute,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_images(tmp_path / "images", 40)
    args = settings("--dim_pca", "auto", "--final_dim_pca", "2")
    method, run = DeepCluster(args, compute), FakeRun(tmp_path / "images")
    with caplog.at_level("INFO", "deepcluster"):
        for run.epoch in (0, 1):
            method.relabel(run)
            assert (method.auto_dim, dimensions(method)) == (3, 3)
    assert caplog.messages == ["whitened to 3 dimensions: 40 rows are too few for 256"]
    method.finish(run)
    assert dimensions(method) == 2


@pytest.mark.parametrize(
    ("before", "flag", "expected"),
    [
        (["auto"], "auto", 3),  # a job script that repeats its command
        (["auto"], "5", 5),
        (["5"], "auto", 8),
        (["auto", "5"], "auto", 8),
    ],
)
def test_auto_at_a_resume_keeps_its_number_unless_one_was_given_since(
    tmp_path: Path,
    run: FakeRun,
    settings: Settings,
    compute: Compute,
    caplog: pytest.LogCaptureFixture,
    before: list[str],
    flag: str,
    expected: int,
) -> None:
    state: dict[str, Any] | None = None
    for given in before:  # 40 images
        method = resumed(settings("--dim_pca", given), compute, state)
        method.relabel(run)
        state = method.state_dict()
    write_images(tmp_path / "more", 100)
    method = resumed(settings("--dim_pca", flag), compute, state)
    caplog.clear()
    method.relabel(FakeRun(tmp_path / "more"))
    assert dimensions(method) == expected
    assert (method.auto_dim is None) == (flag != "auto")
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def resumed(
    args: argparse.Namespace, compute: Compute, state: dict[str, Any] | None
) -> DeepCluster:
    method = DeepCluster(args, compute)
    if state is not None:
        method.load_state_dict(state, with_heads=False)
    return method


def test_too_many_dimensions_are_warned_of_once(
    tmp_path: Path,
    settings: Callable[..., argparse.Namespace],
    compute: Compute,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_images(tmp_path / "images", 40)
    method = DeepCluster(settings("--dim_pca", "20"), compute)
    run = FakeRun(tmp_path / "images")
    with caplog.at_level("INFO", "deepcluster"):
        method.relabel(run)
        method.relabel(run)
    assert caplog.messages == [
        "clusters of 40 rows whitened to 20 dimensions tend to noise; auto takes 3"
    ]


def test_clusters_that_are_only_normalised_are_kept_and_read_again(
    tmp_path: Path, settings: Callable[..., argparse.Namespace], compute: Compute
) -> None:
    write_images(tmp_path / "images", 40)
    args = settings("--dim_pca", "0", "--final_dim_pca", "0")
    method, run = DeepCluster(args, compute), FakeRun(tmp_path / "images")
    method.relabel(run)
    plain = method.state_dict()["clusters"]
    assert plain["pca_mean"] is None
    assert plain["pca_matrix"] is None
    assert plain["centroids"].shape == (4, 32)
    assert DeepCluster.is_sound(method.state_dict(), step=1)
    other = DeepCluster(args, compute)
    other.load_state_dict(method.state_dict(), with_heads=True)
    assert other.clusters is not None
    np.testing.assert_array_equal(other.clusters.assign(run.seen[0].rows)[0], method.assignment)
