"""Loading checkpoints: what works, and one clear line for what doesn't."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny

from checkpoints.checkpoint import load_model, read_checkpoint, save_checkpoint
from models import MODELS, untrained
from system.errors import InputError


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    model = untrained("tiny", sobel=True, out=12, seed=0)
    return {"epoch": 3, "arch": "tiny", "state_dict": model.state_dict(), "optimizer": {}}


def saved(tmp_path: Path, contents: object) -> Path:
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(contents, path)
    return path


@torch.inference_mode()
def test_a_saved_network_computes_the_same_when_loaded(
    tmp_path: Path, state: dict[str, Any]
) -> None:
    save_checkpoint(tmp_path / "c.pth.tar", state)
    model = load_model(tmp_path / "c.pth.tar").eval()
    original = untrained("tiny", sobel=True, out=12, seed=0).eval()
    x = torch.randn(2, 3, 64, 64)
    assert model.sobel is not None
    assert torch.equal(model(x), original(x))
    assert model(x).shape == (2, 12)


@torch.inference_mode()
def test_without_top_layer_the_forward_pass_ends_with_the_classifier(
    tmp_path: Path, state: dict[str, Any]
) -> None:
    weights = {n: w for n, w in state["state_dict"].items() if not n.startswith("top_layer")}
    model = load_model(saved(tmp_path, {**state, "state_dict": weights})).eval()
    assert model.top_layer is None
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 32)


def test_weights_that_do_not_fit_are_named(tmp_path: Path, state: dict[str, Any]) -> None:
    weights = dict(state["state_dict"])
    weights["extra.weight"] = weights.pop("features.0.bias")
    weights["features.4.weight"] = torch.zeros(2)
    with pytest.raises(InputError) as error:
        load_model(saved(tmp_path, {**state, "state_dict": weights}))
    assert str(error.value).endswith(
        "do not fit tiny: missing: features.0.bias; unexpected: extra.weight; "
        "of another shape: features.4.weight"
    )


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02", b"PK\x03\x04" + b"x" * 50])
def test_bytes_that_are_not_a_checkpoint_raise(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.pth.tar"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a checkpoint"):
        read_checkpoint(path)


def test_a_truncated_checkpoint_raises(tmp_path: Path, state: dict[str, Any]) -> None:
    path = saved(tmp_path, {**state, "state_dict": {"w": torch.zeros(1000)}})
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match="not a checkpoint"):
        read_checkpoint(path)


@pytest.mark.parametrize("contents", [[1], {"weights": 1}, {"state_dict": 5, "arch": "alexnet"}])
def test_other_contents_of_a_torch_file_raise(tmp_path: Path, contents: object) -> None:
    with pytest.raises(InputError, match="holds no 'state_dict'"):
        read_checkpoint(saved(tmp_path, contents))


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path, {"arch": "lenet", "state_dict": {}})
    with pytest.raises(
        InputError, match="architecture is 'lenet', and its weights fit none of alexnet, vgg16"
    ):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"arch": ["lenet"], "state_dict": {}}, r"its architecture is \['lenet'\], not one of"),
        ({"state_dict": {3: torch.zeros(2)}}, "something other than weights: '3'"),
        ({"state_dict": {"features.0.bias": [0.0]}}, "other than weights: 'features.0.bias'"),
        ({"settings": [1]}, "its settings are not a table"),
        ({"settings": {1: 2}}, "its settings are not a table"),
    ],
)
def test_a_malformed_checkpoint_raises(
    tmp_path: Path, state: dict[str, Any], wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_checkpoint(saved(tmp_path, {**state, **wrong}))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {canary}",)

    path = tmp_path / "hostile.pth.tar"
    for save in (torch.save, lambda value, to: to.write_bytes(pickle.dumps(value))):
        save({"arch": "alexnet", "state_dict": Hostile()}, path)
        with pytest.raises(InputError, match="not a checkpoint"):
            read_checkpoint(path)
    assert not canary.exists()


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path: Path, state: dict[str, Any]) -> None:
    path = tmp_path / "c.pth.tar"
    save_checkpoint(path, state)
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        save_checkpoint(path, {"big": torch.zeros(10_000), "bad": lambda: 0})
    assert read_checkpoint(path)["epoch"] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["c.pth.tar"]


def test_weights_that_are_not_finite_are_named(tmp_path: Path, state: dict[str, Any]) -> None:
    state["state_dict"]["features.0.weight"][0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match=r"do not fit tiny: not finite: features\.0\.weight$"):
        load_model(saved(tmp_path, state))
