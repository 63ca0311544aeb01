"""Ten steps of SwAV and DeepCluster-v2 on a toy network, beside the same steps in float64, written
from the papers' formulas: crops, batch norm, codes, queue, memory, k-means, loss, LARS, schedule.

Five epochs of two batches of 8 of 20 images; the last 4 draws of an epoch are left out.
"""

import itertools

import numpy as np
import pytest
import torch
from made_crops import BATCH, COMPUTE, IMAGES, PER_EPOCH, Crops, FakeRun, parse, steps_of, toy
from torch import Tensor, nn

from methods.deepclusterv2 import DeepClusterV2
from methods.multicrop import MultiCropMethod
from methods.swav import SwAV
from models import MODELS
from system.seeding import derive_seed

EPOCHS = 5
BASE, FINAL, START, MOMENTUM, DECAY = 0.6, 0.006, 0.1, 0.9, 1e-6
TEMPERATURE, EPSILON = 0.1, 0.05
K = 5
FROZEN = 3  # steps with fixed prototypes
QUEUED, QUEUE_STARTS = 16, 1  # full after the second epoch
SHARED = f"""--epochs {EPOCHS} --lr {BASE} --final_lr {FINAL} --warmup_epochs 1
    --start_warmup {START} """


def learning_rate(step: int) -> float:
    """Both ends of the warm-up are included; the final rate is that of a step after the last."""
    if step < PER_EPOCH:
        return float(np.linspace(START, BASE, PER_EPOCH)[step])
    done = (step - PER_EPOCH) / (PER_EPOCH * (EPOCHS - 1))
    return float(FINAL + (BASE - FINAL) / 2 * (1 + np.cos(np.pi * done)))


class Float64:
    """The network, the heads and the optimiser in float64."""

    def __init__(self, method: MultiCropMethod) -> None:
        named = method.trained.named_parameters()
        self.weights = {name: weight.detach().double().clone() for name, weight in named}
        self.velocity = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        for weight in self.weights.values():
            weight.requires_grad_()

    def embed(self, crops: list[np.ndarray]) -> Tensor:
        """Embeddings `(crops · B, d)`. Batch norm in the network is over the crops of one size, in
        the head over all."""
        w = {name.split(".", 1)[1]: weight for name, weight in self.weights.items()}
        pooled = []
        for _, same in itertools.groupby(crops, lambda crop: crop.shape[1]):
            x = torch.cat([pixels_to_input(crop) for crop in same])
            x = nn.functional.conv2d(x, w["features.0.weight"], w["features.0.bias"], 2, 1)
            x = standardised(x, (0, 2, 3)) * w["features.1.weight"].view(-1, 1, 1)
            x = (x + w["features.1.bias"].view(-1, 1, 1)).relu()
            half = x.shape[2] // 2
            x = x.unflatten(2, (2, half)).unflatten(4, (2, half)).mean(dim=(3, 5))
            pooled.append(x.flatten(1))
        x = torch.cat(pooled) @ w["projection_head.0.weight"].T + w["projection_head.0.bias"]
        x = standardised(x, (0,)) * w["projection_head.1.weight"] + w["projection_head.1.bias"]
        x = x.relu() @ w["projection_head.3.weight"].T + w["projection_head.3.bias"]
        return x / x.square().sum(dim=1, keepdim=True).sqrt()

    def update(self, loss: Tensor, step: int, fixed: str = "nothing") -> None:
        """LARS; weights whose names start with `fixed` stay."""
        names = [name for name in self.weights if not name.startswith(fixed)]
        gradients = torch.autograd.grad(loss, [self.weights[name] for name in names])
        for name, gradient in zip(names, gradients, strict=True):
            weight = self.weights[name].detach()
            size, slope = weight.norm(), gradient.norm()
            if size > 0 and slope > 0:
                trust = 0.001 * size / (slope + DECAY * size + 1e-8)
                gradient = (gradient + DECAY * weight) * trust
            self.velocity[name] = MOMENTUM * self.velocity[name] + gradient
            weight -= learning_rate(step) * self.velocity[name]

    def assert_equal(self, method: MultiCropMethod) -> None:
        """All weights agree but biases in front of a batch norm, whose gradient is rounding."""
        for name, weight in method.trained.named_parameters():
            if name not in ("network.features.0.bias", "heads.projection_head.0.bias"):
                expected = self.weights[name].detach().float()
                torch.testing.assert_close(weight.detach(), expected, rtol=1e-3, atol=1e-4)


def pixels_to_input(crop: np.ndarray) -> Tensor:
    """`(B, side, side, 3) uint8` → `(B, 3, side, side)`, with the published standard deviation."""
    x = (crop / 255 - [0.485, 0.456, 0.406]) / [0.228, 0.224, 0.225]
    return torch.from_numpy(x).permute(0, 3, 1, 2)


def standardised(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    mean = x.mean(dims, keepdim=True)
    return (x - mean) / (x.var(dims, correction=0, keepdim=True) + 1e-5).sqrt()


def codes_of(scores: np.ndarray) -> np.ndarray:
    """Three rounds: each prototype gets the same mass, then each sample."""
    mass = np.exp(scores / EPSILON)
    for _ in range(3):
        mass = mass / mass.sum(axis=0)
        mass = mass / mass.sum(axis=1)[:, None]
    return mass


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "toy", toy)


def test_swav() -> None:
    flags = f"--nmb_prototypes {K} --freeze_prototypes_niters {FROZEN} --queue_length {QUEUED}"
    args = parse(
        "swav", f"{SHARED} {flags} --epoch_queue_starts {QUEUE_STARTS} --epsilon {EPSILON}"
    )
    method, run = SwAV(args, COMPUTE), FakeRun(Crops())
    exact = Float64(method)
    prototypes = exact.weights["heads.prototypes.weight"]
    queue = np.zeros((2, 0, 6))  # newest first
    used, found = 0, np.full(IMAGES, -1)
    for step, index, crops, loss in steps_of(method, run):
        prototypes.data /= prototypes.data.norm(dim=1, keepdim=True)
        embedding = exact.embed(crops).unflatten(0, (4, BATCH))
        scores = embedding @ prototypes.T
        total = torch.zeros((), dtype=torch.float64)
        joined = queue.shape[1] == QUEUED
        used += joined
        for crop in (0, 1):
            own, older = scores[crop].detach().numpy(), queue[crop] @ prototypes.detach().numpy().T
            codes = codes_of(np.concatenate([own, older]) if joined else own)[:BATCH]
            for other in {0, 1, 2, 3} - {crop}:
                logs = (scores[other] / TEMPERATURE).log_softmax(dim=1)
                total = total - (torch.from_numpy(codes) * logs).sum(dim=1).mean() / 3 / 2
        assert loss == pytest.approx(total.item(), rel=1e-4), step
        if step >= PER_EPOCH * QUEUE_STARTS:
            newest = embedding[:2].detach().numpy()
            queue = np.concatenate([newest, queue], axis=1)[:, :QUEUED]
        if step % PER_EPOCH == 0:
            found[:] = -1
        found[index] = scores[0].argmax(dim=1).numpy()
        exact.update(total, step, "heads.prototypes" if step < FROZEN else "nothing")
    assert (step, used) == (9, 6)
    exact.assert_equal(method)
    state = method.state_dict()
    np.testing.assert_array_equal(state["assignment"].numpy(), found)
    assert (found == -1).sum() == IMAGES - PER_EPOCH * BATCH
    np.testing.assert_allclose(state["queue"].numpy(), queue.transpose(1, 0, 2), atol=1e-4)


def nearest(rows: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    return (rows @ centroids.T).argmax(axis=1)


def kmeans(rows: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ten updates of spherical k-means; an empty cluster keeps its centroid."""
    for _ in range(10):
        found = nearest(rows, centroids)
        for cluster in set(found):
            total = rows[found == cluster].sum(axis=0)
            centroids[cluster] = total / np.linalg.norm(total)
    return nearest(rows, centroids), centroids


def test_deepclusterv2() -> None:
    counts = (4, 5, 3)
    args = parse("deepclusterv2", f"{SHARED} --nmb_prototypes {' '.join(map(str, counts))}")
    method, run = DeepClusterV2(args, COMPUTE), FakeRun(Crops())
    exact = Float64(method)
    heads = [exact.weights[f"heads.prototypes.prototypes{head}.weight"] for head in range(3)]
    memory = np.zeros((2, IMAGES, 6))
    targets = np.zeros((3, IMAGES), np.int64)
    for step, index, crops, loss in steps_of(method, run):
        if step == 0:  # the pass before the first epoch; its last batch has 4 images again
            for number, (images, passed) in enumerate(run.passed):
                new = slice(0, 4 if number == 2 else 8)
                for crop in (0, 1):
                    alone = exact.embed([passed[crop]]).detach().numpy()
                    memory[crop, images[new]] = alone[new]
            assert sorted(np.concatenate([i for i, _ in run.passed])[:IMAGES]) == [*range(IMAGES)]
        if step % PER_EPOCH == 0:
            for head, count in enumerate(counts):
                rows = memory[head % 2]
                seed = derive_seed(args.seed, "spherical k-means", run.epoch, head)
                chosen = np.random.default_rng(seed).choice(IMAGES, count, replace=False)
                targets[head], centroids = kmeans(rows, rows[chosen])
                heads[head].data = torch.from_numpy(centroids)
            np.testing.assert_array_equal(method.state_dict()["targets"].numpy(), targets)
            np.testing.assert_array_equal(method.assignment, targets[0])
        embedding = exact.embed(crops)
        total = torch.zeros((), dtype=torch.float64)
        for head in range(3):
            logs = (embedding @ heads[head].T / TEMPERATURE).log_softmax(dim=1)
            own = torch.from_numpy(targets[head][index]).repeat(4)  # the same for each crop
            total = total - logs[range(4 * BATCH), own].mean() / 3
        assert loss == pytest.approx(total.item(), rel=1e-4), step
        exact.update(total, step, "heads.prototypes")
        memory[:, index] = embedding.detach().numpy().reshape(4, BATCH, 6)[:2]
    assert step == 9
    exact.assert_equal(method)
    kept = method.state_dict()["memory"]
    np.testing.assert_allclose(kept["rows"].numpy(), memory.transpose(1, 0, 2), atol=1e-4)
    assert kept["known"].all()
