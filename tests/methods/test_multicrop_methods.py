"""SwAV and DeepCluster-v2 as runs: they train, resume with the same bits, in several processes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ErrorLine
from PIL import Image
from runs import Server, assert_equal, contents_of, load_metrics, output_of

import main
from checkpoints.checkpoint import load_model, read_checkpoint
from cluster.sinkhorn import sinkhorn
from methods import swav
from models.heads import heads_for
from system.errors import Stopped
from training.run import Run

Train = Callable[..., Path]

CROPS = "--nmb_crops 2 2 --size_crops 32 16 --min_scale_crops 0.4 0.2 --max_scale_crops 1 0.4"
SMALL = f"{CROPS} --hidden_mlp 16 --feat_dim 8 --epochs 3 --lr 0.5"
METHODS = {
    "swav": f"--method swav {SMALL} --queue_length 16 --epoch_queue_starts 1 --epsilon 0.03",
    "deepclusterv2": f"--method deepclusterv2 {SMALL}",
}


@pytest.fixture(params=list(METHODS))
def flags(request: pytest.FixtureRequest) -> list[str]:
    return METHODS[request.param].split()


@pytest.mark.parametrize("number", [1, 2])
def test_a_run_resumed_within_an_epoch_has_the_same_bits(
    flags: list[str], number: int, tree: Path, train: Train
) -> None:
    whole = train(tree, *flags, exp="whole")
    cut = train(tree, *flags, "--checkpoints", "7", exp="cut")  # 5 steps an epoch
    middle = cut / "checkpoints" / f"checkpoint_{number}.pth.tar"
    assert read_checkpoint(middle)["step"] == 7 * number % 5
    train(tree, *flags, "--resume", str(middle), exp="cut")
    one, other = (contents_of(exp) for exp in (whole, cut))
    assert_equal(one, other, "checkpoint")


def test_a_run_stopped_after_its_last_step_has_the_same_bits(
    flags: list[str], tree: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the learning rate, which no step sets any more."""
    flags = [*flags, "--epochs", "1"]
    whole = train(tree, *flags, exp="whole")

    def stop(run: Run, assignment: np.ndarray) -> None:
        raise Stopped("a test")

    with monkeypatch.context() as patch:
        patch.setattr(Run, "finish", stop)
        cut = train(tree, *flags, exp="cut")
    train(tree, *flags, "--resume", str(cut / "checkpoint.pth.tar"), exp="cut")
    one, other = (contents_of(exp) for exp in (whole, cut))
    assert_equal(one, other, "checkpoint")
    kept = [exp / "assignments" / "prototypes.npy" for exp in (whole, cut)]
    assert kept[0].read_bytes() == kept[1].read_bytes()


def test_a_finished_run_goes_on_with_the_same_bits(
    flags: list[str], tree: Path, train: Train
) -> None:
    flags = [*flags, "--warmup_epochs", "1", "--final_lr", "0.5", "--start_warmup", "0.1"]
    whole = train(tree, *flags, exp="whole")
    cut = train(tree, *flags, "--epochs", "2", exp="cut")
    # with the same final rate as base rate, the schedule does not depend on the number of epochs
    train(tree, *flags, "--resume", str(cut / "checkpoint.pth.tar"), exp="cut")
    one, other = (contents_of(exp) for exp in (whole, cut))
    assert_equal(one["state_dict"], other["state_dict"], "weights")
    assert_equal(one["heads"], other["heads"], "heads")


def test_its_files_are_those_of_every_run(flags: list[str], tree: Path, train: Train) -> None:
    exp = train(tree, *flags, report=True)
    checkpoint = read_checkpoint(exp / "checkpoint.pth.tar")
    assert checkpoint["method"] == flags[1]
    heads = heads_for(checkpoint["heads"])
    model = load_model(exp / "checkpoint.pth.tar").eval()
    _, scores = heads.eval()(model(torch.zeros(1, 3, 32, 32)))
    assert [part.shape for part in scores] == [(1, 4)] * len(scores)
    for epoch in range(3):
        assignment = np.load(exp / "assignments" / f"epoch_{epoch:04d}.npy")
        assert assignment.shape == (40,)
        assert assignment.max() < 4
    lines = [json.loads(line) for line in (exp / "metrics.jsonl").read_text().splitlines()]
    assert [line["iterations"] for line in lines] == [5, 10, 15]
    assert all(line["nmi_labels"] is not None for line in lines)
    assert all(np.isfinite(line["window_loss"]) for line in lines)
    assert (exp / "report.html").read_text().rstrip().endswith("</html>")
    assert len(checkpoint["clusters"]["centroids"]) == 4


def test_the_learning_rate_follows_the_schedule(flags: list[str], tree: Path, train: Train) -> None:
    more = ["--warmup_epochs", "1", "--start_warmup", "0.1", "--final_lr", "0.01"]
    exp = train(tree, *flags, *more, "--checkpoints", "1")
    rates = []
    for number in range(1, 16):
        saved = read_checkpoint(exp / "checkpoints" / f"checkpoint_{number}.pth.tar")
        rates.append(saved["optimizer"]["param_groups"][0]["lr"])
    warmup = np.linspace(0.1, 0.5, 5)
    cosine = 0.01 + 0.49 * (1 + np.cos(np.pi * np.arange(10) / 10)) / 2
    np.testing.assert_allclose(rates, [*warmup, *cosine])


def write_noise(folder: Path) -> Path:
    """40 images without flat places, where the sign of a convolution would be rounding's."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(40):
        pixels = rng.integers(256, size=(40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return folder


def test_two_processes_train_as_one(flags: list[str], server: Server, tmp_path: Path) -> None:
    """Without batch norm, the steps are those of one process with the same global batches."""
    tree = write_noise(tmp_path / "images")
    plain = "--arch plain --sobel --k 4 --batch 8 --size 32 --device cpu --precision fp32"
    text = f"{plain} {' '.join(flags)} --hidden_mlp 0 --no-report"
    for name, ranks in (("one", 1), ("two", 2)):
        run = server.start(tree, tmp_path / name, ranks, flags=text)
        assert server.wait(run) == [0] * ranks, output_of(tmp_path / name)
    exps = [tmp_path / name / "exp" for name in ("one", "two")]
    one, two = (torch.load(exp / "checkpoint.pth.tar", weights_only=True) for exp in exps)
    for part in ("state_dict", "heads"):
        for name, weight in one[part].items():
            torch.testing.assert_close(two[part][name], weight, rtol=1e-4, atol=1e-6)
    assert torch.equal(one["assignment"], two["assignment"])
    found = [np.load(exp / "assignments" / "prototypes.npy") for exp in exps]
    assert (found[0] != found[1]).sum() <= 1, "an image between two may go to either"
    assert len(one["window"]) == 5, "the steps of an epoch"
    np.testing.assert_allclose(two["window"], one["window"], rtol=1e-4, atol=1e-5)
    signs = ("convnet_loss", "window_loss", "mean_cosine", "code_entropy")
    of_one, of_two = (
        [[line[name] for name in signs if name in line] for line in load_metrics(exp)]
        for exp in exps
    )
    np.testing.assert_allclose(of_two, of_one, rtol=1e-4, atol=1e-5)


def test_flags_that_do_not_fit(flags: list[str], tree: Path, error_line: ErrorLine) -> None:
    base = [tree, *flags, "--arch", "resnet18_small", "--size", "32", "--batch", "8"]
    line = error_line(main, *base, "--batch", "64")
    assert "--batch 64: more than the 40 images; only whole batches are trained on" in line
    assert "--crops_for_assign 4: crops are 0 to 3" in error_line(
        main, *base, "--crops_for_assign", "0", "4"
    )
    line = error_line(main, *base, "--nmb_prototypes", "41")
    assert "--nmb_prototypes 41: more clusters than the 40 images" in line
    line = error_line(main, *base, "--nmb_crops", "2")
    assert "--nmb_crops 2, --size_crops 32 16" in line


def test_queues_that_round_to_nothing(tree: Path, error_line: ErrorLine) -> None:
    base = [tree, *METHODS["swav"].split(), "--arch", "resnet18_small", "--size", "32"]
    line = error_line(main, *base, "--batch", "20", "--queue_length", "19")
    assert "--queue_length 19: less than one batch; give 20 (one batch) or more, or 0" in line


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_codes_and_embeddings_are_float32_in_half_precision(
    precision: str, tree: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def watched(scores: torch.Tensor, *more: Any) -> torch.Tensor:
        seen.extend([scores, sinkhorn(scores, *more)])
        return seen[-1]

    monkeypatch.setattr(swav, "sinkhorn", watched)
    for name, flags in METHODS.items():
        exp = train(tree, *flags.split(), "--precision", precision, exp=name)
        checkpoint = read_checkpoint(exp / "checkpoint.pth.tar")
        tensors = {**checkpoint["state_dict"], **checkpoint["heads"]}
        assert all(weight.dtype != torch.half for weight in tensors.values())
        assert all(np.isfinite(line["window_loss"]) for line in load_metrics(exp))
        rows = checkpoint["queue"] if name == "swav" else checkpoint["memory"]["rows"]
        torch.testing.assert_close(rows.norm(dim=2), torch.ones(rows.shape[:2]))
    assert len(seen) == 2 * 2 * 15
    assert {each.dtype for each in seen} == {torch.float32}
    assert all(each.isfinite().all() for each in seen)
