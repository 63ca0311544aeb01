"""DeeperCluster and RotNet as runs: they train, resume with the same bits, in several processes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ErrorLine
from PIL import Image
from runs import Server, assert_equal, contents_of, load_metrics, output_of

import assign
import main
from checkpoints.checkpoint import read_checkpoint, untrained_of
from checkpoints.clusters import clusters_of
from checkpoints.folder import place_of
from cluster.quality import nmi

Train = Callable[..., Path]

SHARED = "--method deepercluster --epochs 4 --reassignment 3 --niter 3 --lr 0.02"
METHODS = {
    "deepercluster": f"{SHARED} --super_classes 8 --k 6",
    "rotnet": f"{SHARED} --super_classes 4 --k 1",
}


@pytest.fixture(params=list(METHODS))
def flags(request: pytest.FixtureRequest) -> list[str]:
    return METHODS[request.param].split()


def without_seconds(exp: Path) -> list[dict[str, Any]]:
    timed = ("seconds", "images_per_second", "peak_memory_gib")
    return [{n: v for n, v in line.items() if n not in timed} for line in load_metrics(exp)]


def test_a_run_resumed_within_a_period_has_the_same_bits(
    flags: list[str], tree: Path, train: Train
) -> None:
    """Five steps an epoch, clusters of epochs 0 and 3: from step 2 of epoch 1, and then, from the
    same folder, from the end of epoch 2."""
    whole = train(tree, *flags, exp="whole")
    cut = train(tree, *flags, "--checkpoints", "7", "--epochs", "2", exp="cut")
    middle = cut / "checkpoints" / "checkpoint_1.pth.tar"
    assert place_of(middle) == (1, 2)
    train(tree, *flags, "--resume", str(middle), "--epochs", "2", exp="cut")
    train(tree, *flags, "--resume", str(cut / "checkpoint.pth.tar"), "--epochs", "4", exp="cut")
    one, other = (contents_of(exp) for exp in (whole, cut))
    assert_equal(one, other, "checkpoint")
    assert without_seconds(whole) == without_seconds(cut)


def test_its_files_are_those_of_every_run(tree: Path, train: Train) -> None:
    exp = train(tree, *METHODS["deepercluster"].split(), report=True)
    path = exp / "checkpoint.pth.tar"
    checkpoint = read_checkpoint(path)
    assert {name: tuple(w.shape) for name, w in checkpoint["heads"].items()} == {
        "super.weight": (8, 32), "super.bias": (8,), "sub.weight": (8, 3, 32), "sub.bias": (8, 3),
    }  # fmt: skip
    clusters = clusters_of(checkpoint, path, 32)
    assert clusters is not None
    assert clusters.super_centroids is not None
    assert (len(clusters.super_centroids), len(clusters.centroids), clusters.epoch) == (2, 6, 4)
    assignments = [np.load(exp / "assignments" / f"epoch_{n:04d}.npy") for n in range(5)]
    assert all(set(each.tolist()) <= set(range(6)) for each in assignments)
    for within in (1, 2):
        np.testing.assert_array_equal(assignments[within], assignments[0])
    assert not np.array_equal(assignments[3], assignments[0])
    lines = load_metrics(exp)
    assert [line["iterations"] for line in lines] == [5, 10, 15, 20]
    for line in lines:
        total = line["super_loss"] + line["sub_loss"]
        assert line["convnet_loss"] == pytest.approx(total, rel=1e-5)
        assert 0 <= line["rotation_accuracy"] <= 1
        assert line["super_clusters"]["clusters"] == 2
        assert 0 <= line["super_clusters"]["nmi_labels"] <= 1
        assert line["clusters"] == 6
        assert line["ln_k"] == pytest.approx(np.log(8 * 3))
    previous = [line["nmi_previous"] for line in lines]
    assert previous[:3] == [None] * 3, "within a period, clusters stay the same"
    assert previous[3] == pytest.approx(nmi(assignments[3], assignments[0]))
    log = (exp / "log.txt").read_text()
    assert log.count("NMI to the previous assignment") == 1
    assert log.count("(guessing: ln S + ln K = 3.178)") == 4
    assert (exp / "report.html").read_text().rstrip().endswith("</html>")
    start = untrained_of(checkpoint, 0).state_dict()
    still = train(tree, *METHODS["rotnet"].split(), "--lr", "1e-12", exp="still")
    again = read_checkpoint(still / path.name)
    for name, weight in again["state_dict"].items():
        if weight.is_floating_point() and "running" not in name:
            torch.testing.assert_close(start[name], weight, atol=1e-6, rtol=0)


def test_rotnet_clusters_only_for_people(tree: Path, train: Train) -> None:
    exp = train(tree, *METHODS["rotnet"].split())
    note = (
        "note: --k 1: RotNet, which learns rotations; only the finished network gets clusters, 2: "
        "one for 20 images, and no more than 3000"
    )
    assert note in (exp / "log.txt").read_text()
    lines = load_metrics(exp)
    assert [line["seconds"]["features"] for line in lines] == [0.0] * 4
    assert [line["seconds"]["clustering"] for line in lines] == [0.0] * 4
    assert [line["super_clusters"] for line in lines] == [None] * 4
    log = (exp / "log.txt").read_text()
    assert "the clustering is trivial" not in log
    epochs = log[log.index(" epoch 0 ") : log.index("clusters of the finished network")]
    assert "–" not in epochs
    assert not any(word in epochs for word in ("cluster", "features", "NMI"))
    assert epochs.count(" (guessing: ln 4 = 1.386)\n") == epochs.count("unreadable: 0\n") == 4
    checkpoint = read_checkpoint(exp / "checkpoint.pth.tar")
    assert not checkpoint["assignment"].any()
    assert checkpoint["clusters"]["centroids"].shape == (2, 3)
    found = np.load(exp / "assignments" / "epoch_0004.npy")
    assert sorted(set(found.tolist())) == [0, 1]


def test_the_images_of_the_run_keep_their_clusters_in_assign(
    tree: Path, train: Train, tmp_path: Path, error_line: ErrorLine
) -> None:
    exp = train(tree, *METHODS["deepercluster"].split(), "--size_dataset", "32")
    model, out = exp / "checkpoint.pth.tar", tmp_path / "out.csv"
    command = [str(model), str(tree), "--out", str(out), "--device", "cpu", "--workers", "0"]
    assign.main(assign.parse_args([*command, "--precision", "fp32"]))
    found = [int(line.split(",")[1]) for line in out.read_text().splitlines()[1:]]
    assert len(found) == 40
    run = np.load(exp / "assignments" / "epoch_0004.npy")
    assert len(run) == 32
    assert found[:32] == run.tolist()
    line = error_line(assign, model, tree, "--prototypes")
    assert "holds no prototypes; only SwAV and DeepCluster-v2 have them" in line


def test_probes_need_no_clustering(tree: Path, train: Train) -> None:
    exp = train(tree, *METHODS["deepercluster"].split(), "--probe", "2")
    assert [line["knn_top1"] is not None for line in load_metrics(exp)] == [True, False] * 2


def write_noise(tree: Path, count: int) -> Path:
    """Images of which 007.png can't be read."""
    rng = np.random.default_rng(0)
    tree.mkdir()
    for number in range(count):
        Image.fromarray(rng.integers(256, size=(9, 9, 3), dtype=np.uint8)).save(
            tree / f"{number:03d}.png"
        )
    (tree / "007.png").write_bytes(b"no image")
    return tree


def test_rotnet_counts_unreadable_images(tmp_path: Path, train: Train) -> None:
    tree = write_noise(tmp_path / "images", 120)
    exp = train(tree, *METHODS["rotnet"].split(), "--batch", "24")
    found = [line["unreadable"] for line in load_metrics(exp)]
    assert found == [0, 1, 1, 1], "from the first epoch on that draws the image"


def test_fewer_readable_images_than_super_clusters(
    tmp_path: Path, train: Train, error_line: ErrorLine
) -> None:
    tree = write_noise(tmp_path / "images", 100)
    flags = (
        "--method deepercluster --rotnet false --super_classes 100 --k 100 --batch 100 --size 32"
    )
    few = "--arch tiny --workers 0 --device cpu --precision fp32"
    line = error_line(main, tree, *flags.split(), *few.split(), "--exp", tmp_path / "exp")
    assert line.endswith(
        f"--super_classes 100: 100 super-clusters, more than the 99 images of {tree} that can be "
        "read; give 99 at most"
    )


def test_unreadable_images_are_left_out_until_the_next_clustering(
    tmp_path: Path, train: Train
) -> None:
    tree = write_noise(tmp_path / "images", 120)
    flags = [*METHODS["deepercluster"].split(), "--batch", "24"]
    cut = train(tree, *flags, "--epochs", "1", exp="cut")
    exp = train(tree, *flags, "--epochs", "3", "--resume", str(cut / "checkpoint.pth.tar"),
                exp="cut")  # fmt: skip
    for epoch in range(4):
        assert np.load(exp / "assignments" / f"epoch_{epoch:04d}.npy")[7] == -1
    assert [line["unreadable"] for line in load_metrics(exp)] == [1, 1, 1]
    assert len((exp / "bad_images.txt").read_text().splitlines()) == 1
    Image.new("RGB", (9, 9)).save(tree / "007.png")
    train(tree, *flags, "--epochs", "4", "--resume", str(exp / "checkpoint.pth.tar"), exp="cut")
    assert load_metrics(exp)[3]["unreadable"] == 0
    assert not (exp / "bad_images.txt").exists()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision(precision: str, tree: Path, train: Train) -> None:
    exp = train(tree, *METHODS["deepercluster"].split(), "--precision", precision)
    heads = read_checkpoint(exp / "checkpoint.pth.tar")["heads"]
    assert {weight.dtype for weight in heads.values()} == {torch.float32}
    assert all(np.isfinite(line["convnet_loss"]) for line in load_metrics(exp))


def write_kinds(folder: Path) -> None:
    """40 noisy images on four grounds."""
    grounds, rng = [(20, 20, 20), (235, 235, 235), (220, 30, 30), (30, 30, 220)], None
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(40):
        pixels = np.array(grounds[number % 4]) + rng.integers(-20, 21, size=(40, 40, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02d}.png")


def test_several_processes_train_as_one(flags: list[str], server: Server, tmp_path: Path) -> None:
    """Without batch norm, the steps are those of one process with the same global batches. A batch
    of 8 super-classes has two images of each, fewer than four processes."""
    write_kinds(tmp_path / "images")
    plain = "--arch plain --batch 16 --size 32 --device cpu --precision fp32 --no-report"
    text = f"{plain} {' '.join(flags)} --k {4 if '6' in flags else 1}"
    for ranks in (1, 2, 4):
        run = server.start(tmp_path / "images", tmp_path / str(ranks), ranks, flags=text)
        assert server.wait(run) == [0] * ranks, output_of(tmp_path / str(ranks))
    alone, *others = (tmp_path / str(ranks) / "exp" for ranks in (1, 2, 4))
    expected = torch.load(alone / "checkpoint.pth.tar", weights_only=True)
    for exp in others:
        found = torch.load(exp / "checkpoint.pth.tar", weights_only=True)
        for part in ("state_dict", "heads"):
            for name, weight in expected[part].items():
                torch.testing.assert_close(found[part][name], weight, rtol=1e-4, atol=1e-6)
        for epoch in range(5):
            name = f"assignments/epoch_{epoch:04d}.npy"
            np.testing.assert_array_equal(np.load(alone / name), np.load(exp / name))
        for one, other in zip(load_metrics(alone), load_metrics(exp), strict=True):
            for name in ("convnet_loss", "super_loss", "sub_loss"):
                assert other[name] == pytest.approx(one[name], rel=1e-4, abs=1e-7)
            assert other["rotation_accuracy"] == one["rotation_accuracy"]


def test_two_processes_resume_within_an_epoch_with_the_same_bits(
    server: Server, tmp_path: Path
) -> None:
    write_kinds(tmp_path / "images")
    plain = "--arch plain --batch 8 --size 32 --device cpu --precision fp32 --no-report"
    text = f"{plain} {METHODS['deepercluster']} --epochs 2"
    for name, more in (("whole", []), ("cut", ["--checkpoints", "7"])):
        run = server.start(tmp_path / "images", tmp_path / name, 2, flags=text, more=more)
        assert server.wait(run) == [0, 0], output_of(tmp_path / name)
    cut = tmp_path / "cut" / "exp"
    for name in ("checkpoint.pth.tar", "checkpoint.previous.pth.tar"):
        (cut / name).unlink()
    run = server.start(tmp_path / "images", tmp_path / "cut", 2, flags=text)
    assert server.wait(run) == [0, 0], output_of(tmp_path / "cut")
    exps = tmp_path / "whole" / "exp", cut
    one, other = (contents_of(exp) for exp in exps)
    assert_equal(one, other, "checkpoint")
    assert without_seconds(exps[0]) == without_seconds(exps[1])
