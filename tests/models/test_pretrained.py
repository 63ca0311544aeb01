"""Torchvision's VGG-16 as ours: the same maps, from torch's cache, without internet access."""

import urllib.request
from pathlib import Path

import pytest
import torch
import torchvision

from models.frozen import frozen
from models.pretrained import as_vgg16, pretrained_vgg16
from system.errors import InputError


@torch.inference_mode()
def test_it_computes_the_same_as_torchvisions() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.vgg16_bn(weights=None, init_weights=False).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    ours = as_vgg16(theirs.state_dict())
    x = torch.randn(1, 3, 64, 96)
    with frozen(ours):
        before_last_pool = theirs.features[:-1](x)
        assert before_last_pool.shape == (1, 512, 4, 6)
        torch.testing.assert_close(ours.conv_features(x, ours.conv_layers), before_last_pool)
        torch.testing.assert_close(ours(x), theirs(x))


def fake_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def no_net(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("Temporary failure in name resolution")

    monkeypatch.setenv("TORCH_HOME", str(home))
    monkeypatch.setattr("torch.hub.urlopen", no_net)
    folder = home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder / "vgg16_bn-6c64b313.pth"


def test_weights_come_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fake_cache(tmp_path, monkeypatch)
    with torch.device("meta"):
        shapes = {n: w.shape for n, w in torchvision.models.vgg16_bn().state_dict().items()}
    values = {n: torch.full((), 0.5).expand(shape) for n, shape in shapes.items()}
    torch.save(values, path)  # each weight repeats one number: kilobytes instead of 500 MB
    model = pretrained_vgg16()
    assert model.arch == "vgg16"
    assert all((weight == 0.5).all() for weight in model.parameters())


def test_the_message_says_what_to_do_without_internet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fake_cache(tmp_path, monkeypatch)
    expected = f"vgg16_bn-6c64b313.pth: .*name resolution.*put this file into {path.parent}$"
    with pytest.raises(InputError, match=expected):
        pretrained_vgg16()
    path.write_bytes(b"not weights")
    with pytest.raises(InputError, match="cannot load torchvision's"):
        pretrained_vgg16()
    torch.save({"classifier.6.bias": Path("something that is no tensor")}, path)
    with pytest.raises(InputError, match=r"cannot load torchvision's .*Weights only"):
        pretrained_vgg16()
