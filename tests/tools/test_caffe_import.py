"""Caffe networks as ours: their outputs equal OpenCV's for the same files.

`caffe_outputs.npz` has the outputs of OpenCV 4.14.0.94, an array for each test. Record it with

    pip install "opencv-python-headless<5"   # version 5 reads no Caffe files
    RECORD=1 python -m pytest tests/tools/test_caffe_import.py
"""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from caffe_files import (
    Layer,
    convolution,
    layers_of,
    linear,
    randomised,
    write_caffe,
    write_caffe_v1,
)  # fmt: skip
from conftest import ErrorLine, tiny
from torch import Tensor, nn

from checkpoints.checkpoint import load_model
from data.transforms import to_input
from models import MODELS, ConvNet
from models.alexnet import LAYERS
from models.convnet import conv_layers
from models.vgg16 import CHANNELS_PER_STAGE
from system import cli
from system.errors import InputError
from tools.caffe import import_model
from tools.caffe.import_model import load_caffe

SIDE = 30  # of the input; the tiny network's maps need no rounding then
CLOSE = 1e-5  # relative to the largest value

Files = tuple[Path, Path]
ByOpenCV = Callable[..., np.ndarray]

STORED = Path(__file__).with_name("caffe_outputs.npz")
RECORD = "RECORD" in os.environ


@pytest.fixture(autouse=True)
def _known_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "tiny", tiny)


def random_pixels(side: int) -> Tensor:
    """`(2, 3, side, side) uint8`"""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (2, 3, side, side), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def stored() -> Iterator[dict[str, np.ndarray]]:
    """OpenCV's outputs, by the name of the test."""
    outputs: dict[str, np.ndarray] = {}
    if not RECORD:
        with np.load(STORED, allow_pickle=False) as file:
            outputs = dict(file)
    yield outputs
    if RECORD:
        np.savez_compressed(STORED, allow_pickle=False, **outputs)


@pytest.fixture
def by_opencv(stored: dict[str, np.ndarray], request: pytest.FixtureRequest) -> ByOpenCV:
    """OpenCV's output for a test's Caffe files and `(B, 3, H, W) uint8` RGB pixels, of the last
    layer or a named one."""

    def outputs(files: Files, pixels: Tensor, layer: str | None = None) -> np.ndarray:
        if RECORD:
            import cv2

            net = cv2.dnn.readNetFromCaffe(*map(str, files))
            net.setInput(pixels.flip(1).numpy().astype(np.float32))  # BGR from 0 to 255
            stored[request.node.name] = net.forward(layer) if layer else net.forward()
        return stored[request.node.name]

    return outputs


@torch.inference_mode()
def assert_same_outputs(
    files: Files, original: ConvNet, by_opencv: ByOpenCV, side: int = SIDE
) -> ConvNet:
    """The imported network and OpenCV have the outputs of the original network."""
    pixels = random_pixels(side)
    x = to_input(pixels, torch.device("cpu"))
    imported = load_caffe(*files).eval()
    expected = original(x).numpy()
    assert imported.arch == original.arch
    assert error(imported(x).numpy(), expected) < CLOSE
    assert error(by_opencv(files, pixels), expected) < CLOSE
    return imported


def error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("norm", ["layers", "folded"])
@pytest.mark.parametrize("kind", ["scale", "power, batch norm", "mixture"])
@pytest.mark.parametrize("sobel", [False, True])
def test_outputs_equal_opencvs_and_the_original_networks(
    tmp_path: Path,
    sobel: bool,
    kind: str,
    norm: str,
    caplog: pytest.LogCaptureFixture,
    by_opencv: ByOpenCV,
) -> None:
    model = randomised(tiny(sobel, out=7))
    files = write_caffe(tmp_path, layers_of(model, kind, norm), SIDE)
    imported = assert_same_outputs(files, model, by_opencv)
    assert (imported.sobel is not None) == sobel
    assert caplog.messages == []


def test_a_grey_filter_with_mean_and_scale_folded_in(tmp_path: Path, by_opencv: ByOpenCV) -> None:
    model = randomised(tiny(sobel=True))
    assert_same_outputs(write_caffe(tmp_path, layers_of(model, "grey"), SIDE), model, by_opencv)


def test_grey_and_sobel_filters_in_one_convolution(tmp_path: Path, by_opencv: ByOpenCV) -> None:
    model = randomised(tiny(sobel=True))
    assert model.sobel is not None
    model.sobel[0].load_state_dict({**model.sobel[0].state_dict(), "bias": torch.zeros(1)})
    assert_same_outputs(
        write_caffe(tmp_path, layers_of(model, "one convolution"), SIDE), model, by_opencv
    )


def test_two_filters_of_different_colours_are_not_sobel_filters(tmp_path: Path) -> None:
    layers = layers_of(randomised(tiny(sobel=True)), "one convolution")
    layers[1].blobs[0][0, 0] += 0.1
    with pytest.raises(InputError, match="layer 'sobel': its 2 filters are not those of one grey"):
        load_caffe(*write_caffe(tmp_path, layers, SIDE))


@pytest.mark.parametrize("sobel", [False, True])
def test_the_format_before_the_end_of_2014(
    tmp_path: Path, sobel: bool, by_opencv: ByOpenCV
) -> None:
    model = randomised(tiny(sobel, out=7))
    kind = "grey" if sobel else "mixture"
    layers = [layer for layer in layers_of(model, kind, "folded") if layer.type != "Softmax"]
    assert_same_outputs(write_caffe_v1(tmp_path, layers, SIDE), model, by_opencv)


def test_batch_norm_keeps_its_statistics(tmp_path: Path) -> None:
    model = randomised(tiny(sobel=True))
    imported = load_caffe(*write_caffe(tmp_path, layers_of(model, "grey"), SIDE))
    for name, values in model.features[1].state_dict().items():
        if name != "num_batches_tracked":
            torch.testing.assert_close(imported.state_dict()[f"features.1.{name}"], values)


@torch.inference_mode()
def test_padding_with_a_mean_warns_about_the_edges(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, by_opencv: ByOpenCV
) -> None:
    model = randomised(tiny())
    files = write_caffe(tmp_path, layers_of(model, "folded", "folded"), SIDE)
    with caplog.at_level(logging.WARNING):
        imported = load_caffe(*files).eval()
    (message,) = caplog.messages
    assert message.startswith(f"{files[0]}: layer 'conv0': pads with another value than ImageNet's")
    pixels = random_pixels(SIDE)
    x = to_input(pixels, torch.device("cpu"))
    assert error(imported(x).numpy(), model(x).numpy()) < CLOSE, "which pads as the import does"
    found = imported.features[:2](x).numpy()
    expected = by_opencv(files, pixels, "conv0")
    assert error(found[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1]) < CLOSE
    assert error(found[:, :, 0], expected[:, :, 0]) > 0.01


@torch.inference_mode()
def test_softmax_is_left_out(tmp_path: Path, by_opencv: ByOpenCV) -> None:
    model = randomised(tiny(out=7))
    files = write_caffe(tmp_path, layers_of(model, "scale", softmax=True), SIDE)
    pixels = random_pixels(SIDE)
    logits = load_caffe(*files).eval()(to_input(pixels, torch.device("cpu")))
    assert error(logits.softmax(1).numpy(), by_opencv(files, pixels)) < CLOSE


def test_without_a_top_layer(tmp_path: Path, by_opencv: ByOpenCV) -> None:
    model = randomised(tiny(sobel=True))
    model.top_layer = None
    imported = assert_same_outputs(
        write_caffe(tmp_path, layers_of(model, "grey", top=False), SIDE), model, by_opencv
    )
    assert imported.top_layer is None


@torch.inference_mode()
def test_a_net_that_ends_before_the_last_relu_gives_the_embedding(
    tmp_path: Path, by_opencv: ByOpenCV
) -> None:
    model = randomised(tiny(sobel=True))
    files = write_caffe(tmp_path, layers_of(model, "grey", top=False)[:-1], SIDE)
    pixels = random_pixels(SIDE)
    embedding = load_caffe(*files).eval().embedding(to_input(pixels, torch.device("cpu")))
    assert error(embedding.numpy(), by_opencv(files, pixels)) < CLOSE


def thin(arch: str) -> Callable[..., ConvNet]:
    """A network with an eighth of its channels and 32 hidden units."""
    if arch == "alexnet":
        table = [row if isinstance(row, str) else (row[0] // 8, *row[1:]) for row in LAYERS]
        grid, channels = 6, 32
    else:
        table = []
        for stage in CHANNELS_PER_STAGE:
            table += [*((width // 8, 3, 1, 1) for width in stage), "pool 2/2"]
        grid, channels = 7, 64

    def make(sobel: bool = False, out: int = 1000) -> ConvNet:
        features = conv_layers(2 if sobel else 3, table)
        first = nn.Linear(channels * grid * grid, 32)
        hidden = [nn.Dropout(0.5), first, nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 32), nn.ReLU()]
        return ConvNet(arch, features, grid, nn.Sequential(*hidden), 32, out, sobel)

    return make


@pytest.mark.parametrize("arch", ["alexnet", "vgg16"])
@pytest.mark.parametrize("sobel", [False, True])
def test_the_released_architectures_at_224_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arch: str, sobel: bool, by_opencv: ByOpenCV
) -> None:
    monkeypatch.setitem(MODELS, arch, thin(arch))
    model = randomised(MODELS[arch](sobel=sobel, out=9))
    files = write_caffe(tmp_path, layers_of(model, "mixture"), 224)
    assert_same_outputs(files, model, by_opencv, 224)


def test_input_sizes_where_caffe_rounds_up_are_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "alexnet", thin("alexnet"))
    layers = layers_of(MODELS["alexnet"](out=9), "mixture")
    with pytest.raises(InputError) as raised:
        load_caffe(*write_caffe(tmp_path, layers, 227))
    assert str(raised.value).endswith(
        "net.prototxt: layer 'pool3': makes 28 × 28 of a map of 56 × 56, as Caffe rounds up, where "
        "alexnet has 27 × 27; a network with this input size can't be imported"
    )
    with pytest.raises(InputError, match=r"input of 127 pixels leaves maps of 3 × 3 to the linear"):
        load_caffe(*write_caffe(tmp_path, layers, 127))


def test_scales_and_biases_as_separate_layers(tmp_path: Path) -> None:
    model = randomised(tiny(out=7))
    layers = layers_of(model, "scale", "folded")
    conv = next(index for index, layer in enumerate(layers) if layer.name == "conv4")
    bias = layers[conv].blobs.pop()
    text = layers[conv].text.replace("num_output", "bias_term: false num_output")
    layers[conv] = Layer("conv4", "Convolution", text, layers[conv].blobs)
    layers.insert(conv + 1, Layer("bias4", "Bias", "", [bias]))
    layers[-1].blobs = [values / 2 for values in layers[-1].blobs]
    layers.append(Layer("twice", "Power", "power_param {scale: 2}"))
    with torch.inference_mode():  # OpenCV has no Bias layer
        x = to_input(random_pixels(SIDE), torch.device("cpu"))
        imported = load_caffe(*write_caffe(tmp_path, layers, SIDE)).eval()
        assert error(imported(x).numpy(), model(x).numpy()) < CLOSE


def replaced(layers: list[Layer], name: str, *new: Layer) -> list[Layer]:
    return [each for layer in layers for each in (new if layer.name == name else [layer])]


RELU = Layer("more", "ReLU")
HUGE = Layer("huge", "Power", "power_param { scale: 3e38 }")


@pytest.mark.parametrize(
    ("name", "new", "message"),
    [
        ("pool3", [], "prototxt: layer 'conv4': is a Convolution, where tiny has a MaxPool"),
        ("pool3", [Layer("p", "Pooling", "pooling_param {kernel_size: 2 stride: 2}")],
         "prototxt: layer 'p': is max-pooling over 2 × 2 with stride 2 and padding 0, where tiny "
         "has 3 × 3 with stride 2 and padding 0"),
        ("conv0", [convolution("c", np.ones((8, 2, 5, 5)), np.zeros(8), 2)],
         "prototxt: layer 'c': is a convolution of 8 × 2 × 5 × 5 with stride 2 and padding 0, "
         "where tiny has 8 × 2 × 5 × 5 with stride 2 and padding 2"),
        ("relu2", [RELU, RELU], "prototxt: layer 'more': is a ReLU, where tiny has a MaxPool"),
        ("relu2", [RELU, Layer("s", "Power")], "layer 's': is a Scaling, where tiny has a MaxPool"),
        ("grey", [Layer("r", "ReLU")], "layer 'r': comes before the first convolution of the"),
        ("grey", [], r"layer 'sobel': takes 1 channels, of which there are 3"),
        ("conv4", [], r"prototxt: has 1 convolutions in its features, not 5 \(alexnet\), 13"),
        ("scale0", [Layer("s", "Scale", "", [np.ones(5)])],
         "prototxt: layer 's': scales 5 channels, of which there are 8"),
        ("top", [linear("top", nn.Linear(31, 7))],
         "prototxt: layer 'top': is a Linear of 7 × 31, where tiny has … × 32"),
        ("fc1", [linear("fc1", nn.Linear(144, 40))],
         "prototxt: layer 'fc1': is a Linear of 40 × 144, where tiny has 32 × 144"),
        ("top", [linear("top", nn.Linear(32, 7)), RELU], "'more': comes after the end of tiny"),
        ("brighter", [HUGE, HUGE], "do not fit tiny: not finite: sobel.1.weight"),
    ],
)  # fmt: skip
def test_a_layer_that_our_network_does_not_have_is_named(
    tmp_path: Path, name: str, new: list[Layer], message: str
) -> None:
    layers = replaced(layers_of(randomised(tiny(sobel=True)), "grey"), name, *new)
    with pytest.raises(InputError, match=message) as raised:
        load_caffe(*write_caffe(tmp_path, layers, SIDE))
    assert "\n" not in str(raised.value)


def test_a_net_that_ends_too_early(tmp_path: Path) -> None:
    layers = layers_of(randomised(tiny()), "scale", top=False)[:-3]
    with pytest.raises(InputError, match=r"prototxt: ends where tiny has a Linear"):
        load_caffe(*write_caffe(tmp_path, layers, SIDE))


def run(*paths: Path) -> int:
    return cli.run(import_model.main, import_model.parse_args, list(map(str, paths)))


def test_the_script_writes_a_checkpoint_that_training_can_resume_from(
    tmp_path: Path,
    tree: Path,
    train: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = randomised(tiny(sobel=True, out=7))
    files = write_caffe(tmp_path, layers_of(model, "grey"), SIDE)
    out = tmp_path / "tiny.pth.tar"
    assert run(*files, out) == 0
    assert capsys.readouterr().out == f"tiny with Sobel filters, 7 outputs: written to {out}\n"
    imported, loaded = load_caffe(*files).state_dict(), load_model(out).state_dict()
    assert all(torch.equal(imported[name], loaded[name]) for name in imported)
    resumed = load_model(train(tree, "--resume", str(out), exp="new") / "checkpoint.pth.tar")
    assert torch.equal(resumed.state_dict()["sobel.0.weight"], imported["sobel.0.weight"])


def test_bad_input_leaves_nothing(tmp_path: Path, error_line: ErrorLine) -> None:
    files = write_caffe(tmp_path, layers_of(tiny(), "scale"), SIDE)
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "tiny.pth.tar"
    error = error_line(import_model, files[1], files[0], out)
    assert "net.caffemodel: not a Caffe prototxt" in error
    error = error_line(import_model, files[0], tmp_path / "gone.caffemodel", out)
    assert "gone.caffemodel: cannot read this file: No such file or directory" in error
    error = error_line(import_model, *files, tmp_path / "gone" / "x.pth.tar")
    assert "x.pth.tar: cannot write it: No such file or directory" in error
    assert list((tmp_path / "out").iterdir()) == []
