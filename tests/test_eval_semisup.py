"""eval_finetune.py on a small tree of images, against plain PyTorch."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ErrorLine, tiny, write_images
from runs import Server
from torch import nn

import eval_finetune
from checkpoints.checkpoint import load_model, network_entries, save_checkpoint
from data.labelled import find_train_and_val
from data.loading import Draw, ImageDataset
from data.transforms import random_crop, to_input
from evaluation.finetuning import renew_classifier
from evaluation.linear_run import FINE_TUNED, Settings
from evaluation.whole import NETWORK, Whole
from models import MODELS, ConvNet
from system.device import select_compute
from system.seeding import derive_seed

CPU = torch.device("cpu")
FLAGS = "--size 32 --batch_size 8 --epochs 2 --workers 0 --lr 0.01 --device cpu --precision fp32"
Tune = Callable[..., dict[str, Any]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split, count in (("train", 7), ("val", 5)):
        for label in "ab":
            write_images(tmp_path / "data" / split / label, count, seed=ord(label))
    return tmp_path / "data"


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With Sobel filters and a margin."""
    monkeypatch.setitem(MODELS, "tiny", tiny)
    torch.manual_seed(0)
    model = tiny(sobel=True, out=4)
    model.margin = 1
    path = tmp_path / "exp" / "checkpoint.pth.tar"
    path.parent.mkdir()
    save_checkpoint(path, {"epoch": 1, **network_entries(model)})
    return path


@pytest.fixture
def tune(data: Path, network: Path) -> Tune:
    def run(*flags: str, exp: str = "tuned", model: Path = network) -> dict[str, Any]:
        command = ["--data", str(data), "--model", str(model), *FLAGS.split(), *flags]
        folder = network.parent / exp
        eval_finetune.main(eval_finetune.parse_args([*command, "--exp", str(folder)]))
        return json.loads((folder / "finetune.json").read_text())

    return run


def test_the_defaults_are_the_releases() -> None:
    args = eval_finetune.parse_args(["--data", "d", "--model", "m"])
    assert (args.epochs, args.lr, args.wd, args.steps) == (100, 0.1, -4, (30, 60, 90))
    assert (args.batch_size, args.momentum, args.size) == (256, 0.9, 224)
    given = {name: getattr(args, name) for name in Settings.__annotations__ if name in args}
    settings = Settings(protocol=FINE_TUNED, **given)
    optimizer = torch.optim.SGD([torch.zeros(1)], 1.0)
    rates = []
    for epoch in (0, 29, 30, 59, 60, 89, 90, 99):
        settings.set_rate(optimizer, epoch, 5000 * epoch)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.1, 1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4])
    assert (settings.recipe.view, settings.recipe.nesterov) == (random_crop, False)


def test_the_result_file_and_the_fine_tuned_networks(
    tune: Tune, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tune("--sobel2rgb", "--untrained", "--verbose")
    assert report["protocol"].startswith("Fine-tuning of a whole network on labelled images")
    expected = {"lr": 0.01, "wd": -4, "sobel2rgb": True, "classes": 2, "train": 14, "val": 10}
    assert expected.items() <= report["settings"].items()
    assert set(report["results"]) == {"trained", "untrained"}
    found = report["results"]["trained"]["network"]
    assert len(found["epochs"]) == 2
    assert found["last"] == found["epochs"][1]
    tuned = load_model(network.parent / "tuned" / "network_trained.pth.tar")
    assert (tuned.margin, tuned.sobel) == (1, None)
    assert tuned.get_parameter("features.0.weight").shape == (8, 3, 7, 7)
    assert tuned.top_layer is not None
    assert tuned.top_layer.out_features == 2
    out = capsys.readouterr().out
    assert "epoch 1, network: train loss" in out
    assert "network trained " in out


def test_fine_tuning_equals_plain_torch(
    tune: Tune, data: Path, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without dropout: all layers train with momentum and decay, batch norm in training mode."""
    model = without_dropout(load_model(network))
    monkeypatch.setitem(MODELS, "tiny", lambda **given: without_dropout(tiny(**given)))
    save_checkpoint(network.parent / "plain.pth.tar", network_entries(model))
    tune("--epochs", "1", model=network.parent / "plain.pth.tar")
    tuned = load_model(network.parent / "tuned" / "network_trained.pth.tar")

    reference = copy.deepcopy(model)
    renew_classifier(reference, 2, 31, with_top=False)
    train, _ = find_train_and_val(data)
    weights = [p for p in reference.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(weights, 0.01, momentum=0.9, weight_decay=1e-4)
    crops = ImageDataset(train.images, random_crop(32), seed=31)
    order = np.random.default_rng(derive_seed(31, "probe order", 0)).permutation(14)
    reference.train()
    for start in (0, 8):
        batch = order[start : start + 8]
        pixels = [crops[Draw(int(i), 0, start + n)][1] for n, i in enumerate(batch)]
        logits = reference(to_input(torch.stack(pixels), CPU))  # type: ignore[arg-type]
        loss = F.cross_entropy(logits, torch.from_numpy(train.labels[batch]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, weight in reference.state_dict().items():
        torch.testing.assert_close(tuned.state_dict()[name], weight, rtol=1e-4, atol=1e-5)


def without_dropout(model: ConvNet) -> ConvNet:
    model.classifier = nn.Sequential(
        *(module for module in model.classifier if not isinstance(module, nn.Dropout))
    )
    return model


def test_a_new_classifier_has_a_top_layer_of_pytorchs_making() -> None:
    model = tiny()
    renew_classifier(model, 9, seed=3, with_top=False)
    assert model.top_layer is not None
    top = model.top_layer
    assert 0.1 < top.weight.abs().max() <= 32**-0.5, "uniform up to 1 / √32"
    assert top.bias.std() > 0.03
    assert all((model.get_parameter(f"classifier.{i}.bias") == 0.1).all() for i in (1, 4))


def test_an_interrupted_run_resumes_with_the_same_bits(tune: Tune, network: Path) -> None:
    """Dropout included."""
    whole = tune(exp="whole")
    tune("--epochs", "1", exp="cut")
    torch.randn(3)
    assert tune(exp="cut")["results"] == whole["results"]
    a, b = (
        load_model(network.parent / exp / "network_trained.pth.tar").state_dict()
        for exp in ("whole", "cut")
    )
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_scores_are_float32_under_bf16(network: Path) -> None:
    whole = Whole(load_model(network).eval(), 32, select_compute("cpu", "bf16"))
    with torch.inference_mode():
        scores = whole({NETWORK: torch.randn(4, 3 * 32 * 32)})[NETWORK]
    assert (scores.dtype, tuple(scores.shape)) == (torch.float32, (4, 4))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--precision fp16", "--precision fp16: has no loss scale here; give bf16 or fp32"),
        ("--wd 400", "--wd 400: give an exponent of ten, such as -4 for 1e-4"),
        ("--size 1", "--size 1: too small for tiny; give "),
        ("--data {}/nowhere", "{}/nowhere: needs train/ with a folder per class"),
        ("--lr 1e30", "the loss of network became nan; try a lower --lr"),
    ],
)
def test_bad_input_is_one_line(
    data: Path, network: Path, error_line: ErrorLine, flags: str, message: str
) -> None:
    command = ["--data", data, "--model", network, *FLAGS.split()]
    flags, message = (text.format(data.parent) for text in (flags, message))
    assert message in error_line(eval_finetune, *command, *flags.split())


def test_a_network_without_sobel_filters_has_none_to_merge(
    data: Path, network: Path, error_line: ErrorLine
) -> None:
    path = network.parent / "plain.pth.tar"
    save_checkpoint(path, network_entries(tiny(out=3)))
    command = ["--data", data, "--model", path, *FLAGS.split(), "--sobel2rgb"]
    error = error_line(eval_finetune, *command)
    assert "--sobel2rgb: tiny has no Sobel filters here; leave it out" in error


def test_two_processes_train_on_the_same_batches(
    server: Server, tune: Tune, data: Path, network: Path, tmp_path: Path
) -> None:
    """Batch norm has each process's statistics and dropout its own masks, so that losses are only
    similar; the val images are divided."""
    one = tune("--epochs", "1")["results"]["trained"]["network"]["last"]
    command = ["--data", data, "--model", network, *FLAGS.split(), "--epochs", "1"]
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nimport eval_finetune\nfrom parallel.collectives import process_group\n"
        "with process_group('cpu'):\n"
        "    eval_finetune.main(eval_finetune.parse_args(sys.argv[1:]))\n"
    )
    server.run_script(script, [*command, "--exp", tmp_path / "two"], tmp_path / "run")
    report = json.loads((tmp_path / "two" / "finetune.json").read_text())
    two = report["results"]["trained"]["network"]["last"]
    assert report["settings"]["processes"] == 2
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=0.2)
    assert round(two["top1"] * 10, 6).is_integer(), "of all ten val images"
