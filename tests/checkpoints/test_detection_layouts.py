"""Weights for detection and segmentation: torchvision's models load them, and their names are those
of detectron2 and mmdet."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet18
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.segmentation import fcn_resnet50
from torchvision.ops.misc import FrozenBatchNorm2d

from checkpoints.checkpoint import load_model, save_checkpoint
from checkpoints.detection import detection_file
from models import MODELS, untrained
from models.convnet import ConvNet
from system.errors import InputError
from system.normalisation import SWAV_STD
from tools import export

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}
CONVOLUTIONS = {"resnet18": 2, "resnet50": 3}  # of a block


@functools.cache
def network(arch: str) -> ConvNet:
    """With batch norms that look trained."""
    model = untrained(arch, False, 5, seed=1).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in model.features.state_dict().values():
            if tensor.ndim == 1:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model


def exported(folder: Path, model: ConvNet, layout: str, **entries: Any) -> Any:
    """The content of the file that `tools.export` writes."""
    state = {"epoch": 3, "arch": model.arch, "state_dict": model.state_dict(), **entries}
    save_checkpoint(folder / "checkpoint.pth.tar", state)
    out = folder / f"{layout}.pth"
    command = [str(folder / "checkpoint.pth.tar"), str(out), "--layout", layout]
    export.main(export.parse_args(command))
    return torch.load(out, weights_only=True)


def below(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": weight for name, weight in weights.items()}


@torch.inference_mode()
def test_torchvisions_detector_and_segmenter_load_the_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = network("resnet50")
    weights = exported(tmp_path, model, "torchvision", std=list(SWAV_STD))
    assert "image_std=[0.228, 0.224, 0.225]" in capsys.readouterr().out
    parts = {"weights": None, "weights_backbone": None}
    few = {"num_classes": 4, "min_size": 64, "max_size": 64, "rpn_post_nms_top_n_test": 10}
    detector = fasterrcnn_resnet50_fpn(**parts, **few).eval()
    found = detector.load_state_dict(below("backbone.body", weights), strict=False)
    assert not found.unexpected_keys
    assert {name.partition(".")[0] for name in found.missing_keys} == {
        "backbone",
        "rpn",
        "roi_heads",
    }
    assert all("backbone.body" not in name for name in found.missing_keys)
    segmenter = fcn_resnet50(**parts, num_classes=4).eval()
    found = segmenter.load_state_dict(below("backbone", weights), strict=False)
    assert not found.unexpected_keys
    assert {name.partition(".")[0] for name in found.missing_keys} == {"classifier"}

    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    maps = detector.backbone.body(images)
    for stage, name in enumerate("0123"):
        expected = model.conv_features(images, stage + 2)
        torch.testing.assert_close(maps[name], expected, rtol=1e-4, atol=1e-4)
    (boxes,) = detector(images)
    assert boxes["boxes"].shape[1:] == (4,)
    assert segmenter(images)["out"].shape == (1, 4, 64, 64)


def test_torchvisions_resnet18_lacks_only_its_classifier(tmp_path: Path) -> None:
    model = network("resnet18")
    other, weights = resnet18(weights=None), exported(tmp_path, model, "torchvision")
    found = other.load_state_dict(weights, strict=False)
    assert (found.missing_keys, found.unexpected_keys) == (["fc.weight", "fc.bias"], [])
    frozen = resnet_fpn_backbone(backbone_name="resnet18", weights=None).body
    assert isinstance(frozen["bn1"], FrozenBatchNorm2d)
    frozen.load_state_dict(weights)
    again = load_model(tmp_path / "torchvision.pth")
    for name, weight in model.features.state_dict().items():
        assert torch.equal(again.features.state_dict()[name], weight), name


def each_convolution(arch: str) -> Iterator[tuple[str, str, str]]:
    """The names of a ResNet's convolutions in detectron2, and of convolutions and batch norms in
    mmdet, which has torchvision's."""
    yield "stem.conv1", "conv1", "bn1"
    for stage, blocks in enumerate(BLOCKS[arch], 1):
        for block in range(blocks):
            here, there = f"res{stage + 1}.{block}", f"layer{stage}.{block}"
            for number in range(1, CONVOLUTIONS[arch] + 1):
                yield f"{here}.conv{number}", f"{there}.conv{number}", f"{there}.bn{number}"
            if block == 0 and (stage > 1 or arch == "resnet50"):
                yield f"{here}.shortcut", f"{there}.downsample.0", f"{there}.downsample.1"


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_names_and_weights_are_detectron2s(arch: str) -> None:
    content, own = detection_file(network(arch), "detectron2", {}), network(arch).state_dict()
    found = content.pop("model")
    assert content == {"__author__": "deepcluster", "matching_heuristics": True}
    expected = {}
    for name, convolution, norm in each_convolution(arch):
        expected[f"{name}.weight"] = own[f"features.{convolution}.weight"]
        for kind in ("weight", "bias", "running_mean", "running_var"):
            expected[f"{name}.norm.{kind}"] = own[f"features.{norm}.{kind}"]
    assert found.keys() == expected.keys()
    assert len(found) == {"resnet18": 100, "resnet50": 265}[arch], "five for each convolution"
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_names_and_weights_are_mmdets(arch: str) -> None:
    about = {"arch": arch}
    content, own = detection_file(network(arch), "mmdet", about), network(arch).state_dict()
    assert content["meta"] == about
    kinds = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = {f"{convolution}.weight" for _, convolution, _ in each_convolution(arch)}
    names |= {f"{norm}.{kind}" for _, _, norm in each_convolution(arch) for kind in kinds}
    assert content["state_dict"].keys() == names
    assert all(torch.equal(content["state_dict"][n], own[f"features.{n}"]) for n in names)


@pytest.mark.parametrize(
    ("layout", "key", "settings"),
    [
        ("detectron2", "model", "MODEL.PIXEL_STD [58.14, 57.12, 57.375], INPUT.FORMAT RGB"),
        ("mmdet", "state_dict", "std=[58.14, 57.12, 57.375], bgr_to_rgb=True"),
    ],
)
def test_the_file_has_the_weights_and_the_output_the_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], layout: str, key: str, settings: str
) -> None:
    model = network("resnet18")
    content = exported(tmp_path, model, layout, std=list(SWAV_STD))
    expected = detection_file(model, layout, {})
    assert content.keys() == expected.keys()
    assert content[key].keys() == expected[key].keys()
    assert all(torch.equal(content[key][name], weight) for name, weight in expected[key].items())
    assert settings in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arch", "sobel", "message"),
    [
        ("resnet18", True, "--layout mmdet: the network has Sobel filters, and mmdet's have none"),
        ("resnet18_small", False, "--layout mmdet: takes resnet18 and resnet50, not resnet18_sm"),
    ],
)
def test_other_networks_are_bad_input(arch: str, sobel: bool, message: str) -> None:
    with torch.device("meta"):
        model = MODELS[arch](sobel=sobel)
    with pytest.raises(InputError, match=message) as error:
        detection_file(model, "mmdet", {})
    assert "\n" not in str(error.value)


def test_merged_sobel_filters_are_bad_input() -> None:
    """They make the first convolution a 9 × 9 one."""
    model = untrained("resnet18", True, 5, seed=1)
    model.merge_sobel()
    with pytest.raises(InputError, match=r"torchvision: the network's first convolution is 9 × 9"):
        detection_file(model, "torchvision", {})
