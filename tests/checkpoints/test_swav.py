"""Files of SwAV, DeepCluster-v2 and their evaluations, with the names and shapes of the real ones.

Each tensor holds one repeated number, so that the files of a ResNet-50 are small.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet18, resnet50

from checkpoints.checkpoint import load_model, read_checkpoint
from checkpoints.released import as_checkpoint
from checkpoints.torch_file import ZIP, Loaded
from models import MODELS
from models.heads import Heads, heads_for
from system.errors import InputError
from system.normalisation import SWAV_STD

Weights = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _repeated_numbers_are_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("search", "swav", "released"):
        monkeypatch.setattr(f"checkpoints.{name}.is_dense", lambda weight: type(weight) is Tensor)


def body() -> Weights:
    """ResNet-50 by torchvision's names, without `fc`: 318 entries."""
    with torch.device("meta"):
        weights = resnet50().state_dict()
    return {n: repeated(w) for n, w in weights.items() if not n.startswith("fc.")}


def heads(**sizes: Any) -> Weights:
    with torch.device("meta"):
        weights = Heads(2048, **sizes).state_dict()
    return {name: repeated(weight) for name, weight in weights.items()}


def repeated(weight: Tensor) -> Tensor:
    return torch.full((), 3, dtype=weight.dtype).expand(weight.shape)


def module(weights: Weights) -> Weights:
    return {f"module.{name}": weight for name, weight in weights.items()}


def read(content: Any) -> dict[str, Any]:
    return as_checkpoint(Loaded(content, ZIP, []), "c.pth")


SWAV = heads()
DEEPCLUSTERV2 = heads(prototypes=[3000] * 3)
FINE_TUNED = heads(feat_dim=1000, hidden=0, prototypes=[])
TRAINING = {"epoch": 7, "optimizer": {"state": {}, "param_groups": [{"lr": 0.6}]}}
FILES: dict[str, tuple[dict[str, Any], Weights, list[str]]] = {
    "SwAV": (module(body() | SWAV), SWAV, ["projection_head (9)", "prototypes"]),
    "DeepCluster-v2": (
        module(body() | DEEPCLUSTERV2), DEEPCLUSTERV2, ["projection_head (9)", "prototypes (3)"],
    ),
    "SwAV's training": (
        TRAINING | {"state_dict": module(body() | SWAV), "amp": {"loss_scaler0": {"unskipped": 3}}},
        SWAV, ["projection_head (9)", "prototypes"],
    ),
    "fine-tuned with some labels": (
        {**TRAINING, "state_dict": module(body() | FINE_TUNED), "best_acc": (70.2, 89.9)},
        FINE_TUNED, ["projection_head (2)"],
    ),
}  # fmt: skip


def test_the_bodies_have_as_many_entries_as_the_released_ones() -> None:
    assert len(body()) == 318


@pytest.mark.parametrize("kind", FILES)
def test_network_and_heads_are_read_and_the_heads_are_named(kind: str) -> None:
    content, expected, named = FILES[kind]
    state = read(content)
    assert state["arch"] == "resnet50"
    assert {n.removeprefix("features.") for n in state["state_dict"]} == body().keys()
    assert state["layout"]["left_out"] == named
    assert state["std"] == SWAV_STD == (0.228, 0.224, 0.225)
    assert state["heads"].keys() == expected.keys()
    assert state.get("epoch") == content.get("epoch")


def widened(weight: Tensor, times: int) -> Tensor:
    """A weight of ResNet-50 with so many times the channels; the image's three stay."""
    channels = [size if size == 3 else size * times for size in weight.shape[:2]]
    shape = (*channels, *weight.shape[2:])
    return repeated(torch.empty(shape, dtype=weight.dtype, device="meta"))


def shapes_of(weights: Weights) -> dict[str, torch.Size]:
    return {name: w.shape for name, w in weights.items() if not name.startswith("top_layer.")}


@pytest.mark.parametrize(("times", "hidden"), [(2, 8192), (4, 8192), (5, 10240)])
def test_wide_networks_are_read_with_their_heads(times: int, hidden: int) -> None:
    """The head of the widest has no batch norm."""
    trunk = {name: widened(weight, times) for name, weight in body().items()}
    with torch.device("meta"):
        network = MODELS[f"resnet50w{times}"]()
        theirs = Heads(2048 * times, hidden=hidden, batch_norm=times < 5).state_dict()
    state = read(module(trunk | {name: repeated(weight) for name, weight in theirs.items()}))
    assert state["arch"] == f"resnet50w{times}"
    assert shapes_of(state["state_dict"]) == shapes_of(network.state_dict())
    count = 9 if times < 5 else 4
    assert state["layout"]["left_out"] == [f"projection_head ({count})", "prototypes"]
    assert state["std"] == SWAV_STD
    found = heads_for({name: weight.to("meta") for name, weight in state["heads"].items()})
    assert shapes_of(found.state_dict()) == shapes_of(theirs)


def test_the_heads_can_be_rebuilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()
    theirs = Heads(512, 16, 32, [7, 9])
    bodies = {n: w for n, w in resnet18().state_dict().items() if not n.startswith("fc.")}
    path = tmp_path / "deepclusterv2.pth.tar"
    torch.save(module(bodies | theirs.state_dict()), path)
    found = heads_for(read_checkpoint(path)["heads"])
    for name, weight in theirs.state_dict().items():
        assert torch.equal(found.state_dict()[name], weight)
    assert load_model(path).top_layer is None
    warned = capsys.readouterr().err.splitlines()
    assert warned == [f"warning: {path}: left out projection_head (9), prototypes (2)"] * 2


@pytest.mark.parametrize(
    "other",
    [
        {"projection_head.layers.0.weight": torch.ones(8, 2048)},  # Lightly's
        {"projection_head.0.weight": torch.ones(8, 2048)},  # without a last layer
        {"fc.weight": torch.ones(5, 2048), "fc.bias": torch.ones(5)},  # torchvision's classifier
    ],
)
def test_other_heads_leave_the_deviation_unknown(other: Weights) -> None:
    state = read(body() | other)
    assert state["arch"] == "resnet50"
    assert not {"heads", "std"} & state.keys()


def test_a_checkpoints_own_heads_and_deviation_are_kept() -> None:
    own = {"state_dict": body() | SWAV, "heads": {"mine": torch.ones(1)}, "std": (1.0, 1.0, 1.0)}
    state = read(own)
    assert (state["heads"].keys(), state["std"]) == ({"mine"}, (1.0, 1.0, 1.0))


def test_vissls_heads_are_named() -> None:
    trunk = {f"_feature_blocks.{name}": weight for name, weight in body().items()}
    model = {"trunk": trunk, "heads": {f"0.{name}": weight for name, weight in SWAV.items()}}
    state = read({"classy_state_dict": {"base_model": {"model": model}}})
    assert state["arch"] == "resnet50"
    assert state["layout"]["left_out"] == ["heads (10)"]
    assert "std" not in state, "VISSL divides by ImageNet's"


@pytest.mark.parametrize("norm", [[], ["bn.weight", "bn.running_mean"]])
def test_a_linear_classifier_alone_is_no_network(norm: list[str]) -> None:
    names = ["linear.weight", "linear.bias", *norm]
    weights = {name: torch.ones(3) for name in names}
    with pytest.raises(InputError) as error:
        read({**TRAINING, "state_dict": module(weights), "best_acc": 75.3})
    assert str(error.value) == (
        f"c.pth: holds a linear classifier alone ({', '.join(names)}), no network; give the file "
        "of the network on which it was trained"
    )
