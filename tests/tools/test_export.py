"""export.py: ONNX files compute torch's outputs, and safetensors are read back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors
import torch
from conftest import tiny
from torchvision import transforms

from checkpoints.checkpoint import load_model, read_checkpoint, save_checkpoint
from models import MODELS
from models.convnet import ConvNet
from system.errors import InputError
from tools import export

SOBEL, COLOUR = True, False


@pytest.fixture
def checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Path:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    torch.manual_seed(0)
    model = tiny(sobel=getattr(request, "param", SOBEL), out=7).train()
    for _ in range(3):  # for batch norm's statistics
        model(torch.randn(8, 3, 32, 32))
    for parameter in model.classifier.parameters():
        torch.nn.init.normal_(parameter)  # large outputs
    return saved(tmp_path, model)


def saved(tmp_path: Path, model: ConvNet) -> Path:
    path = tmp_path / "checkpoint.pth.tar"
    state = {"epoch": 4, "arch": "tiny", "state_dict": model.state_dict(), "settings": {"size": 32}}
    save_checkpoint(path, state)
    return path


def run(*command: object) -> None:
    export.main(export.parse_args([str(word) for word in command]))


def run_onnx(path: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


def metadata(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


@torch.no_grad()
@pytest.mark.parametrize(
    ("checkpoint", "flags", "output", "size"),
    [
        (SOBEL, "", "embedding", 32),
        (SOBEL, "--output logits --size 45", "logits", 45),
        (COLOUR, "--output conv2", "conv2", 32),
    ],
    indirect=["checkpoint"],
)
def test_onnx_outputs_equal_torchs(
    checkpoint: Path, tmp_path: Path, flags: str, output: str, size: int
) -> None:
    """The number of images varies, and the classifier's grid does not divide the maps."""
    run(checkpoint, tmp_path / "net.onnx", *flags.split())
    model = load_model(checkpoint).eval()
    images = torch.randn(5, 3, size, size)
    for batch in (images, images[:1]):
        outputs = {"embedding": model.embedding(batch), "logits": model(batch)}
        outputs["conv2"] = model.conv_features(batch, 2)
        truth = outputs[output].numpy()
        np.testing.assert_allclose(
            run_onnx(tmp_path / "net.onnx", batch.numpy()), truth, rtol=1e-4, atol=1e-4
        )
    proto = onnx.load(tmp_path / "net.onnx")
    onnx.checker.check_model(proto, full_check=True)
    assert [each.name for each in proto.graph.output] == [output]


@torch.no_grad()
def test_onnx_can_normalise_the_images(checkpoint: Path, tmp_path: Path) -> None:
    run(checkpoint, tmp_path / "net.onnx", "--normalise")
    images = torch.rand(2, 3, 32, 32)
    normalise = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    truth = load_model(checkpoint).eval().embedding(normalise(images)).numpy()
    found = run_onnx(tmp_path / "net.onnx", images.numpy())
    np.testing.assert_allclose(found, truth, rtol=1e-4, atol=1e-4)
    assert metadata(tmp_path / "net.onnx")["input"].endswith("RGB, from 0 to 1")


def test_onnx_metadata_describe_the_network(checkpoint: Path, tmp_path: Path) -> None:
    run(checkpoint, tmp_path / "net.onnx")
    about = metadata(tmp_path / "net.onnx")
    sobel = load_model(checkpoint).sobel is not None
    expected = {"arch": "tiny", "k": "7", "epoch": "4", "size": "32", "output": "embedding"}
    assert about.items() >= {**expected, "sobel": str(sobel).lower()}.items()
    assert about["input"] == (
        "images (batch, 3, 32, 32) float32, RGB, from 0 to 1, minus (0.485, 0.456, 0.406), "
        "divided by (0.229, 0.224, 0.225) (ImageNet)"
    )
    assert b"/models/convnet.py" not in (tmp_path / "net.onnx").read_bytes(), "no traces of code"


def test_onnx_with_wrong_outputs_is_not_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single wrong value is enough, here for the last image of the larger batch."""
    real = onnxruntime.InferenceSession

    class Session:
        wrong = 0.0

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.session = real(*args, **kwargs)

        def run(self, names: None, images: dict[str, np.ndarray]) -> list[np.ndarray]:
            (found,) = self.session.run(names, images)
            if len(found) == 3:
                found[2, 1] += self.wrong * max(abs(found[2, 1]), 1)
            return [found]

    exported: list[bytes] = []
    to_onnx = export.to_onnx

    def once(*args: Any) -> bytes:
        exported.extend([] if exported else [to_onnx(*args)])
        return exported[0]

    monkeypatch.setattr(export, "to_onnx", once)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    for wrong in (2e-4, float("nan")):
        Session.wrong = wrong
        with pytest.raises(InputError, match=r"net\.onnx: not written, as onnxruntime's embedding"):
            run(checkpoint, tmp_path / "net.onnx")
        assert not list(tmp_path.glob("*net*"))


@pytest.mark.parametrize("checkpoint", [SOBEL, COLOUR], indirect=True)
def test_safetensors_are_read_back_as_the_same_network(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "net.safetensors"
    run(checkpoint, out)
    before, after = load_model(checkpoint), load_model(out)
    assert (after.sobel is None) == (before.sobel is None)
    assert after.state_dict().keys() == before.state_dict().keys()
    for name, weight in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], weight), name
    state = read_checkpoint(out)
    assert (state["arch"], state["epoch"], state["settings"]) == ("tiny", 4, {"size": 32})
    with safetensors.safe_open(out, framework="np") as file:
        about = file.metadata()
        assert set(file.keys()) == set(before.state_dict())
    assert (about["k"], about["sobel"]) == ("7", str(before.sobel is not None).lower())


def test_safetensors_without_top_layer_have_no_k(checkpoint: Path, tmp_path: Path) -> None:
    model = load_model(checkpoint)
    model.top_layer = None
    run(saved(tmp_path, model), tmp_path / "net.safetensors")
    assert load_model(tmp_path / "net.safetensors").top_layer is None
    with safetensors.safe_open(tmp_path / "net.safetensors", framework="np") as file:
        assert "k" not in file.metadata()
    with pytest.raises(InputError, match="--output logits: this network has embedding, conv1, co"):
        run(checkpoint, tmp_path / "net.onnx", "--output", "logits")


def header_of(about: dict[str, str]) -> bytes:
    text = json.dumps({"__metadata__": about}).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a checkpoint, but an empty file"),
        (b"x" * 100, "not a checkpoint, or a damaged one"),
        (header_of({"arch": "alexnet", "epoch": "last"}), "not a checkpoint, or a damaged one"),
        (header_of({}), "its architecture is not named"),
        (header_of({"arch": "alexnet"}), "its weights do not fit alexnet: missing: "),
    ],
)
def test_safetensors_without_a_network_are_bad_input(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_model(path)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("net.pt", r"net\.pt: give a file whose name ends in \.onnx or \.safetensors"),
        ("net.onnx --output fc7", r"--output fc7: this network has embedding, logits, conv1"),
        ("net.onnx --output conv3", r"--output conv3: this network has"),
        ("net.onnx --size 4", r"--size 4: too small for tiny; give"),
        ("net.safetensors --output conv1", r"--output: only for \.onnx; net\.safetensors holds"),
        ("net.safetensors --size 32", r"--size: only for \.onnx"),
        ("net.safetensors --normalise", r"--normalise: only for \.onnx"),
        ("net.onnx --layout mmdet", r"net\.onnx: give a file whose name ends in \.pth$"),
        (
            "net.pth --layout mmdet --size 32",
            r"--size: only for \.onnx; net\.pth holds the weights",
        ),
        ("net.pth --layout mmdet", r"--layout mmdet: takes resnet18 and resnet50, not tiny"),
        ("checkpoint.pth.tar/net.onnx", r"OUT .*checkpoint\.pth\.tar: cannot write there"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    checkpoint: Path, tmp_path: Path, command: str, message: str
) -> None:
    name, *flags = command.split()
    with pytest.raises(InputError, match=message) as error:
        run(checkpoint, tmp_path / name, *flags)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("*net*"))
