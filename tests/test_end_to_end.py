"""Whole runs of `main.py` on small trees of images."""

import itertools
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ErrorLine, tiny, write_images
from PIL import Image
from runs import assert_equal, assert_same_weights, load_clusters, load_metrics, without_times
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import main
from checkpoints.checkpoint import load_model, read_checkpoint
from cluster.sampler import ORDERS
from data.decode import MAX_PIXELS
from data.images import find_images
from data.loading import Batch
from data.transforms import central_crop, to_input
from methods import deepcluster
from methods.deepcluster import DeepCluster
from models import MODELS
from parallel.signals import Stopping
from system.device import select_compute
from system.errors import InputError
from system.normalisation import Std
from training.experiment import experiment_folder
from training.resume import set_up
from training.run import Run

Train = Callable[..., Path]


def test_a_run_writes_its_files(tree: Path, train: Train) -> None:
    folder = train(tree, "--epochs", "2", "--verbose", "--checkpoints", "4")

    clusters = load_clusters(folder)
    assert len(clusters) == 2
    for number, lists in enumerate(clusters):
        assert len(lists) == 4
        assert sorted(itertools.chain(*lists)) == list(range(40))
        assignment = np.load(folder / "assignments" / f"epoch_{number:04d}.npy")
        assert [np.flatnonzero(assignment == c).tolist() for c in range(4)] == lists

    first, second = load_metrics(folder)
    assert first["nmi_previous"] is None
    assert 0 <= second["nmi_previous"] <= 1
    assert 0 < second["nmi_labels"] <= 1
    assert second["ln_k"] == pytest.approx(np.log(4))
    assert second["iterations"] == 10
    sizes = sorted(len(members) for members in clusters[1] if members)
    assert second["nonempty_clusters"] == len(sizes)
    assert second["cluster_size"] == {
        "smallest": sizes[0], "median": np.median(sizes), "largest": sizes[-1],
    }  # fmt: skip
    assert set(second["seconds"]) == {"features", "clustering", "training"}

    checkpoint = read_checkpoint(folder / "checkpoint.pth.tar")
    assert {"epoch", "arch", "state_dict", "optimizer"} <= set(checkpoint)
    assert (checkpoint["epoch"], checkpoint["arch"]) == (2, "tiny")
    assert checkpoint["state_dict"]["top_layer.weight"].shape == (4, 32)
    numbered = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert numbered == ["checkpoint_1.pth.tar", "checkpoint_2.pth.tar"]
    assert load_model(folder / "checkpoint.pth.tar").sobel is not None
    assert checkpoint["clusters"]["centroids"].shape == (4, 3), "40 images"

    (events,) = (folder / "tensorboard").iterdir()
    accumulator = EventAccumulator(str(events)).Reload()
    logged = accumulator.Scalars("convnet_loss")
    assert [event.value for event in logged] == pytest.approx(
        [first["convnet_loss"], second["convnet_loss"]]
    )
    log = (folder / "log.txt").read_text()
    assert "NMI to the previous assignment" in log
    assert "to the labels" in log


def test_a_run_trains_the_network(tree: Path, train: Train) -> None:
    folder = train(tree, "--epochs", "1")
    trained = read_checkpoint(folder / "checkpoint.pth.tar")["state_dict"]
    args = main.parse_args(f"{tree} --arch tiny --sobel --k 4".split())
    compute = select_compute("cpu", "fp32")
    method = DeepCluster(args, compute)
    set_up(args, method, compute, None)
    start = method.network
    weight = start.get_parameter("features.4.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    for name, weight in start.state_dict().items():
        fixed = name.startswith("sobel")
        assert torch.equal(weight, trained[name]) == fixed, name


def test_every_step_is_sgd_at_one_rate_with_weight_decay_and_momentum(
    tree: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference: v ← m·v + g + wd·w, w ← w − lr·v. lr is the same in every epoch; the top layer
    has no momentum."""
    step = torch.optim.SGD.step
    velocity: dict[nn.Parameter, torch.Tensor] = {}
    counts = {0.9: 0, 0.0: 0}

    def checked(optimizer: torch.optim.SGD, closure: Any = None) -> None:
        (group,) = optimizer.param_groups
        momentum = 0.0 if len(group["params"]) == 2 else 0.9  # the top layer's weight and bias
        wanted = []
        for weight in group["params"]:
            slope = weight.grad + 0.01 * weight.detach()
            velocity[weight] = momentum * velocity.get(weight, 0) + slope
            wanted.append(weight.detach() - 0.02 * velocity[weight])
        step(optimizer)
        for weight, expected in zip(group["params"], wanted, strict=True):
            torch.testing.assert_close(weight.detach(), expected, rtol=1e-4, atol=1e-6)
        counts[momentum] += 1

    monkeypatch.setattr(torch.optim.SGD, "step", checked)
    train(tree, "--epochs", "3", "--lr", "0.02", "--wd", "-2", "--momentum", "0.9")
    assert counts == {0.9: 15, 0.0: 15}


def assert_same_run(whole: Path, resumed: Path) -> None:
    assert_same_weights(whole / "checkpoint.pth.tar", resumed / "checkpoint.pth.tar")
    assert load_clusters(whole) == load_clusters(resumed)
    assert without_times(whole) == without_times(resumed)


def test_a_run_cut_after_an_epoch_ends_with_the_same_weights(
    tree: Path, trained: Path, train: Train
) -> None:
    cut = train(tree, "--epochs", "1", "--workers", "2", exp="cut")
    resume = ["--resume", str(cut / "checkpoint.pth.tar")]
    train(tree, "--epochs", "2", "--workers", "1", *resume, exp="cut")
    assert_same_run(trained, cut)


def test_a_run_cut_within_an_epoch_ends_with_the_same_weights(
    tree: Path, trained: Path, train: Train
) -> None:
    cut = shutil.copytree(trained, trained.with_name("cut"))
    (cut / "checkpoint.pth.tar").unlink()
    midway = cut / "checkpoints" / "checkpoint_1.pth.tar"
    assert read_checkpoint(midway)["step"] == 2
    train(tree, "--epochs", "2", "--resume", str(midway), exp="cut")
    assert_same_run(trained, cut)


def test_a_run_cut_after_the_smaller_last_batch_of_an_epoch(tree: Path, train: Train) -> None:
    flags = ["--reassign", "0.7", "--checkpoints", "4"]  # 28 images in 4 batches of 8
    whole = train(tree, *flags, exp="whole")
    last = whole / "checkpoints" / "checkpoint_1.pth.tar"
    rest = train(tree, *flags, "--resume", str(last), exp="rest")
    assert load_metrics(rest)[0]["images_per_second"]["training"] == 0
    assert_same_weights(whole / "checkpoint.pth.tar", rest / "checkpoint.pth.tar")


def test_going_back_in_place_removes_later_files_and_names_them(
    tree: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the run stops again at once, `--resume auto` resumes from there."""
    flags = ["--checkpoints", "7", "--epochs"]
    folder = train(tree, *flags, "3", exp="exp")
    whole = folder.with_name("whole")
    shutil.copytree(folder, whole)
    early = folder / "checkpoints" / "checkpoint_1.pth.tar"
    assert (read_checkpoint(early)["epoch"], read_checkpoint(early)["step"]) == (1, 2)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(main, "train", stop)
        with pytest.raises(KeyboardInterrupt):
            train(tree, *flags, "3", "--resume", str(early))
    kept = ["assignments/epoch_0000.npy", "assignments/epoch_0001.npy", "checkpoints/" + early.name]
    gone = ["checkpoint.pth.tar", "checkpoint.previous.pth.tar", "checkpoints/checkpoint_2.pth.tar"]
    gone += ["assignments/epoch_0003.npy", "assignments/epoch_0002.npy"]
    for name in kept:
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    assert not any((folder / name).exists() for name in gone)
    said = "back to epoch 1, step 2 (checkpoint_1.pth.tar); removed: "
    (line,) = (line for line in (folder / "log.txt").read_text().splitlines() if said in line)
    assert set(line.split(said)[1].split(", ")) == set(gone)
    assert load_clusters(folder) == load_clusters(whole)[:1]
    assert [line["epoch"] for line in load_metrics(folder)] == [0]

    train(tree, *flags, "3", "--resume", "auto")
    assert_same_run(whole, folder)


def test_a_finished_run_continues_with_another_k(tree: Path, trained: Path, train: Train) -> None:
    resume = ["--resume", str(trained / "checkpoint.pth.tar")]
    train(tree, *resume, "--epochs", "3", "--k", "3", exp="trained")
    assert set(np.load(trained / "assignments" / "epoch_0002.npy")) == {0, 1, 2}
    assert [len(lists) for lists in load_clusters(trained)] == [4, 4, 3]
    assert (trained / "checkpoints" / "checkpoint_2.pth.tar").exists()
    assert "removed" not in (trained / "log.txt").read_text()


def test_the_saved_clusters_are_those_of_the_finished_network(tree: Path, trained: Path) -> None:
    """The saved network, PCA and centroids assign each image as the run's last assignment does."""
    checkpoint = read_checkpoint(trained / "checkpoint.pth.tar")
    model, clusters = load_model(trained / "checkpoint.pth.tar").eval(), checkpoint["clusters"]
    assert (clusters["algorithm"], clusters["epoch"]) == ("Kmeans", 2)
    images = find_images(tree)
    pixels = [central_crop(32)(Image.open(images.where(i))) for i in range(40)]
    with torch.no_grad():
        features = model.embedding(to_input(torch.stack(pixels), torch.device("cpu")))
    white = (features - clusters["pca_mean"]) @ clusters["pca_matrix"]
    white /= white.norm(dim=1, keepdim=True)
    nearest = torch.cdist(white, clusters["centroids"]).argmin(dim=1)
    np.testing.assert_array_equal(nearest, np.load(trained / "assignments" / "epoch_0002.npy"))


@pytest.mark.parametrize("old_report", [False, True])
def test_a_run_cut_before_its_report_gets_it(
    tree: Path, trained: Path, train: Train, capsys: pytest.CaptureFixture[str], old_report: bool
) -> None:
    page = trained / "report.html"
    whole = page.read_text()
    page.unlink()
    if old_report:
        page.write_text("of an epoch before")
        os.utime(page, (0, 0))
    (trained / ".report.html.abcd_123.tmp").touch()
    again = ["--epochs", "2", "--resume", "auto"]
    train(tree, *again, exp="trained", report=True)
    assert "nothing to do" in capsys.readouterr().out
    assert len(page.read_text()) == pytest.approx(len(whole), rel=0.01)
    assert not list(trained.glob(".*"))
    written = page.stat().st_mtime_ns
    train(tree, *again, exp="trained", report=True)
    assert page.stat().st_mtime_ns == written, "not written again"


def test_processes_that_see_different_files_do_not_start(
    tree: Path, trained: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.resume.gather_objects", lambda place: [place, None, (0, 7)])
    with pytest.raises(InputError, match=r"not at the same epoch/batch .* \(2/0, none, 0/7\)"):
        train(tree, "--resume", str(trained / "checkpoint.pth.tar"), "--epochs", "3")


def test_fp16_learns_like_fp32_and_resumes_with_its_loss_scale(
    tree: Path, trained: Path, train: Train
) -> None:
    flags = ["--epochs", "2", "--checkpoints", "7"]
    half = train(tree, *flags, "--precision", "fp16", exp="half")
    expected, losses = ([m["convnet_loss"] for m in load_metrics(f)] for f in (trained, half))
    assert losses == pytest.approx(expected, rel=0.02)
    assert losses != expected
    cut = half / "checkpoints" / "checkpoint_1.pth.tar"
    assert read_checkpoint(cut)["grad_scaler"]["scale"] > 1
    assert read_checkpoint(trained / "checkpoint.pth.tar")["grad_scaler"] == {}
    whole = shutil.copytree(half, half.with_name("whole"))
    train(tree, *flags, "--precision", "fp16", "--resume", str(cut), exp="half")
    assert_same_weights(whole / "checkpoint.pth.tar", half / "checkpoint.pth.tar")


def test_a_resumed_run_keeps_its_settings_and_logs_changed_ones(
    tree: Path, train: Train, tmp_path: Path
) -> None:
    folder = train(tree, "--lr", "0.02")
    resume = ["--resume", str(folder / "checkpoint.pth.tar")]
    args = main.parse_args([str(tree), *resume, "--epochs", "3"])
    assert (args.lr, args.nmb_cluster, args.arch, args.epochs) == (0.02, 4, "tiny", 3)
    assert args.exp is None
    train(tree, *resume, "--epochs", "2", "--lr", "0.03")
    assert "settings changed: lr 0.02 → 0.03, epochs 1 → 2" in (folder / "log.txt").read_text()


def test_a_checkpoint_does_not_lift_the_limit_of_an_images_size(tree: Path, train: Train) -> None:
    """The checkpoint may be from elsewhere. Only the flag raises the limit."""
    folder = train(tree, "--max-pixels", "999999999")
    resume = [str(tree), "--resume", str(folder / "checkpoint.pth.tar")]
    assert main.parse_args(resume).max_pixels == MAX_PIXELS
    assert main.parse_args([*resume, "--max-pixels", "999999999"]).max_pixels == 999999999
    lower = train(tree, "--max-pixels", "5000", exp="lower")
    assert main.parse_args([*resume[:2], str(lower / "checkpoint.pth.tar")]).max_pixels == 5000


def test_a_run_that_lacks_only_its_last_clustering_finishes_in_another_folder(
    tree: Path, trained: Path, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    """No epoch is left, so it writes no metrics."""
    previous = trained / "checkpoint.previous.pth.tar"
    other = train(tree, "--resume", str(previous), "--epochs", "2", exp="other")
    assert not (other / "metrics.jsonl").exists()
    assert capsys.readouterr().out.startswith("Done.\n  finished network  4 of 4")
    assert (other / "assignments" / "epoch_0002.npy").exists()
    assert_same_weights(trained / "checkpoint.pth.tar", other / "checkpoint.pth.tar")
    clusters, again = (
        read_checkpoint(exp / "checkpoint.pth.tar")["clusters"] for exp in (trained, other)
    )
    assert_equal(clusters, again, "clusters")


def test_pic_trains_and_resumes(tree: Path, train: Train) -> None:
    flags = ["--clustering", "PIC", "--nnn", "2", "--lr", "0.001", "--checkpoints", "7", "--epochs"]
    whole = train(tree, *flags, "2", exp="whole")
    for line, lists in zip(load_metrics(whole), load_clusters(whole), strict=True):
        assert line["kmeans_loss"] is None
        assert line["clusters"] == line["nonempty_clusters"] == len(lists)
        assert sorted(itertools.chain(*lists)) == list(range(40))
        assert len(lists) > 1
    saved = read_checkpoint(whole / "checkpoint.pth.tar")
    assert len(saved["state_dict"]["top_layer.weight"]) == len(lists)

    midway = whole / "checkpoints" / "checkpoint_1.pth.tar"
    other = train(tree, *flags, "2", "--resume", str(midway), exp="other")
    assert_same_weights(whole / "checkpoint.pth.tar", other / "checkpoint.pth.tar")


def test_resuming_into_a_new_folder_leaves_the_old_one_alone(
    tree: Path, trained: Path, train: Train
) -> None:
    def contents() -> dict[Path, bytes | None]:
        return {path: path.read_bytes() if path.is_file() else None for path in trained.rglob("*")}

    before = contents()
    new = train(tree, "--epochs", "3", "--resume", str(trained / "checkpoint.pth.tar"), exp="new")
    assert contents() == before
    assert [line["epoch"] for line in load_metrics(new)] == [2]


def test_a_released_checkpoint_can_be_resumed(
    tree: Path, trained: Path, train: Train, tmp_path: Path
) -> None:
    """The released files have the original's four keys, DataParallel's names and another number of
    outputs."""
    checkpoint = read_checkpoint(trained / "checkpoint.pth.tar")
    weights = checkpoint["state_dict"]
    weights["top_layer.weight"], weights["top_layer.bias"] = torch.ones(9, 32), torch.ones(9)
    renamed = {n.replace("features.", "features.module."): w for n, w in weights.items()}
    released = {n: checkpoint[n] for n in ("epoch", "arch", "optimizer")}
    torch.save({**released, "state_dict": renamed}, tmp_path / "released.pth.tar")
    folder = train(tree, "--epochs", "3", "--resume", str(tmp_path / "released.pth.tar"))
    assert [line["epoch"] for line in load_metrics(folder)] == [2]


def test_a_finished_run_has_nothing_to_do(
    tree: Path, trained: Path, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trained / "log.txt").read_text()
    train(tree, "--resume", str(trained / "checkpoint.pth.tar"), "--epochs", "2", exp="trained")
    assert "nothing to do: " in capsys.readouterr().out
    assert (trained / "log.txt").read_text() == before


def test_images_and_pseudo_labels_belong_together(
    tree: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each image's colour encodes its index. The targets of each batch are checked against the
    pixels that the network got."""
    shutil.rmtree(tree)
    tree.mkdir()
    for number in range(40):
        Image.new("RGB", (30, 30), (number * 6, 0, 0)).save(tree / f"{number:02d}.png")
    seen: list[tuple[int, int]] = []
    cross_entropy = torch.nn.functional.cross_entropy
    pixels: list[torch.Tensor] = []

    def remember_pixels(batch: torch.Tensor, device: torch.device, std: Std) -> torch.Tensor:
        pixels.append(batch)
        return to_input(batch, device, std)

    def remember_targets(
        logits: torch.Tensor, target: torch.Tensor, weights: None, reduction: str
    ) -> torch.Tensor:
        indices = [round(float(image[0].float().mean()) / 6) for image in pixels[-1]]
        seen.extend(zip(indices, target.tolist(), strict=True))
        return cross_entropy(logits, target, weights, reduction=reduction)

    monkeypatch.setattr(deepcluster, "to_input", remember_pixels)
    monkeypatch.setattr(deepcluster.F, "cross_entropy", remember_targets)
    for sampler in ORDERS:
        folder = train(tree, "--sampler", sampler, exp=sampler)
        (lists,) = load_clusters(folder)
        cluster_of = {image: c for c, members in enumerate(lists) for image in members}
        assert len(seen) == 40
        assert all(cluster_of[image] == target for image, target in seen)
        seen.clear()


@pytest.mark.parametrize("source", ["jpeg tree", "flat png", "list file"])
def test_every_kind_of_input_trains(source: str, tmp_path: Path, train: Train) -> None:
    paths = write_images(tmp_path / "data" / "a", 12) + write_images(tmp_path / "data" / "b", 12, 1)
    data = tmp_path / "data"
    if source == "jpeg tree":
        for path in paths:
            Image.open(path).save(path.with_suffix(".jpg"))
            path.unlink()
    elif source == "flat png":
        data = data / "a"
    else:
        data = tmp_path / "list.txt"
        data.write_text("".join(f"{path.relative_to(tmp_path)}\n" for path in paths))
    folder = train(data, "--reassign", "0.7")
    (line,) = load_metrics(folder)
    count = len(find_images(data))
    assert sum(len(members) for members in load_clusters(folder)[0]) == count
    assert line["iterations"] == -(-int(0.7 * count) // 8)
    assert (line["nmi_labels"] is None) == (source == "flat png")


def test_a_run_leaves_unreadable_images_out(tmp_path: Path, train: Train) -> None:
    write_images(tmp_path / "images", 120)
    (tmp_path / "images" / "050.png").write_bytes(b"no image")
    folder = train(tmp_path / "images", "--epochs", "2", "--reassign", "0.3")
    assert (folder / "bad_images.txt").read_text().startswith("050.png\t")
    assert (folder / "log.txt").read_text().count("050.png") == 1
    for lists in load_clusters(folder):
        assert sorted(itertools.chain(*lists)) == [i for i in range(120) if i != 50]
    assert load_metrics(folder)[1]["unreadable"] == 1


def test_too_many_unreadable_images_stop_the_run(tree: Path, train: Train) -> None:
    (tree / "a" / "003.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="1 of 40 images are unreadable, more than 1%"):
        train(tree)


def test_a_batch_without_readable_images_is_skipped(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    flags = f"--arch tiny --k 4 --sobel --size 32 --exp {tmp_path / 'exp'} --workers 0"
    args = main.parse_args([str(tree), *flags.split()])
    compute = select_compute("cpu", "fp32")
    method, images = DeepCluster(args, compute), find_images(tree)
    labels = torch.zeros(40, dtype=torch.int64)
    state = {"assignment": labels, "previous": labels, "clusters": None, "clustering_loss": 0.0}
    method.load_state_dict(state, with_heads=True)
    run = Run(args, images, method, compute, Stopping())
    empty = Batch(torch.empty(0, 3, 0, 0), torch.empty(0).long(), {})
    loader: Any = [empty]
    run.loaders.augmented = loader
    assert list(run.batches(np.arange(8))) == []
    assert (run.step, run.state.convnet_loss.count) == (1, 0)


BAD_INPUT = {
    "nowhere": "nowhere: no such folder or file",
    "{empty}": "no image in this folder",
    "{tree} --k 41": "--k 41: more clusters than the 40 images of",
    "{tree} --k 1": "argument --nmb_cluster/--k: '1' is not a whole number of 2 or more",
    "{tree} --batch 1": "argument --batch: '1' is not a whole number of 2 or more",
    "{tree} --arch lenet": "argument -a/--arch: invalid choice: 'lenet'",
    "{tree} --k 4 --exp {file}/exp": "cannot write there: Not a directory",
    "{tree} --k 4 --size 32 --resume {vgg}": "holds a network of --arch vgg16, not of alexnet",
    "{tree} --k 4 --sobel --resume {rgb}": "its network has no Sobel filters; leave out --sobel",
    "{tree} --k 4 --resume {file}": "not a checkpoint",
    "{tree} --k 4 --resume {rgb}": "its weights do not fit alexnet: missing: features.0.weight",
    "{tree} --k 4 --resume gone": "gone: cannot read this checkpoint: No such file or directory",
    "{tree} --k 4 --size 62": "--size 62: too small for alexnet; give 63 or more",
    "{tree} --k 4 --size 1180591620717411303424": "more than 16384 pixels a side; give less",
    "{tree} --k 4 --reassign 1e9": "--reassign 1e+09: of 40 images that would be more than 2,147,",
    "{tree} --k 4 --wd 1e-5": "--wd 1e-05: is an exponent of ten; give -5 for a weight decay of",
    "{tree} --k 4 --start_epoch 200": "--start_epoch 200: must be below --epochs 200",
    "{tree} --clustering PIC --nnn 40": "--nnn 40: each has only 39 neighbours among the 40 images",
    "{tree} --clustering PIC --sigma 0": "argument --sigma: '0' is not a number above 0",
    "{tree} --clustering PIC --alpha 1": "argument --alpha: '1' is not a number above 0 and",
    "{tree} --k 4 --kmeans_init best": "argument --kmeans_init: invalid choice: 'best'",
}


@pytest.mark.parametrize("flags", list(BAD_INPUT))
def test_bad_input_is_one_line_and_leaves_nothing(
    flags: str,
    tree: Path,
    tmp_path: Path,
    error_line: ErrorLine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = {name: tmp_path / name for name in ("empty", "file", "vgg", "rgb", "run")}
    names["empty"].mkdir()
    names["file"].write_text("hello")
    torch.save({"arch": "vgg16", "epoch": 1, "state_dict": {}}, names["vgg"])
    torch.save({"arch": "alexnet", "epoch": 1, "state_dict": {}}, names["rgb"])
    names["run"].mkdir()
    monkeypatch.chdir(names["run"])
    before = sorted(tmp_path.rglob("*"))
    assert BAD_INPUT[flags] in error_line(main, *flags.format(tree=tree, **names).split())
    assert sorted(tmp_path.rglob("*")) == before


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda checkpoint: checkpoint.pop(name)


def change(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda checkpoint: checkpoint.update(values)


def setting(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda checkpoint: checkpoint["settings"].update(values)


def change_momentum(checkpoint: dict[str, Any]) -> None:
    checkpoint["optimizer"]["state"][0]["momentum_buffer"] = torch.zeros(3)


def forget_momentum(checkpoint: dict[str, Any]) -> None:
    checkpoint["optimizer"]["state"][0] = {}


MALFORMED = {
    "no epoch": (without("epoch"), "its epoch is None"),
    "an epoch that is true": (change(epoch=True), "its epoch is True"),
    "no optimizer": (without("optimizer"), "its optimizer is missing or does not fit"),
    "a momentum's shape": (change_momentum, "its optimizer is missing or does not fit"),
    "a missing momentum": (forget_momentum, "its optimizer is missing or does not fit"),
    "a step that is true": (change(step=True), "its 'step' is missing or malformed"),
    "a probe in words": (change(knn_top1="good"), "its 'knn_top1' is missing or malformed"),
    "a probe of numbers": (change(knn_top1={1: 2}), "its place in the run is malformed"),
    "settings by number": (change(settings={1: 2}), "its settings are not a table of names and"),
    "an odd sampler": (
        setting(sampler="\x1b[2J"),
        r"its setting sampler is '\x1b[2J', which --samp",
    ),
    "no transforms": (setting(transforms=None), "its setting transforms is None, which --tran"),
    "a rate below 0": (setting(lr=-1), "its setting lr is -1, which --lr does not take"),
    "weights in words": (setting(reweight="yes"), "its setting reweight is 'yes', which --rewei"),
    "a huge number": (setting(reassign=2.0**70), "--reassign 1.18059e+21: of 40 images that"),
    "no iteration": (without("iteration"), "its 'iteration' is missing or malformed"),
    "no settings": (without("settings"), "its 'settings' is missing or malformed"),
    "empty settings": (change(settings={}), "was saved mid-epoch with --batch None"),
    "no clusters": (change(clusters=None), "its place in the run is malformed"),
    "labels too high": (change(assignment=torch.full((40,), 4)), "its place in the run is"),
    "labels of floats": (change(assignment=torch.zeros(40)), "its place in the run is malformed"),
    "a loss in words": (change(convnet_loss=["a", "b"]), "its place in the run is malformed"),
}


@pytest.mark.parametrize("fault", list(MALFORMED))
def test_a_malformed_checkpoint_is_bad_input(
    fault: str, tree: Path, trained: Path, train: Train, error_line: ErrorLine
) -> None:
    midway = trained / "checkpoints" / "checkpoint_1.pth.tar"
    checkpoint = read_checkpoint(midway)
    spoil, message = MALFORMED[fault]
    spoil(checkpoint)
    torch.save(checkpoint, midway)
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    flags = f"{tree} --arch tiny --sobel --k 4 --batch 8 --size 32 --workers 0 --resume {midway}"
    assert message in error_line(main, *flags.split())
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


@pytest.mark.parametrize(("flag", "value"), [("--batch", "4"), ("--seed", "5"), ("--k", "5")])
def test_some_settings_cannot_change_within_an_epoch(
    tree: Path, trained: Path, train: Train, flag: str, value: str
) -> None:
    midway = trained / "checkpoints" / "checkpoint_1.pth.tar"
    said = r"was saved mid-epoch with --\w+ \d+ and can't resume with"
    with pytest.raises(InputError, match=said):
        train(tree, "--resume", str(midway), flag, value)


def test_other_images_cannot_take_over_an_epochs_pseudo_labels(
    tree: Path, trained: Path, train: Train, tmp_path: Path
) -> None:
    midway = trained / "checkpoints" / "checkpoint_1.pth.tar"
    moved = shutil.copytree(tree, tmp_path / "moved")
    train(moved, "--resume", str(midway), "--epochs", "2", exp="of the same names")
    (moved / "a" / "000.png").rename(moved / "c" / "000 of a.png")
    said = r"can't resume with .*, whose images have other names or another order"
    with pytest.raises(InputError, match=said):
        train(moved, "--resume", str(midway), "--epochs", "2", exp="new")
    assert not (tmp_path / "new").exists()


def test_a_second_run_takes_a_new_folder(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    args = main.parse_args([str(tree)])
    assert [experiment_folder(args).name for _ in range(2)] == ["001", "002"]
    args.resume = Path("exp/001/checkpoints/checkpoint_3.pth.tar")
    assert experiment_folder(args) == Path("exp/001")


def test_without_verbose_only_the_summary_is_printed(
    tree: Path, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tree)
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith("Done.\n")
    for part in ("convnet loss", "NMI to the labels", "clusters not empty", "--resume"):
        assert part in captured.out
    assert not logging.getLogger("deepcluster").handlers


def test_a_checkpoint_without_a_method_resumes(tree: Path, trained: Path, train: Train) -> None:
    """A checkpoint saved before there were several methods is DeepCluster's."""
    cut = shutil.copytree(trained, trained.with_name("cut"))
    path = cut / "checkpoints" / "checkpoint_1.pth.tar"
    saved = torch.load(path, weights_only=True)
    assert saved.pop("method") == saved["settings"].pop("method") == "deepcluster"
    torch.save(saved, path)
    train(tree, "--resume", str(path), "--epochs", "2", "--checkpoints", "25000", exp="cut")
    assert_same_weights(trained / "checkpoint.pth.tar", cut / "checkpoint.pth.tar")


def test_a_checkpoint_of_another_method_is_bad_input(
    tree: Path, trained: Path, train: Train
) -> None:
    path = trained / "checkpoint.pth.tar"
    saved = torch.load(path, weights_only=True)
    torch.save({**saved, "method": "swav"}, path)
    with pytest.raises(InputError, match="holds a run of --method swav, not of deepcluster"):
        train(tree, "--resume", str(path), "--epochs", "3")
