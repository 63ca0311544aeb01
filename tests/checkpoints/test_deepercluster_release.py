"""Files in the layout of DeeperCluster's release, with a small network in the place of VGG-16."""

import logging
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import vgg_like
from torch import Tensor
from torch.nn import functional as F

from checkpoints.checkpoint import (
    digest_of,
    load_model,
    network_entries,
    read_checkpoint,
    save_checkpoint,
    untrained_of,
)
from models import MODELS, ConvNet
from system.errors import InputError
from tools import export

Weights = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _vgg16_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "vgg16", vgg_like)


def body(sobel: bool) -> ConvNet:
    torch.manual_seed(0)
    model = vgg_like(sobel).eval()
    model.top_layer = None
    return model


def renamed(model: ConvNet, inner: str) -> Weights:
    """Names such as `module.body.features.0.weight` and `module.sobel.0.weight`."""
    return OrderedDict(
        (f"module.{n}" if n.startswith("sobel.") else f"module.{inner}{n}", weight)
        for n, weight in model.state_dict().items()
    )


def head(outputs: int) -> Weights:
    return {"weight": torch.zeros(outputs, 8), "bias": torch.zeros(outputs)}


def saved(path: Path, sobel: bool = True, inner: str = "body.", **more: Any) -> Path:
    torch.save({"state_dict": renamed(body(sobel), inner), **more}, path)
    return path


@torch.inference_mode()
@pytest.mark.parametrize("inner", ["body.", ""])
@pytest.mark.parametrize("sobel", [True, False])
def test_a_released_file_gives_the_released_networks_maps(
    tmp_path: Path, sobel: bool, inner: str
) -> None:
    model = load_model(saved(tmp_path / "ours.pth", sobel, inner)).eval()
    assert (model.arch, model.margin, model.sobel is not None) == ("vgg16", 1, sobel)
    x, own = torch.randn(1, 3, 224, 224), body(sobel)
    maps = model.conv_features(x, 1)
    assert maps.shape[2:] == (226, 226)
    # the release pads by 2 and its Sobel filters have no padding; without them, it pads by 1
    seen = F.pad(x, [1] * 4)
    if own.sobel is not None:
        grey, filters = own.sobel
        seen = F.conv2d(F.pad(grey(x), [2] * 4), filters.get_parameter("weight"))
    torch.testing.assert_close(maps, own.features[:3](seen))
    torch.testing.assert_close(model(x), own.classifier(own.features(seen).flatten(1)))


def test_heads_are_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    weights = renamed(body(True), "body.")
    weights |= {f"module.pred_layer.{name}": w for name, w in head(16).items()}
    top = {f"module.{name}": w for name, w in head(16).items()}
    path = tmp_path / "checkpoint.pth.tar"
    content = {"epoch": 3, "start_iter": 2000, "state_dict": weights, "pred_layer_state_dict": top}
    torch.save(content, path)
    caplog.set_level(logging.INFO, "deepcluster")
    load_model(path)
    left_out = "left out pred_layer (2), pred_layer_state_dict"
    assert capsys.readouterr().err == f"warning: {path}: {left_out}\n"
    assert caplog.messages == [
        f"{path}: vgg16 with Sobel filters, margin of 1 px, no top layer, epoch 3; zip of torch "
        "1.6 or later, of DeeperCluster's release: DeeperCluster, or DeepCluster on Flickr images, "
        f"architecture recognised by the weights, names with body. and module.; {left_out}"
    ]


def test_a_pred_layer_is_enough(tmp_path: Path) -> None:
    weights = body(False).state_dict() | {f"pred_layer.{n}": w for n, w in head(4).items()}
    torch.save(weights, tmp_path / "stripped.pth")
    assert load_model(tmp_path / "stripped.pth").margin == 1


def test_a_head_in_a_file_of_its_own_is_no_network(tmp_path: Path) -> None:
    path = tmp_path / "3-pred_layer.pth.tar"
    torch.save({"epoch": 1, "state_dict": {f"module.{n}": w for n, w in head(80).items()}}, path)
    with pytest.raises(InputError, match=r"holds a linear classifier alone \(weight, bias\), no"):
        load_model(path)


@pytest.mark.parametrize(
    "kind", ["ours", "of 2018", "of 2018, without top layer", "with top layer", "of AlexNet"]
)
def test_other_files_have_no_margin(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = vgg_like(sobel=True, out=5)
    of_2018 = {n.replace("features.", "features.module."): w for n, w in model.state_dict().items()}
    whole = renamed(model, "")
    if kind == "of AlexNet":
        monkeypatch.setitem(MODELS, "alexnet", vgg_like)
    content: dict[str, Any] = {
        "ours": network_entries(model),
        "of 2018": {"arch": "vgg16", "state_dict": of_2018},
        "of 2018, without top layer": {n: w for n, w in of_2018.items() if "top_layer" not in n},
        "with top layer": {"state_dict": whole},
        "of AlexNet": {n: w for n, w in whole.items() if "top_layer" not in n},
    }[kind]
    torch.save(content, tmp_path / "c.pth")
    state = read_checkpoint(tmp_path / "c.pth")
    assert ("margin" in state, state["layout"]["release"]) == (False, None)


@torch.inference_mode()
def test_the_margin_survives_every_way_to_save(tmp_path: Path) -> None:
    """As a checkpoint of a run, as what was read, and as safetensors."""
    path = saved(tmp_path / "ours.pth")
    model, x = load_model(path).eval(), torch.randn(1, 3, 64, 64)
    save_checkpoint(tmp_path / "entries.pth.tar", network_entries(model))
    save_checkpoint(tmp_path / "read.pth.tar", read_checkpoint(path))
    export.main(export.parse_args([str(path), str(tmp_path / "weights.safetensors")]))
    for name in ("entries.pth.tar", "read.pth.tar", "weights.safetensors"):
        again = load_model(tmp_path / name).eval()
        assert again.margin == 1, name
        assert digest_of(again) == digest_of(model)
        assert torch.equal(again(x), model(x))
    assert untrained_of(read_checkpoint(path), 0).margin == 1
    model.margin = 0
    assert digest_of(model) != digest_of(again)


@pytest.mark.parametrize("margin", [-1, 17, 1.0, True, "1", None])
def test_a_margin_that_is_no_number_of_pixels_is_bad_input(tmp_path: Path, margin: object) -> None:
    torch.save(network_entries(vgg_like()) | {"margin": margin}, tmp_path / "c.pth")
    with pytest.raises(InputError, match=r"its margin is .*; it should be 0 to 16 pixels"):
        load_model(tmp_path / "c.pth")


@torch.inference_mode()
@pytest.mark.parametrize("named", [True, False])
def test_a_network_with_merged_sobel_filters_is_saved_and_loaded(
    tmp_path: Path, named: bool
) -> None:
    model, x = load_model(saved(tmp_path / "ours.pth")).eval(), torch.randn(1, 3, 64, 64)
    expected = model(x)
    model.merge_sobel()
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    content = network_entries(model)
    if not named:
        del content["arch"]
    torch.save(content, tmp_path / "merged.pth")
    again = load_model(tmp_path / "merged.pth").eval()
    assert (again.margin, again.sobel) == (1, None)
    assert torch.equal(again(x), model(x))
