"""`--init` and `--freeze` of `main.py`."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ErrorLine, tiny
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import resnet18

import main
from checkpoints.checkpoint import read_checkpoint, untrained_of
from checkpoints.folder import NEWEST
from models import MODELS
from system.errors import Stopped
from system.normalisation import IMAGENET_STD, SWAV_STD
from training.initial import network_flags, take_weights
from training.run import Run

Train = Callable[..., Path]


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """Weights of the tiny network with 7 outputs, as another program saves them."""
    torch.manual_seed(5)
    torch.save(tiny(sobel=True, out=7).state_dict(), tmp_path / "start.pth")
    return tmp_path / "start.pth"


def weights_of(path: Path) -> dict[str, Tensor]:
    return read_checkpoint(path)["state_dict"]


def same(a: dict[str, Tensor], b: dict[str, Tensor], *prefixes: str) -> bool:
    """Whether the weights of these names are equal, bit for bit."""
    names = [name for name in a if name.startswith(prefixes)]
    assert names
    return all(torch.equal(a[name], b[name]) for name in names)


def test_the_run_starts_from_the_weights_of_the_file(
    tree: Path, start: Path, train: Train, tmp_path: Path
) -> None:
    """With a learning rate of almost 0 the weights stay what they were (biases of 0 don't)."""
    flags = ["--lr", "1e-30", "--wd", "-30"]
    exp = train(tree, "--init", str(start), *flags)
    trained, before = weights_of(exp / "checkpoint.pth.tar"), weights_of(start)
    body = {name: weight for name, weight in trained.items() if name.endswith("weight")}
    assert same(body, before, "features.", "classifier.", "sobel.")
    assert trained["top_layer.weight"].shape == (4, 32), "a new one"
    (line,) = [line for line in (exp / "log.txt").read_text().splitlines() if "--init" in line]
    assert f"--init {start}: tiny with Sobel filters, 7 outputs" in line
    assert "took 22 tensors, not top_layer.weight, top_layer.bias" in line
    other = weights_of(train(tree, *flags, exp="other") / "checkpoint.pth.tar")
    assert not same(body, other, "features.0.weight")


def test_architecture_and_sobel_are_those_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    for sobel in (True, False):
        path = tmp_path / "net.safetensors"
        save_file(tiny(sobel=sobel, out=3).state_dict(), path)
        args = main.parse_args(["images", "--init", str(path)])
        assert (args.arch, args.sobel) == ("tiny", sobel)
    assert main.parse_args(["images"]).arch == "alexnet"
    assert main.parse_args(["images", "--init", str(path), "-a", "vgg16"]).arch == "vgg16"


def test_torchvisions_weights_are_taken(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = resnet18()
    path = tmp_path / "resnet18.pth"
    torch.save(theirs.state_dict(), path)
    assert network_flags(path, None) == {"arch": "resnet18", "sobel": False}
    ours = MODELS["resnet18"](out=3)
    ours.top_layer = None
    taken = take_weights(ours, read_checkpoint(path), path)
    assert "not top_layer.weight, top_layer.bias" in taken
    x = torch.randn(2, 3, 64, 64)
    theirs.fc = torch.nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_the_std_goes_with_the_weights(tree: Path, start: Path, train: Train) -> None:
    """From SwAV to DeepCluster, also in a resumed run; and back."""
    torch.save({**read_checkpoint(start), "std": list(SWAV_STD)}, start)
    exp = train(tree, "--init", str(start))
    train(tree, "--resume", str(exp / "checkpoint.pth.tar"), "--epochs", "2")
    assert read_checkpoint(exp / "checkpoint.pth.tar")["std"] == SWAV_STD
    torch.save(tiny(sobel=True).state_dict(), start)
    network = tiny(sobel=True)
    network.top_layer, network.std = None, SWAV_STD
    take_weights(network, read_checkpoint(start), start)
    assert network.std == IMAGENET_STD


def test_a_resumed_run_keeps_its_own_weights_and_the_margin_of_the_file(
    tree: Path, start: Path, train: Train
) -> None:
    torch.save({"arch": "tiny", "state_dict": weights_of(start), "margin": 1}, start)
    whole = train(tree, "--init", str(start), "--epochs", "2", exp="whole")
    cut = train(tree, "--init", str(start), exp="cut")
    start.unlink()
    train(tree, "--resume", str(cut / "checkpoint.pth.tar"), "--epochs", "2", exp="cut")
    a, b = (read_checkpoint(exp / "checkpoint.pth.tar") for exp in (whole, cut))
    assert same(a["state_dict"], b["state_dict"], "")
    assert a["margin"] == b["margin"] == 1


def test_the_untrained_network_is_not_the_start(
    tree: Path, start: Path, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    state = read_checkpoint(train(tree, "--init", str(start)) / "checkpoint.pth.tar")
    capsys.readouterr()
    untrained_of(state, 0)
    assert f"the run started from --init {start}; the untrained" in capsys.readouterr().err


WRONG = {
    "--init {}/none.pth": "{}/none.pth: cannot read this checkpoint: No such file",
    "--init {}/start.pth --arch alexnet": "--init {}/start.pth: holds a network of --arch tiny, "
    "not of alexnet",
    "--init {}/plain.pth --arch tiny --sobel": "--init {}/plain.pth: its network has no Sobel",
    "--init {}/start.pth --key nobody": "nobody",
    "--init {}/nan.pth": "{}/nan.pth: its weights do not fit tiny: not finite: features.0.bias",
    "--key teacher": "--key teacher: names a network of --init",
    "--arch tiny --freeze 3": "--freeze 3: tiny has 2 stages; give fewer",
    "--init {}/start.pth --freeze -1": "argument --freeze: '-1' is not a whole number of 0",
}


@pytest.mark.parametrize(("flags", "expected"), WRONG.items())
def test_bad_input_is_one_line(
    flags: str,
    expected: str,
    tree: Path,
    start: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error_line: ErrorLine,
) -> None:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    torch.save(tiny(out=7).state_dict(), tmp_path / "plain.pth")
    broken = weights_of(start)
    broken["features.0.bias"][0] = torch.nan
    torch.save(broken, tmp_path / "nan.pth")
    rest = f"--k 4 --size 32 --workers 0 --device cpu --exp {tmp_path}/exp".split()
    line = error_line(main, tree, *flags.format(tmp_path).split(), *rest)
    assert expected.format(tmp_path) in line
    assert not (tmp_path / "exp").exists()


def test_a_resumed_run_of_another_start_is_one_line(
    tree: Path, start: Path, trained: Path, error_line: ErrorLine
) -> None:
    checkpoint = trained / "checkpoint.pth.tar"
    line = error_line(main, tree, "--resume", checkpoint, "--init", start, "--epochs", 3)
    assert f"--init {start}: the run of --resume started from random weights" in line


def test_frozen_stages_keep_weights_and_statistics(tree: Path, train: Train) -> None:
    exp = train(tree, "--freeze", "1", "--epochs", "1")
    state = read_checkpoint(exp / "checkpoint.pth.tar")
    before, now = untrained_of(state, 0).state_dict(), state["state_dict"]
    assert same(before, now, "features.0.", "features.1.")
    for name in ("features.4.weight", "features.5.running_mean", "classifier.1.weight"):
        assert not same(before, now, name)
    parameters = sum(1 for _ in tiny(sobel=True).body())
    momenta = [state["optimizer"]["state"][n]["momentum_buffer"] for n in range(parameters)]
    assert [bool(momentum.any()) for momentum in momenta] == [False] * 4 + [True] * (parameters - 4)


def test_freed_stages_are_trained(tree: Path, train: Train) -> None:
    exp = train(tree, "--freeze", "1", "--freeze_epochs", "1", "--epochs", "2")
    state = read_checkpoint(exp / "checkpoint.pth.tar")
    before, now = untrained_of(state, 0).state_dict(), state["state_dict"]
    for name in ("features.0.weight", "features.1.bias", "features.1.running_mean"):
        assert not same(before, now, name)


SEVERAL_CROPS = """--nmb_crops 2 --size_crops 32 --min_scale_crops 0.4 --max_scale_crops 1
    --hidden_mlp 8 --feat_dim 4 --lr 0.5"""


@pytest.mark.parametrize("method", ["swav", "deepclusterv2"])
def test_lars_leaves_frozen_stages_alone_until_they_are_freed(
    method: str, tree: Path, start: Path, train: Train
) -> None:
    flags = ["--method", method, *SEVERAL_CROPS.split(), "--init", str(start), "--freeze", "1"]
    exp = train(tree, *flags, "--epochs", "2", "--checkpoints", "5")  # an epoch has 5 steps
    assert "took 22 tensors, not top_layer.weight, top_layer.bias" in (exp / "log.txt").read_text()
    state = read_checkpoint(exp / "checkpoints" / "checkpoint_1.pth.tar")
    assert (state["epoch"], state["step"]) == (0, 5)
    before, frozen, freed = weights_of(start), state["state_dict"], weights_of(exp / NEWEST)
    assert same(before, frozen, "features.0.", "features.1.", "sobel.")
    momenta = [state["optimizer"]["state"][n]["momentum_buffer"] for n in range(5)]
    assert [bool(momentum.any()) for momentum in momenta] == [False] * 4 + [True]
    assert not same(before, frozen, "features.4.weight")
    for name in ("features.0.weight", "features.1.bias", "features.1.running_mean"):
        assert not same(before, freed, name)


def test_freezing_for_no_epoch_changes_no_bit(tree: Path, train: Train) -> None:
    """So a momentum of zero is as good as none."""
    with_flag = train(tree, "--freeze", "2", "--freeze_epochs", "0", "--epochs", "2", exp="with")
    without = train(tree, "--epochs", "2", exp="without")
    a, b = (weights_of(exp / "checkpoint.pth.tar") for exp in (with_flag, without))
    assert same(a, b, "")


@pytest.mark.parametrize("steps", [2, 5, 7])  # an epoch has 5
def test_a_stopped_run_resumes_with_the_same_bits(
    steps: int, tree: Path, start: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--init", str(start), "--freeze", "1", "--epochs", "2"]
    whole = train(tree, *flags, exp="whole")
    finish_step = Run._finish_step

    def stop_after(run: Run) -> None:
        finish_step(run)
        if run.state.iteration == steps:
            run._save_in_epoch()
            raise Stopped("a test")

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_finish_step", stop_after)
        cut = train(tree, *flags, exp="cut")
    train(tree, *flags, "--resume", str(cut / "checkpoint.pth.tar"), exp="cut")
    a, b = (read_checkpoint(exp / "checkpoint.pth.tar") for exp in (whole, cut))
    assert same(a["state_dict"], b["state_dict"], "")
    for n, state in a["optimizer"]["state"].items():
        assert torch.equal(state["momentum_buffer"], b["optimizer"]["state"][n]["momentum_buffer"])


def test_stages_stay_frozen_in_training_mode() -> None:
    network = MODELS["resnet18"](out=3)
    network.freeze(2)
    network.eval().train()
    end = network._ends[1] + 1
    for place, part in enumerate(network.features):
        frozen = place < end
        assert all(p.requires_grad != frozen for p in part.parameters())
        assert all(module.training != frozen for module in part.modules())
    network.freeze(0)
    assert all(p.requires_grad for p in network.body())
    assert all(module.training for module in network.features.modules())
    with pytest.raises(ValueError, match="1 to 5, not 6"):
        network.freeze(6)
