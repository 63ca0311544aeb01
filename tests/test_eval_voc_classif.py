"""VOC 2007 classification against plain torch, scikit-learn, and cases computed by hand."""

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ErrorLine, tiny
from PIL import Image
from sklearn.metrics import average_precision_score
from torch import nn
from voc_tree import write_voc

import eval_voc_classif
from checkpoints.checkpoint import load_model, network_entries, save_checkpoint
from data.loading import Draw, ImageDataset
from data.transforms import apply_seeded, object_crop, ten_crops, to_input
from data.voc import CLASSES, VocSplit, find_voc
from eval_voc_classif import evaluate, score_images
from evaluation import finetuning
from evaluation.finetuning import (
    class_scores,
    draw_order,
    renew_classifier,
    trained_parameters,
)
from evaluation.multilabel import average_precisions, multilabel_loss
from evaluation.voc import Settings, in_words, settings_of
from models import MODELS, ConvNet
from system.cores import allowed_cores
from system.device import Compute, select_compute
from system.errors import InputError
from system.seeding import derive_seed

ROOT = Path(__file__).parent.parent
CPU = select_compute("cpu", "fp32")
QUICK = Settings(nit=5, stepsize=2, lr=0.05, wd=1e-3, batch=4, size=32)

CONVOLUTIONS = {f"features.{n}.{kind}" for n in (0, 4) for kind in ("weight", "bias")}
NORMS = {f"features.{n}.{kind}" for n in (1, 5) for kind in ("weight", "bias")}
CLASSIFIER = {
    f"{n}.{kind}" for n in ("classifier.1", "classifier.4") for kind in ("weight", "bias")
}
TOP = {"top_layer.weight", "top_layer.bias"}


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    return write_voc(tmp_path, train=20, val=20)


@pytest.fixture
def splits(voc: Path) -> tuple[VocSplit, VocSplit]:
    return find_voc(voc, "train"), find_voc(voc, "val")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> ConvNet:
    """A network with random batch norm statistics."""
    monkeypatch.setitem(MODELS, "tiny", tiny)
    torch.manual_seed(0)
    network = tiny(sobel=True, out=7)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            nn.init.uniform_(buffer, -0.5, 0.5)
        elif name.endswith("running_var"):
            nn.init.uniform_(buffer, 0.2, 2)
    return network


@pytest.fixture
def saved(model: ConvNet, tmp_path: Path) -> Path:
    state = {"epoch": 1, "arch": "tiny", "state_dict": model.state_dict()}
    save_checkpoint(tmp_path / "tiny.pth.tar", state)
    return tmp_path / "tiny.pth.tar"


def fine_tuned(
    model: ConvNet, train: VocSplit, settings: Settings, seed: int = 31, compute: Compute = CPU
) -> finetuning.Run:
    run = finetuning.begin(model, settings, seed, compute)
    finetuning.fine_tune(run, train, settings, seed, compute, 0, lambda: None, lambda done: None)
    return run


def test_the_loss_leaves_out_difficult_classes() -> None:
    scores = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]], requires_grad=True)
    targets = torch.tensor([[1, -1, 0], [-1, 0, 1]], dtype=torch.int8)
    loss = multilabel_loss(scores, targets)
    by_hand = np.log1p(np.exp([-2.0, -1.0, 0.0, -1.0])).sum() / 2
    assert loss.item() == pytest.approx(by_hand)
    loss.backward()
    assert scores.grad is not None
    assert (scores.grad == 0).tolist() == [[False, False, True], [False, True, False]]


def test_the_order_is_a_series_of_permutations() -> None:
    order = draw_order(10, 35, seed=1)
    assert len(order) == 35
    passes = order[:30].reshape(3, 10)
    assert (np.sort(passes) == np.arange(10)).all()
    assert len({tuple(row) for row in passes.tolist()}) == 3
    assert (draw_order(10, 23, seed=1) == order[:23]).all()
    assert (draw_order(10, 35, seed=2) != order).any()


def test_a_new_classifier_has_new_linear_layers_only() -> None:
    network, other = tiny(), tiny()
    before = copy.deepcopy(network.features.state_dict())
    renew_classifier(network, 20, seed=3)
    renew_classifier(other, 20, seed=4)
    assert isinstance(network.top_layer, nn.Linear)
    assert isinstance(other.top_layer, nn.Linear)
    for layer in (network.classifier[1], network.classifier[4], network.top_layer):
        assert isinstance(layer, nn.Linear)
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.1)
        assert (layer.bias == 0.1).all()
    assert len(network.top_layer.weight) == 20
    assert not network.top_layer.weight.equal(other.top_layer.weight)
    assert all(t.equal(before[name]) for name, t in network.features.state_dict().items())


@pytest.mark.parametrize(
    ("fc6_8", "train_batchnorm", "trained"),
    [
        (True, False, CLASSIFIER | TOP),
        (True, True, CLASSIFIER | TOP | NORMS),
        (False, False, CLASSIFIER | TOP | CONVOLUTIONS),
        (False, True, CLASSIFIER | TOP | CONVOLUTIONS | NORMS),
    ],
)
def test_flags_choose_the_trained_parameters(
    model: ConvNet,
    splits: tuple[VocSplit, VocSplit],
    fc6_8: bool,
    train_batchnorm: bool,
    trained: set[str],
) -> None:
    settings = replace(QUICK, fc6_8=fc6_8, train_batchnorm=train_batchnorm)
    assert set(trained_parameters(model, not fc6_8, train_batchnorm)) == trained
    start = finetuning.begin(model, settings, 31, CPU).network.state_dict()
    after = fine_tuned(model, splits[0], settings).network.state_dict()
    changed = {name for name, tensor in after.items() if not tensor.equal(start[name])}
    assert changed == trained
    above = CLASSIFIER | TOP
    assert all(t.equal(start[name]) for name, t in model.state_dict().items() if name not in above)


def test_fine_tuning_equals_plain_torch(model: ConvNet, splits: tuple[VocSplit, VocSplit]) -> None:
    """All weights are trained, and some gradients are large enough to be clipped."""
    for module in model.classifier:
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model.state_dict()["features.5.weight"].mul_(30)
    settings = replace(QUICK, fc6_8=False, train_batchnorm=True)
    train = splits[0]
    ours = fine_tuned(model, train, settings)

    network = copy.deepcopy(model)
    renew_classifier(network, 20, 31)
    network.eval()
    weights = [p for n, p in network.named_parameters() if not n.startswith("sobel.")]
    optimizer = torch.optim.SGD(weights, lr=settings.lr, momentum=0.9, weight_decay=settings.wd)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    crops = ImageDataset(train.images, object_crop(32, 0.1, 0.5), seed=31)
    order = draw_order(20, 20, 31)
    losses, norms = [], []
    for iteration in range(5):
        positions = range(4 * iteration, 4 * iteration + 4)
        pixels = [crops[Draw(int(order[at]), 0, at)][1] for at in positions]
        scores = network(to_input(torch.stack(pixels), torch.device("cpu")))  # type: ignore[arg-type]
        target = torch.from_numpy(train.targets[order[list(positions)]])
        elements = F.softplus(-scores * target) * (target != 0)
        loss = elements.sum() / 4
        optimizer.zero_grad()
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(weights, 10).item())
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    assert min(norms) < 10 < max(norms), "else clipping is not tested"
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(ours.network.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)
    expected = [np.mean(losses[:2]), np.mean(losses[2:4]), losses[4]]
    assert ours.losses(settings) == pytest.approx(expected, rel=1e-4)


def test_dropout_differs_in_each_iteration_and_is_off_in_tests(
    model: ConvNet, splits: tuple[VocSplit, VocSplit]
) -> None:
    seen = []

    def look(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        seen.append((module.training, (output == 0).flatten().tolist()))

    settings = replace(QUICK, lr=1e-6)
    run = finetuning.begin(model, settings, 31, CPU)
    run.network.state_dict()["classifier.1.weight"].zero_()  # only dropout then gives a 0
    run.network.classifier[3].register_forward_hook(look)
    finetuning.fine_tune(run, splits[0], settings, 31, CPU, 0, lambda: None, lambda done: None)
    score_images(run.network, splits[0], settings, 31, CPU, workers=0)
    masks = [tuple(dropped) for training, dropped in seen if training]
    assert len(set(masks)) == len(masks) == 5
    assert not any(any(dropped) for training, dropped in seen if not training)
    assert [training for training, _ in seen[5:]] == [False] * 5


def test_average_precision_leaves_out_difficult_images() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(50, 20)).astype(np.float32)
    targets = rng.integers(-1, 2, size=(50, 20)).astype(np.int8)
    found = average_precisions(scores, targets)
    for of_class, name in enumerate(CLASSES):
        known = targets[:, of_class] != 0
        expected = average_precision_score(targets[known, of_class] > 0, scores[known, of_class])
        assert found["AP"][name] == pytest.approx(expected)
    assert found["mAP"] == pytest.approx(np.mean(list(found["AP"].values())))


def test_ties_count_against_the_network() -> None:
    targets = np.full((4, 20), -1, np.int8)
    targets[0] = 1
    targets[1, 1] = 0
    found = average_precisions(np.zeros((4, 20), np.float32), targets)["AP"]
    assert found["aeroplane"] == pytest.approx(1 / 4)
    assert found["bicycle"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("random", [True, False])
def test_scores_are_summed_over_ten_crops(
    model: ConvNet, splits: tuple[VocSplit, VocSplit], random: bool
) -> None:
    renew_classifier(model, 20, 5)
    val = splits[1]
    settings = replace(QUICK, eval_random_crops=random)
    scores = score_images(model, val, settings, 7, CPU, workers=0)
    assert scores.shape == (20, 20)
    model.eval()
    for index in (0, 13):
        image = torch.from_numpy(np.array(_open(val, index))).permute(2, 0, 1)
        if random:
            with torch.random.fork_rng():
                torch.manual_seed(derive_seed(7, "crop", 1, index))
                crops = torch.stack([object_crop(32, 0.1, 0.5)(image) for _ in range(10)])
        else:
            crops = apply_seeded(ten_crops(32), image, 0)
        assert len({tuple(crop.flatten().tolist()) for crop in crops}) == 10
        with torch.no_grad():
            one_by_one = [model(to_input(crop[None], torch.device("cpu"))) for crop in crops]
        np.testing.assert_allclose(scores[index], sum(one_by_one)[0], rtol=1e-4, atol=1e-5)


def _open(split: VocSplit, index: int) -> Image.Image:
    return Image.open(split.images.where(index)).convert("RGB")


def test_scores_are_float32_under_bf16(model: ConvNet) -> None:
    renew_classifier(model, 20, 5)
    x = torch.randn(8, 3, 32, 32)
    with select_compute("cpu", "bf16").autocast(), torch.no_grad():
        scores = class_scores(model.eval(), x)
        assert model(x).dtype == torch.bfloat16
    assert scores.dtype == torch.float32
    assert not scores.equal(scores.bfloat16().float())


class CutError(Exception):
    pass


@pytest.mark.parametrize("saves", [1, 3])
def test_an_interrupted_run_resumes_with_the_same_bits(
    model: ConvNet,
    splits: tuple[VocSplit, VocSplit],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    saves: int,
) -> None:
    monkeypatch.setattr(finetuning, "SECONDS_BETWEEN_SAVES", 0.0)
    settings = replace(QUICK, fc6_8=False, train_batchnorm=True)
    for name in ("uncut", "cut"):
        (tmp_path / name).mkdir()
    whole = evaluate(model, *splits, settings, compute=CPU, workers=0, folder=tmp_path / "uncut")

    save, left = finetuning.Run.save, iter(range(saves))

    def save_some(run: finetuning.Run, path: Path, identity: dict[str, Any]) -> None:
        if next(left, None) is None:
            raise CutError
        save(run, path, identity)

    def again(workers: int) -> dict[str, Any]:
        folder = tmp_path / "cut"
        return evaluate(model, *splits, settings, compute=CPU, workers=workers, folder=folder)

    monkeypatch.setattr(finetuning.Run, "save", save_some)
    with pytest.raises(CutError):
        again(workers=0)
    monkeypatch.setattr(finetuning.Run, "save", save)
    assert torch.load(tmp_path / "cut" / "seed_31.pth.tar")["iteration"] == saves
    assert again(workers=1) == whole
    uncut, cut_once = (load_model(tmp_path / n / "seed_31.pth.tar") for n in ("uncut", "cut"))
    for name, tensor in uncut.state_dict().items():
        assert tensor.equal(cut_once.state_dict()[name]), name


def test_a_finished_seed_is_not_run_again(
    model: ConvNet,
    splits: tuple[VocSplit, VocSplit],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = replace(QUICK, nit=2)
    options: dict[str, Any] = {"compute": CPU, "workers": 0, "folder": tmp_path}
    first = evaluate(model, *splits, settings, [31], **options)
    trained: list[int] = []
    fine_tune = finetuning.fine_tune

    def count(run: Any, train: Any, settings: Any, seed: int, *rest: Any) -> None:
        trained.append(seed)
        fine_tune(run, train, settings, seed, *rest)

    monkeypatch.setattr(eval_voc_classif, "fine_tune", count)
    both = evaluate(model, *splits, settings, [31, 32], **options)
    assert trained == [32]
    assert both["runs"][0] == first["runs"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("lr", r"was made with other settings \(lr 0.05 → 0.1\); give another --exp"),
        ("weights", r"was made with other settings \(weights of SHA-256 "),
        ("labels", r"was made with other settings \(images and labels of SHA-256 "),
    ],
)
def test_a_folder_with_another_run_is_an_error(
    model: ConvNet, splits: tuple[VocSplit, VocSplit], tmp_path: Path, change: str, message: str
) -> None:
    options: dict[str, Any] = {"compute": CPU, "workers": 0, "folder": tmp_path}
    settings = replace(QUICK, nit=1)
    evaluate(model, *splits, settings, **options)
    if change == "lr":
        settings = replace(settings, lr=0.1)
    elif change == "weights":
        model.state_dict()["features.0.bias"][0] += 1
    else:
        splits[1].targets[0, 5] = 0
    with pytest.raises(InputError, match=rf"seed_31.pth.tar: {message}"):
        evaluate(model, *splits, settings, **options)


def test_a_malformed_state_is_an_error(
    model: ConvNet, splits: tuple[VocSplit, VocSplit], tmp_path: Path
) -> None:
    settings = replace(QUICK, nit=1)
    options: dict[str, Any] = {"compute": CPU, "workers": 0, "folder": tmp_path}
    evaluate(model, *splits, settings, **options)
    path = tmp_path / "seed_31.pth.tar"
    state = torch.load(path)
    assert "optimizer" not in state, "half the size, once it is finished"
    torch.save({**state, "results": None}, path)
    with pytest.raises(InputError, match="is damaged; give another --exp"):
        evaluate(model, *splits, settings, **options)


def test_several_seeds_give_mean_and_deviation(
    model: ConvNet, splits: tuple[VocSplit, VocSplit]
) -> None:
    settings = replace(QUICK, nit=2)
    options: dict[str, Any] = {"compute": CPU, "workers": 0}
    before = copy.deepcopy(model.state_dict())
    alone = evaluate(model, *splits, settings, [6], **options)
    several = evaluate(model, *splits, settings, [5, 6, 7], **options)
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    assert all(p.requires_grad for p in model.features.parameters())
    assert several["runs"][1] == alone["runs"][0], "runs do not depend on each other"
    assert alone["test"]["mAP_std"] is None
    for split in ("train", "test"):
        maps = [run[split]["mAP"] for run in several["runs"]]
        assert len(set(maps)) > 1
        assert several[split]["mAP"] == pytest.approx(sum(maps) / 3)
        squares = sum((m - sum(maps) / 3) ** 2 for m in maps)
        assert several[split]["mAP_std"] == pytest.approx((squares / 2) ** 0.5)
        cats = [run[split]["AP"]["cat"] for run in several["runs"]]
        assert several[split]["AP"]["cat"] == pytest.approx(np.mean(cats))
        assert several[split]["AP_std"]["cat"] == pytest.approx(np.std(cats, ddof=1))


@pytest.mark.parametrize("what", ["features.0.weight", "features.1.running_mean", "sobel.1.weight"])
def test_a_change_of_a_frozen_part_is_noticed(
    model: ConvNet,
    splits: tuple[VocSplit, VocSplit],
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    def nudge(run: finetuning.Run, *_: Any) -> None:
        run.network.state_dict()[what].mul_(1.001)

    monkeypatch.setattr(eval_voc_classif, "fine_tune", nudge)
    with pytest.raises(RuntimeError, match=f"the frozen network has changed: {what}$"):
        evaluate(model, *splits, QUICK, compute=CPU, workers=0)


def command(voc: Path, saved: Path, *flags: str) -> list[str]:
    quick = "--nit 2 --batch 4 --size 32 --workers 0 --device cpu --precision fp32"
    return ["--vocdir", str(voc), "--model", str(saved), *quick.split(), *flags]


def run_script(voc: Path, saved: Path, *flags: str) -> None:
    eval_voc_classif.main(eval_voc_classif.parse_args(command(voc, saved, *flags)))


def test_colours_are_learned_and_the_result_file_is_complete(
    tmp_path: Path, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    voc = write_voc(tmp_path / "colours", trainval=40, test=20)
    flags = "--split trainval --nit 150 --batch 16 --stepsize 100 --lr 0.02 --min_scale 0.5"
    no_sobel = save_without_sobel(tmp_path)
    switches = "--fc6_8 0 --train_batchnorm 1 --max_scale 1 --eval_random_crops 0"
    run_script(voc, no_sobel, *flags.split(), *switches.split())
    result = json.loads((tmp_path / "voc_all_trainval" / "voc_classif.json").read_text())
    assert result["results"]["test"]["mAP"] > 0.5, "chance is about 0.1"
    assert result["results"]["train"]["mAP"] > 0.5
    loss = result["results"]["runs"][0]["loss"]
    assert len(loss) == 2
    assert loss[1] < 0.7 * loss[0]
    assert result["settings"]["seeds"] == [31]
    assert result["settings"]["precision"] == "fp32"
    assert "trained on trainval, tested on test" in result["protocol"]
    assert "150 iterations of 16 images" in result["protocol"]
    assert "torch" in result["versions"]
    out = capsys.readouterr().out
    assert "trained: features.0.weight, features.0.bias, features.1.weight" in out
    assert "frozen: batch norm's statistics" in out
    assert f"mean{100 * result['results']['train']['mAP']:26.1f}" in out


def save_without_sobel(folder: Path) -> Path:
    torch.manual_seed(0)
    weights = tiny().state_dict()
    weights["features.5.weight"].fill_(5)  # few iterations are then enough
    save_checkpoint(folder / "colour.pth.tar", {"arch": "tiny", "state_dict": weights})
    return folder / "colour.pth.tar"


def remove_split(voc: Path) -> None:
    (voc / "ImageSets" / "Main" / "sofa_val.txt").unlink()


def damage(name: str) -> Callable[[Path], None]:
    def spoil(voc: Path) -> None:
        (voc / "JPEGImages" / name).write_bytes(b"no image")

    return spoil


def forget_sheep(voc: Path) -> None:
    path = voc / "ImageSets" / "Main" / "sheep_val.txt"
    path.write_text(path.read_text().replace(" 1\n", " 0\n"))


@pytest.mark.parametrize(
    ("spoil", "flags", "message"),
    [
        (shutil.rmtree, "", "{voc}: not PASCAL VOC 2007: no ImageSets/Main"),
        (remove_split, "", "sofa_val.txt: cannot read this annotation: No such file or directory"),
        (None, "--split test", "argument --split: invalid choice: 'test'"),
        (None, "--split trainval", "aeroplane_trainval.txt: cannot read this annotation"),
        (
            damage("000011.jpg"),
            "--nit 5",
            "{voc}/JPEGImages/000011.jpg: cannot read this image: cannot identify image file",
        ),
        (damage("000031.jpg"), "", "{voc}/JPEGImages/000031.jpg: cannot read this image: "),
        (
            forget_sheep,
            "",
            "none of the 20 images that are tested on shows the class sheep, so that it has no ",
        ),
        (None, "--model gone.tar", "gone.tar: cannot read this checkpoint: No such file"),
        (
            None,
            "--min_scale 0.6",
            "--min_scale 0.6 --max_scale 0.5: give parts of the image's area, the smaller first",
        ),
        (
            None,
            "--max_scale 1.5",
            "--min_scale 0.1 --max_scale 1.5: give parts of the image's area",
        ),
        (None, "--seeds 31 32 31", "--seeds 31 32 31: one is given twice"),
        (None, "--size 3", "--size 3: too small for tiny; give 13 or more"),
        (
            None,
            "--sobel2rgb --model {colour}",
            "--sobel2rgb: tiny has no Sobel filters here; leave",
        ),
        (None, "--fc6_8 2", "argument --fc6_8: invalid choice: 2"),
        (None, "--wd 2", "argument --wd: '2' is not a number from 0 to below 1"),
        (None, "--exp {voc}/ImageSets/Main/cat_val.txt", "cannot write there: File exists"),
        (None, "--lr 1e30", "the loss became nan in iteration 1; try a lower --lr"),
    ],
)
def test_bad_input_is_one_line(
    voc: Path,
    saved: Path,
    error_line: ErrorLine,
    spoil: Callable[[Path], None] | None,
    flags: str,
    message: str,
) -> None:
    if spoil is not None:
        spoil(voc)
    colour = save_without_sobel(saved.parent)
    flags = flags.format(voc=voc, colour=colour)
    error = error_line(eval_voc_classif, *command(voc, saved, *flags.split()))
    assert message.format(voc=voc) in error


def test_a_model_without_classifier_is_an_error(
    voc: Path, saved: Path, monkeypatch: pytest.MonkeyPatch, error_line: ErrorLine
) -> None:
    def convolutions_only(sobel: bool = False, out: int = 1000) -> ConvNet:
        network = tiny(sobel, out)
        network.classifier = nn.Sequential()
        network.top_layer = nn.Linear(144, out)
        return network

    monkeypatch.setitem(MODELS, "tiny", convolutions_only)
    state = {"arch": "tiny", "state_dict": convolutions_only().state_dict()}
    save_checkpoint(saved, state)
    error = error_line(eval_voc_classif, *command(voc, saved))
    assert "tiny: has no classifier to train" in error


def test_training_is_kept_when_an_image_cannot_be_scored(
    voc: Path, saved: Path, error_line: ErrorLine
) -> None:
    image = voc / "JPEGImages" / "000031.jpg"
    pixels = image.read_bytes()
    image.write_bytes(b"no image")
    error_line(eval_voc_classif, *command(voc, saved))
    state = torch.load(saved.parent / "voc_fc6_8_train" / "seed_31.pth.tar")
    assert (state["iteration"], state["results"]) == (2, None)
    image.write_bytes(pixels)
    run_script(voc, saved)
    assert (saved.parent / "voc_fc6_8_train" / "voc_classif.json").exists()


def test_the_defaults_are_the_originals() -> None:
    args = vars(eval_voc_classif.parse_args(["--vocdir", "v", "--model", "m"]))
    expected = {
        "split": "train", "nit": 80000, "fc6_8": 1, "train_batchnorm": 0, "eval_random_crops": 1,
        "stepsize": 5000, "lr": 0.003, "wd": 1e-6, "min_scale": 0.1, "max_scale": 0.5,
        "seeds": [31], "batch": 16, "workers": min(4, allowed_cores()), "size": 224,
    }  # fmt: skip
    assert {name: args[name] for name in expected} == expected
    one = eval_voc_classif.parse_args(["--vocdir", "v", "--model", "m", "--seed", "7"])
    assert one.seeds == [7]


@pytest.mark.parametrize(("part", "stepsize", "wd"), [("1", 20_000, 1e-5), ("0", 10_000, 1e-4)])
def test_deeperclusters_protocol_has_the_published_settings(
    part: str, stepsize: int, wd: float
) -> None:
    flags = ["--vocdir", "v", "--model", "m", "--protocol", "deepercluster", "--fc6_8", part]
    expected = Settings(
        nit=150_000, fc6_8=part == "1", stepsize=stepsize, lr=0.003, wd=wd, batch=16,
        min_scale=0.08, max_scale=1, aspect=(3 / 4, 4 / 3), eval_random_crops=True,
    )  # fmt: skip
    assert settings_of(eval_voc_classif.parse_args(flags)) == expected
    given = settings_of(eval_voc_classif.parse_args([*flags, "--wd", "0.1", "--max_scale", "0.9"]))
    assert (given.wd, given.max_scale, given.stepsize) == (0.1, 0.9, stepsize)
    words = in_words(expected, "trainval")
    assert "a random part of 0.08 to 1 of its area, 0.75 to 1.33 times as wide as high" in words
    assert "a random square of 0.1 to 0.5 of its area, resized" in in_words(Settings(), "trainval")


def test_crops_may_have_other_shapes_than_squares() -> None:
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    pixels = torch.stack([rows, columns, rows]).to(torch.uint8)
    ratios = []
    for seed in range(100):
        crop = apply_seeded(object_crop(32, 0.2, 0.3, (3 / 4, 4 / 3)), pixels, seed).float()
        height = crop[0, -1, 0] - crop[0, 0, 0]
        ratios.append(float((crop[1, 0, -1] - crop[1, 0, 0]).abs() / height))
    assert 0.7 < min(ratios) < 0.85
    assert 1.18 < max(ratios) < 1.45


def test_older_runs_have_no_key_for_newer_settings() -> None:
    assert not {"aspect", "sobel2rgb"} & Settings().key.keys()
    changed = Settings(aspect=(0.5, 2), sobel2rgb=True).key
    assert (changed["aspect"], changed["sobel2rgb"]) == ([0.5, 2], True)


def test_merged_sobel_filters_train_and_a_run_resumes(
    voc: Path, saved: Path, tmp_path: Path
) -> None:
    """A released network keeps its margin."""
    model = load_model(saved)
    model.margin = 1
    save_checkpoint(saved, network_entries(model))
    flags = ["--protocol", "deepercluster", "--fc6_8", "0", "--sobel2rgb", "--nit", "2"]
    run_script(voc, saved, *flags)
    folder = tmp_path / "voc_deepercluster_all_train"
    report = json.loads((folder / "voc_classif.json").read_text())
    assert "the Sobel filters are merged into the first convolution" in report["protocol"]
    tuned = load_model(folder / "seed_31.pth.tar")
    assert (tuned.sobel, tuned.margin) == (None, 1)
    model.merge_sobel()
    before, after = (each.get_parameter("features.0.weight") for each in (model, tuned))
    assert before.shape == after.shape == (8, 3, 7, 7)
    assert not torch.equal(before, after)
    run_script(voc, saved, *flags)  # takes the results of the finished seed
    assert json.loads((folder / "voc_classif.json").read_text())["results"] == report["results"]


@pytest.mark.parametrize(
    ("part", "settings"),
    [
        ("fc6_8", "--fc6_8 1 --lr 0.003 --stepsize 5000"),
        ("all", "--fc6_8 0 --lr 0.001 --stepsize 20000"),
    ],
)
def test_the_scripts_pass_their_settings_on(tmp_path: Path, part: str, settings: str) -> None:
    script = f"eval_voc_classif_{part}.sh"
    (tmp_path / "recipes").mkdir(exist_ok=True)
    for name in ("recipes/env.sh", "eval_voc_classif_fc6_8.sh", "eval_voc_classif_all.sh"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "eval_voc_classif.py").write_text("import sys; print(*sys.argv[1:])")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def start(**variables: str) -> subprocess.CompletedProcess[str]:
        names = ("VOCDIR", "MODEL", "SPLIT", "LR", "STEPSIZE", "NIT", "BATCH", "WORKERS", "EXP")
        clean = {n: v for n, v in os.environ.items() if n not in names}
        return subprocess.run(
            [f"../{script}", "--seeds", "1", "2"], cwd=elsewhere, capture_output=True, text=True,
            env={**clean, "PYTHON": sys.executable, **variables},
        )  # fmt: skip

    done = start(VOCDIR="voc", MODEL="/m.tar", EXP="e")
    assert done.stdout.strip() == (
        f"--vocdir {elsewhere}/voc --model /m.tar --split trainval {settings} --nit 150000 "
        f"--batch 16 --workers {min(4, allowed_cores())} --exp {elsewhere}/e --seeds 1 2"
    ), done.stderr
    for missing in ({"VOCDIR": "voc"}, {"MODEL": "m"}):
        done = start(**missing)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
