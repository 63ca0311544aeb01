"""eval_semisup.py on a small tree of images, against plain PyTorch."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ErrorLine, tiny, write_images
from networks import plain
from runs import Server
from torch import Tensor, nn

import eval_semisup
from checkpoints.checkpoint import load_model, network_entries, save_checkpoint
from data.labelled import Labelled, find_train_and_val
from data.loading import Draw, ImageDataset
from data.subset import drawn
from data.transforms import central_crop, random_crop, to_input
from evaluation.finetuning import new_top_layer, renew_classifier
from evaluation.semisup import PROTOCOLS
from evaluation.whole import NETWORK, Whole
from models import MODELS, ConvNet
from system.device import select_compute
from system.seeding import derive_seed

CPU = torch.device("cpu")
FLAGS = (
    "--size 32 --batch_size 8 --epochs 2 --workers 0 --lr 0.01 --lr_last_layer 0.05 --device cpu "
    "--precision fp32"
)
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
        eval_semisup.main(eval_semisup.parse_args([*command, "--exp", str(folder)]))
        return json.loads((folder / "semisup.json").read_text())

    return run


def weights(network: Path, exp: str = "tuned") -> dict[str, Tensor]:
    """Those of a fine-tuned network."""
    return load_model(network.parent / exp / "network_trained.pth.tar").state_dict()


def same_bits(network: Path, one: str, other: str) -> bool:
    first, second = weights(network, one), weights(network, other)
    return all(torch.equal(first[name], second[name]) for name in first)


def test_the_result_file_and_the_fine_tuned_networks(
    tune: Tune, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tune("--sobel2rgb", "--untrained", "--verbose", "--percent", "30")
    assert report["protocol"].startswith("Fine-tuning of a whole network on all labelled images or")
    expected = {"lr": 0.01, "lr_last_layer": 0.05, "wd": None, "gamma": 0.2, "steps": [12, 16]}
    expected |= {"percent": 30, "sobel2rgb": True, "classes": 2, "train": 4, "val": 10}
    assert expected.items() <= report["settings"].items()
    assert set(report["results"]) == {"trained", "untrained"}
    found = report["results"]["trained"]["network"]
    assert len(found["epochs"]) == 2
    assert found["last"] == found["epochs"][1]
    accuracies = [epoch["top1"] for epoch in found["epochs"]]
    best = accuracies.index(max(accuracies))
    assert found["best"] == {"epoch": best, **found["epochs"][best]}
    assert found["best"]["top5"] == 1, "of two classes"
    tuned = load_model(network.parent / "tuned" / "network_trained.pth.tar")
    assert (tuned.margin, tuned.sobel) == (1, None)
    assert tuned.get_parameter("features.0.weight").shape == (8, 3, 7, 7)
    assert tuned.top_layer is not None
    assert tuned.top_layer.out_features == 2
    out = capsys.readouterr().out
    assert "2 classes, 4 of 14 images to train on, 10 to validate on\n" in out
    assert "epoch 1, network: train loss" in out
    assert "network trained " in out


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_result_describes_its_own_protocol(tune: Tune, protocol: str) -> None:
    words = tune("--protocol", protocol, "--percent", "30", "--epochs", "1")["protocol"]
    assert {name for name in PROTOCOLS if f" {name}: " in words} == {protocol}


def test_results_are_beside_the_checkpoint_by_protocol_labels_and_epoch(
    data: Path, network: Path
) -> None:
    names = [f"{label}/000.png" for label in "ab"]
    (data / "few.txt").write_text("\n".join(names))
    command = ["--data", str(data), "--model", str(network), *FLAGS.split(), "--epochs", "1"]
    for more in ([], ["--protocol", "vissl", "--percent", "10"], ["--subset", f"{data}/few.txt"]):
        eval_semisup.main(eval_semisup.parse_args([*command, *more]))
    assert {path.parent.name for path in network.parent.glob("*/semisup.json")} == {
        "semisup_swav_100percent_epoch_1", "semisup_vissl_10percent_epoch_1",
        "semisup_swav_list_few_epoch_1",
    }  # fmt: skip


def test_a_note_names_rates_that_are_not_published(
    data: Path, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = "--size 32 --batch_size 8 --epochs 1 --workers 0 --device cpu --precision fp32"
    command = ["--data", str(data), "--model", str(network), *short.split(), "--percent"]
    for percent, notes in (("1", 0), ("20", 1)):
        exp = str(network.parent / percent)
        eval_semisup.main(eval_semisup.parse_args([*command, percent, "--exp", exp]))
        out = capsys.readouterr().out
        assert out.count("note: --lr 0.01 --lr_last_layer 0.2: as for 10 % of the labels") == notes


def test_the_defaults_of_deepercluster_are_the_releases() -> None:
    args = eval_semisup.parse_args(["--data", "d", "--model", "m", "--protocol", "deepercluster"])
    assert (args.epochs, args.lr, args.wd, args.steps) == (100, 0.1, -4, (30, 60, 90))
    assert (args.batch_size, args.momentum, args.size, args.gamma) == (256, 0.9, 224, 0.1)


EXPECTED = {  # the rates of the trunk and the top layer in both epochs, weight decay, Nesterov
    "swav": ([(0.01, 0.05), (0.002, 0.01)], 0, False),
    "vissl": ([(0.01, 0.05), (0.001, 0.005)], 0, True),
    "deepercluster": ([(0.01, 0.05), (0.001, 0.005)], 1e-4, False),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_fine_tuning_equals_sgd_by_hand(
    tune: Tune, data: Path, network: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """Without dropout: all layers train, batch norm in training mode; the Sobel filters stay."""
    model = without_dropout(load_model(network))
    monkeypatch.setitem(MODELS, "tiny", lambda **given: without_dropout(tiny(**given)))
    save_checkpoint(network.parent / "plain.pth.tar", network_entries(model))
    flags = ["--protocol", protocol, "--percent", "80", "--steps", "1"]
    tune(*flags, model=network.parent / "plain.pth.tar")

    reference = copy.deepcopy(model)
    if protocol == "deepercluster":
        renew_classifier(reference, 2, 31, with_top=False)
    else:
        new_top_layer(reference, 2, 31)
    train = drawn(find_train_and_val(data)[0], 80, 31)
    assert len(train.labels) == 12
    rates, decay, nesterov = EXPECTED[protocol]
    batches = {0: [0, 8], 1: [0, 8]}
    velocity = {name: torch.zeros_like(w) for name, w in reference.named_parameters()}
    reference.train()
    for epoch, starts in batches.items():
        for pixels, labels in batches_of(train, epoch, starts):
            reference.zero_grad()
            F.cross_entropy(reference(pixels), labels).backward()
            for name, weight in reference.named_parameters():
                if weight.grad is None:
                    assert name.startswith("sobel")
                    continue
                gradient = weight.grad + decay * weight.detach()
                velocity[name] = 0.9 * velocity[name] + gradient
                step = gradient + 0.9 * velocity[name] if nesterov else velocity[name]
                weight.data -= rates[epoch][name.startswith("top_layer")] * step
    found = weights(network)
    for name, weight in reference.state_dict().items():
        torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=1e-5, msg=name)
    for name, weight in model.state_dict().items():
        moved = not torch.equal(found[name], weight) if found[name].shape == weight.shape else True
        assert moved != name.startswith("sobel"), name


def batches_of(train: Labelled, epoch: int, starts: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """The network's input and the labels of an epoch's batches of 8."""
    crops = ImageDataset(train.images, random_crop(32), seed=31)
    random = np.random.default_rng(derive_seed(31, "probe order", epoch))
    order = random.permutation(len(train.labels))
    for start in starts:
        batch = order[start : start + 8]
        pixels = [crops[Draw(int(i), epoch, start + n)][1] for n, i in enumerate(batch)]
        yield to_input(torch.stack(pixels), CPU), torch.from_numpy(train.labels[batch])  # type: ignore[arg-type]


def without_dropout(model: ConvNet) -> ConvNet:
    model.classifier = nn.Sequential(
        *(module for module in model.classifier if not isinstance(module, nn.Dropout))
    )
    return model


def test_a_new_classifier_has_a_top_layer_with_pytorchs_weights() -> None:
    model = tiny()
    renew_classifier(model, 9, seed=3, with_top=False)
    assert model.top_layer is not None
    top = model.top_layer
    assert 0.1 < top.weight.abs().max() <= 32**-0.5, "uniform up to 1 / √32"
    assert top.bias.std() > 0.03
    assert all((model.get_parameter(f"classifier.{i}.bias") == 0.1).all() for i in (1, 4))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_interrupted_run_resumes_with_the_same_bits(
    tune: Tune, network: Path, protocol: str
) -> None:
    """Dropout and the subset included."""
    flags = ["--protocol", protocol, "--percent", "80", "--steps", "1"]
    whole = tune(*flags, exp="whole")
    tune(*flags, "--epochs", "1", exp="cut")
    torch.randn(3)
    assert tune(*flags, exp="cut")["results"] == whole["results"]
    assert same_bits(network, "whole", "cut")


@pytest.mark.parametrize(
    ("flags", "changed"),
    [
        ("--percent 80 --protocol vissl", "protocol swav → vissl, "),
        ("--percent 50", "images 12 → 8"),
        ("", "images 12 → 14"),
        ("--percent 80 --seed 32", "seed 31 → 32, "),
        ("--percent 80 --gamma 0.3", "gamma 0.2 → 0.3"),
        ("--percent 80 --lr_last_layer 0.1", "lr_last_layer 0.05 → 0.1"),
    ],
)
def test_other_settings_do_not_resume(
    tune: Tune, data: Path, network: Path, error_line: ErrorLine, flags: str, changed: str
) -> None:
    tune("--percent", "80", "--epochs", "1")
    exp = ["--exp", network.parent / "tuned"]
    command = ["--data", data, "--model", network, *FLAGS.split(), *exp]
    error = error_line(eval_semisup, *command, *flags.split())
    assert changed in error
    assert error.endswith("; give another --exp")


def test_fewer_epochs_than_are_done(
    tune: Tune, data: Path, network: Path, error_line: ErrorLine
) -> None:
    exp = network.parent / "tuned"
    report = tune("--epochs", "2")
    command = ["--data", data, "--model", network, *FLAGS.split(), "--exp", exp, "--epochs", "1"]
    line = error_line(eval_semisup, *command)
    assert line.endswith(
        f"--epochs 1: {exp}/semisup_trained.pth.tar has 2 epochs already; give 2 or more, or "
        "another --exp"
    )
    assert tune("--epochs", "2")["results"] == report["results"], "as before"


def test_a_batch_has_two_images_for_each_process(
    data: Path, network: Path, error_line: ErrorLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eval_semisup, "world_size", lambda: 3)
    command = ["--data", data, "--model", network, *FLAGS.split(), "--batch_size", "5"]
    line = error_line(eval_semisup, *command)
    assert line.endswith("--batch_size 5: too small for 3 processes; give 6 or more (2 each)")


def test_a_list_of_all_images_and_100_percent_equal_no_flag(
    tune: Tune, data: Path, network: Path
) -> None:
    names = [f"{label}/{n:03d}.png\n" for label in "ba" for n in range(7)]
    (data / "all.txt").write_text("".join(names))
    found = [
        tune(exp="none"),
        tune("--percent", "100", exp="percent"),
        tune("--subset", str(data / "all.txt"), exp="list"),
    ]
    assert found[0]["results"] == found[1]["results"] == found[2]["results"]
    assert [report["settings"]["percent"] for report in found] == [100, 100, 100]
    assert same_bits(network, "none", "percent")
    assert same_bits(network, "none", "list")
    assert tune("--percent", "100", exp="none")["results"] == found[0]["results"], "resumes"


@pytest.mark.parametrize(("protocol", "calls"), [("swav", 1), ("vissl", 0), ("deepercluster", 0)])
def test_batch_norm_is_synchronised_where_the_protocol_says_so(
    tune: Tune, monkeypatch: pytest.MonkeyPatch, protocol: str, calls: int
) -> None:
    seen = []

    def synchronise(model: ConvNet, device: torch.device) -> ConvNet:
        seen.append(model)
        return model

    monkeypatch.setattr(eval_semisup, "synchronised", synchronise)
    tune("--protocol", protocol, "--percent", "30", "--epochs", "1")
    assert len(seen) == calls


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
        ("--percent 0", "argument --percent: '0' is not a number above 0 and at most 100"),
        ("--percent 100.1", "argument --percent: '100.1' is not a number above 0 and at most 100"),
        ("--percent nan", "argument --percent: 'nan' is not a number above 0 and at most 100"),
        ("--percent 1 --subset {}/few", "argument --subset: not allowed with argument --percent"),
        ("--subset {}/exp/checkpoint.pth.tar", "not a text file with a file name on each line"),
        ("--subset {}/few", "--subset {}/few: 1 of its 2 images are not in {}/data/train, the fi"),
        ("--subset {}/one", "--subset {}/one: has no image of 1 of the 2 classes in {}/data/train"),
        ("--gamma 0", "argument --gamma: '0' is not a number above 0"),
    ],
)
def test_bad_input_is_one_line(
    data: Path, network: Path, error_line: ErrorLine, flags: str, message: str
) -> None:
    (data.parent / "few").write_text("a/001.png\nb_007.png\n")
    (data.parent / "one").write_text("a/001.png\n")
    command = ["--data", data, "--model", network, *FLAGS.split()]
    flags, message = (text.format(*[data.parent] * 2) for text in (flags, message))
    assert message in error_line(eval_semisup, *command, *flags.split())
    assert not list(network.parent.glob("*/network_*")), "nothing is written"


def test_a_network_without_sobel_filters_has_none_to_merge(
    data: Path, network: Path, error_line: ErrorLine
) -> None:
    path = network.parent / "plain.pth.tar"
    save_checkpoint(path, network_entries(tiny(out=3)))
    command = ["--data", data, "--model", path, *FLAGS.split(), "--sobel2rgb"]
    error = error_line(eval_semisup, *command)
    assert "--sobel2rgb: tiny has no Sobel filters here; leave it out" in error


def test_two_processes_equal_one_without_batch_norm(
    server: Server, tune: Tune, data: Path, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 6 images, a batch of 5 is divided into 3 and 2, and the last is the first process's; val
    is divided, too."""
    monkeypatch.setitem(MODELS, "plain", plain)
    torch.manual_seed(0)
    path = network.parent / "plain.pth.tar"
    save_checkpoint(path, network_entries(plain(sobel=True, out=5)))
    flags = ["--percent", "43", "--batch_size", "5", "--steps", "1"]
    one = tune(*flags, exp="one", model=path)
    two = on_two_processes(server, data, path, *flags)
    assert [report["settings"]["processes"] for report in (one, two)] == [1, 2]
    assert one["settings"]["train"] == two["settings"]["train"] == 6
    first, second = (report["results"]["trained"][NETWORK]["epochs"] for report in (one, two))
    for epoch, other in zip(first, second, strict=True):
        assert epoch == pytest.approx(other, rel=1e-4)
    found, expected = weights(network, "two"), weights(network, "one")
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=1e-6, msg=name)
    start = load_model(path).state_dict()
    assert not torch.equal(expected["features.0.weight"], start["features.0.weight"])


def test_two_processes_with_batch_norm(
    server: Server, tune: Tune, data: Path, network: Path
) -> None:
    """Batch norm has each process's statistics and dropout its own masks, so that losses are only
    similar. Both validate with the statistics of the first, which are saved."""
    one = tune("--epochs", "1")["results"]["trained"][NETWORK]["last"]
    two = on_two_processes(server, data, network, "--epochs", "1")["results"]["trained"][NETWORK]
    assert two["last"]["train_loss"] == pytest.approx(one["train_loss"], rel=0.2)
    assert round(two["last"]["top1"] * 10, 6).is_integer(), "of all ten val images"
    val = find_train_and_val(data)[1]
    images = ImageDataset(val.images, central_crop(32))
    pixels = torch.stack([images[Draw(i, 0, i)][1] for i in range(10)])  # type: ignore[misc]
    tuned = load_model(network.parent / "two" / "network_trained.pth.tar").eval()
    with torch.inference_mode():
        loss = F.cross_entropy(tuned(to_input(pixels, CPU)), torch.from_numpy(val.labels))
    assert two["last"]["loss"] == pytest.approx(float(loss), rel=1e-5)


def on_two_processes(server: Server, data: Path, model: Path, *flags: str) -> dict[str, Any]:
    """Fine-tune into the folder `two` beside the network."""
    exp = model.parent / "two"
    script = model.parent / "script.py"
    script.write_text(
        "import sys\nimport eval_semisup\nfrom parallel.collectives import process_group\n"
        "with process_group('cpu'):\n"
        "    eval_semisup.main(eval_semisup.parse_args(sys.argv[1:]))\n"
    )
    command = ["--data", data, "--model", model, *FLAGS.split(), *flags, "--exp", exp]
    server.run_script(script, command, model.parent / "run")
    return json.loads((exp / "semisup.json").read_text())
