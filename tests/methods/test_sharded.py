"""Sub-heads that are spread over processes, beside the same ones in one process."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ErrorLine
from runs import ROOT, Server
from sharded_heads import CLASSES, CLUSTERS, CPU, DIM, SEED, Net
from torch import Tensor

import main
from methods.sharded import ShardedHeads
from methods.two_level import TwoLevelHeads


def batch(images: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows `(B, D)` that are far from the usual size, and both targets `(B,)`. The third
    super-class has no row."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((images, DIM)).astype(np.float32) * 10
    supers, subs = rng.choice([0, 1, 3], images), rng.integers(CLUSTERS, size=images)
    return torch.from_numpy(rows), torch.from_numpy(supers), torch.from_numpy(subs)


def dense(rows: Tensor, *targets: Tensor) -> dict[str, np.ndarray]:
    """Losses `(B, 2)` and gradients of the mean over the batch, in one process in float64."""
    heads = TwoLevelHeads(DIM, CLASSES, CLUSTERS)
    heads.reset(SEED, 0, with_super=True)
    net = Net(heads).double()
    scores = net(rows.double(), targets[0])
    pairs = zip(scores, targets, strict=True)
    losses = torch.stack([-s.log_softmax(1).gather(1, t[:, None])[:, 0] for s, t in pairs])
    losses.sum(dim=0).mean().backward()
    gradients = {name: p.grad.numpy() for name, p in net.named_parameters() if p.grad is not None}
    return {"losses": losses.detach().T.numpy(), **gradients}


@pytest.mark.parametrize(
    ("shares", "half"), [([6, 6], False), ([4, 5, 0, 2], False), ([6, 6], True)]
)
def test_losses_and_gradients_are_those_of_one_process(
    shares: list[int], half: bool, server: Server, tmp_path: Path
) -> None:
    """Also where a process has no image, and 7 sub-classes are not even shares."""
    rows, supers, subs = batch(sum(shares))
    given, found = tmp_path / "given.npz", tmp_path / "found.npz"
    named: dict[str, Any] = {"rows": rows.numpy(), "super": supers.numpy(), "sub": subs.numpy()}
    np.savez(given, shares=shares, half=half, **named)
    script = ROOT / "tests" / "sharded_heads.py"
    server.run_script(script, [given, found], tmp_path / "run", ranks=len(shares))
    expected, results = dense(rows, supers, subs), np.load(found)
    assert set(results) == set(expected)
    for name, values in expected.items():
        limit = 5e-7 if name == "losses" else 1e-6
        assert results[name].dtype == np.float32
        if half:
            limit = 0.02 * np.abs(values).max()
        np.testing.assert_allclose(results[name], values, rtol=limit, atol=limit, err_msg=name)


def test_one_process_has_all_rows() -> None:
    rows, *targets = batch(9)
    heads, whole = (
        ShardedHeads(DIM, CLASSES, CLUSTERS, 9, CPU),
        TwoLevelHeads(DIM, CLASSES, CLUSTERS),
    )
    for each in (heads, whole):
        each.reset(SEED, 3, with_super=True)
    losses = heads.losses(heads(rows, targets[0]), *targets)
    expected = whole.losses(whole(rows, targets[0]), *targets)
    torch.testing.assert_close(losses, expected, rtol=5e-7, atol=5e-7)
    gradients, others = (
        torch.autograd.grad(each.sum(), [*by.sub.parameters(), by.super.weight])
        for each, by in ((losses, heads), (expected, whole))
    )
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-6, atol=1e-6)


def trained() -> ShardedHeads:
    """Heads after a step, which gives them momentum."""
    rows, *targets = batch(9)
    heads = ShardedHeads(DIM, CLASSES, CLUSTERS, 9, CPU)
    heads.reset(SEED, 0, with_super=True)
    heads.group({"lr": 0.1, "momentum": 0.9, "weight_decay": 0})
    heads.losses(heads(rows, targets[0]), *targets).sum().backward()
    heads.optimizer.step()
    return heads


@pytest.mark.parametrize("most", [2**31, 0])
def test_a_state_can_be_loaded_whole_and_in_slices(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("methods.sharded.WHOLE", most)
    heads = trained()
    plain = heads.to_plain()
    assert ("slices" in plain) == (most == 0)
    for name, part in plain.pop("slices", {}).items():  # as `training.slices` does
        plain[name] = {**plain[name], **part}
    other = ShardedHeads(DIM, CLASSES, CLUSTERS, 9, CPU)
    other.load_plain(plain)
    for one, two in ((heads.sub, other.sub), (heads.super, other.super)):
        for parameter, loaded in zip(one.parameters(), two.parameters(), strict=True):
            assert torch.equal(parameter, loaded)
    momenta, loaded_momenta = (dict(each._momenta()) for each in (heads, other))
    assert momenta.keys() == loaded_momenta.keys() == {"sub.weight", "sub.bias"}
    assert all(torch.equal(momenta[name], loaded_momenta[name]) for name in momenta)
    other.reset(SEED, 1, with_super=False)
    assert not dict(other._momenta()), "new heads are at rest"


FAULTS: dict[str, dict[str, Any]] = {
    "no rows": {"heads": {}},
    "flat rows": {"heads": {"sub.weight": torch.zeros(3)}},
    "rows of another width": {"heads": {"sub.weight": torch.zeros(CLASSES, CLUSTERS, DIM + 1)}},
    "half a momentum": {"momentum": {"sub.bias": torch.zeros(CLASSES, CLUSTERS)}},
    "a momentum of another width": {"momentum": {"sub.weight": torch.zeros(CLASSES, CLUSTERS, 1)}},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_state_that_does_not_fit_is_an_error(fault: str) -> None:
    plain = trained().to_plain()
    ((name, part),) = FAULTS[fault].items()
    plain[name] = {**plain[name], **part} if part and name == "heads" else part
    with pytest.raises(RuntimeError):
        ShardedHeads(DIM, CLASSES, CLUSTERS, 9, CPU).load_plain(plain)


def test_steps_that_could_differ_between_processes_are_bad_input(
    tree: Path, error_line: ErrorLine
) -> None:
    flags = "--method deepercluster --k 8 --batch 8 --shard_heads --precision fp16 --device cpu"
    line = error_line(main, tree, *flags.split())
    assert "--shard_heads: not with --precision fp16, in which each process would skip" in line
