"""Reading Caffe files: damaged files and unknown layers are named in one line."""

from pathlib import Path

import numpy as np
import pytest
from caffe_files import Layer, convolution, save, write_caffe

from system.errors import InputError
from tools.caffe.layers import (
    BatchNorm,
    Convolution,
    Linear,
    MaxPool,
    ReLU,
    Scaling,
    compose,
)
from tools.caffe.net import read_net
from tools.caffe.proto import new

Files = tuple[Path, Path]

CONV = convolution("conv", np.ones((4, 3, 3, 3)), np.zeros(4), padding=1)
LINEAR = "inner_product_param { num_output: 5 }"
NORM = Layer(
    "bn",
    "BatchNorm",
    "batch_norm_param { eps: 0.5 }",
    [np.array([4.0]), np.array([3.0]), np.array([2.0])],
)


def test_a_net_without_an_input_size(tmp_path: Path) -> None:
    prototxt, caffemodel = write_caffe(tmp_path, [CONV], 30)
    prototxt.write_text(prototxt.read_text().replace("input_param", "another_param"))
    assert read_net(prototxt, caffemodel).side is None


def test_batch_norm_divides_its_sums_and_adds_its_eps(tmp_path: Path) -> None:
    (step,) = read_net(*write_caffe(tmp_path, [NORM], 30)).steps
    assert isinstance(step, BatchNorm)
    assert (step.mean, step.variance) == ([2.0], [2.0])
    assert compose([step], 1) == pytest.approx([1 / np.sqrt(2), -2 / np.sqrt(2)])


def test_scale_bias_and_power_layers_compose(tmp_path: Path) -> None:
    layers = [
        Layer(
            "a", "Scale", "scale_param { bias_term: true }", [np.array([2, 3]), np.array([1, 0])]
        ),
        Layer("b", "Bias", "", [np.array([5, 7])]),
        Layer("c", "Power", "power_param { scale: 10 shift: -1 }"),
    ]
    steps = read_net(*write_caffe(tmp_path, layers, 30)).steps
    scale, shift = compose([step for step in steps if isinstance(step, Scaling)], 2)
    assert scale.tolist() == [20, 30]
    assert shift.tolist() == [59, 69]


def test_a_transposed_linear_layer(tmp_path: Path) -> None:
    text = "inner_product_param { num_output: 2 transpose: true bias_term: false }"
    layer = Layer("fc", "InnerProduct", text, [np.arange(6).reshape(3, 2)])
    (step,) = read_net(*write_caffe(tmp_path, [layer], 30)).steps
    assert isinstance(step, Linear)
    assert step.weight.tolist() == [[0, 2, 4], [1, 3, 5]]
    assert step.bias.tolist() == [0, 0]


def test_sizes_given_for_each_direction(tmp_path: Path) -> None:
    sizes = "kernel_h: 3 kernel_w: 3 stride_h: 2 stride_w: 2 pad_h: 1 pad_w: 1"
    layers = [
        Layer("a", "Convolution", f"convolution_param {{ num_output: 4 {sizes} }}", CONV.blobs),
        Layer("b", "Pooling", f"pooling_param {{ {sizes} round_mode: FLOOR }}"),
    ]
    first, second = read_net(*write_caffe(tmp_path, layers, 30)).steps
    assert isinstance(first, Convolution)
    assert (first.stride, first.padding) == (2, 1)
    assert isinstance(second, MaxPool)
    assert (second.kernel, second.stride, second.padding, second.rounds_up) == (3, 2, 1, False)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Layer("x", "LRN"), r"net.prototxt: layer 'x': is of type 'LRN', not one of BatchNorm"),
        (Layer("x", "Convolution", CONV.text), r"net.caffemodel: layer 'x': has 0 blobs"),
        (Layer("x", "Convolution", CONV.text, CONV.blobs[:1]), "layer 'x': has 1 blobs of weigh"),
        (Layer("x", "Convolution", CONV.text, [np.ones((5, 3, 3, 3))]),
         r"net.caffemodel: layer 'x': blob 0 has 135 numbers and the shape 5 × 3 × 3 × 3, not 4 × "
         "… × 3 × 3"),
        (Layer("x", "Convolution", CONV.text, [CONV.blobs[0], np.ones(3)]), "the shape 3, not 4"),
        (Layer("x", "Convolution", CONV.text, [np.ones((4, 3))]),
         "layer 'x': blob 0 has 12 numbers and the shape 4 × 3, not 4 × … × 3 × 3"),
        (Layer("x", "Convolution", CONV.text.replace("pad", "group: 2 pad"), CONV.blobs),
         "prototxt: layer 'x': has 2 groups, or dilation"),
        (Layer("x", "Convolution", "convolution_param { num_output: 4 kernel_h: 3 kernel_w: 5 }"),
         "prototxt: layer 'x': has a kernel of 3 × 5, not a square"),
        (Layer("x", "Convolution", "convolution_param { num_output: 4 }"), "has kernel 0 and st"),
        (Layer("x", "InnerProduct", LINEAR, [np.ones((4, 3))]), "the shape 4 × 3, not 5 × …"),
        (Layer("x", "InnerProduct", LINEAR, [np.full((5, 3), np.nan)]), "has NaN or infinite numb"),
        (Layer("x", "Pooling", "pooling_param { pool: AVE kernel_size: 2 }"), "pools the average"),
        (Layer("x", "ReLU", "relu_param { negative_slope: 0.1 }"), "layer 'x': is a leaky ReLU"),
        (Layer("x", "Power", "power_param { power: 2 }"), "raises to the power 2, not 1"),
        (Layer("x", "Power", "power_param { scale: nan }"), "scales by nan and shifts by 0"),
        (Layer("x", "Scale", "scale_param { axis: 2 }", [np.ones(3)]), "works on axis 2"),
        (Layer("x", "BatchNorm", "", [np.ones(3), -np.ones(3), np.ones(1)]), "has a variance of 0"),
        (Layer("x", "BatchNorm", "", [np.ones(3), np.ones(2), np.ones(1)]), "the shape 2, not 3"),
    ],
)  # fmt: skip
def test_a_layer_that_cannot_be_used_is_named(tmp_path: Path, layer: Layer, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_net(*write_caffe(tmp_path, [layer, NORM], 30))


INPUT = "input: 'data' input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has 0 inputs, not one"),
        (INPUT + " input: 'more'", "has 2 inputs, not one"),
        (INPUT.replace("3", "1"), r"its input is \[1, 1, 8, 8\], not \[N, 3, side, side\]"),
        ("layer { name: 'x' type: }", "a Caffe prototxt: line 1: Expected string but found: '}'"),
        ("layers { type: TANH }", "not a Caffe prototxt: line 1: .*no value named TANH"),
        ("a {" * 10_000, "not a Caffe prototxt"),
        (INPUT + " layer { name: 'x' type: 'ReLU' bottom: 'data' bottom: 'b' top: 'x' }",
         r"layer 'x': takes \['data', 'b'\] and gives \['x'\], but should take \['data'\] and"),
        (INPUT + " layer { name: 'x' type: 'ReLU' bottom: 'other' top: 'x' }", "takes .'other'"),
        (INPUT + " layer { name: 'x' type: 'Softmax' bottom: 'data' top: 'x' }"
         " layer { name: 'y' type: 'ReLU' bottom: 'x' top: 'y' }", "layer 'y': comes after a soft"),
    ],
)  # fmt: skip
def test_a_prototxt_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    _, caffemodel = write_caffe(tmp_path, [CONV], 8)
    prototxt, _ = save(tmp_path, text, caffemodel.read_bytes())
    with pytest.raises(InputError, match=message) as raised:
        read_net(prototxt, caffemodel)
    assert "\n" not in str(raised.value)


def for_training(tmp_path: Path, transform: str, v1: bool = False, softmax: bool = False) -> Files:
    """The files of a network with data, loss and accuracy layers, and layers of phase TRAIN."""
    layers = [CONV, Layer("relu", "ReLU"), *([Layer("prob", "Softmax")] if softmax else [])]
    prototxt, caffemodel = write_caffe(tmp_path, layers, 8, v1)
    text = prototxt.read_text()
    first = text.index("layers {" if v1 else "layer { name: 'conv'")
    key, kinds = "layer", ["'Data'", "'Dropout'", "'SoftmaxWithLoss'", "'Accuracy'"]
    if v1:
        key, kinds = "layers", ["DATA", "DROPOUT", "SOFTMAX_LOSS", "ACCURACY"]
    data = "".join(
        f"{key} {{ name: 'data' type: {kinds[0]} top: 'data' top: 'label' include {{ phase: "
        f"{phase} }} {rest} data_param {{ source: 'x' batch_size: 8 }} }}\n"
        for phase, rest in (("TRAIN", "transform_param { crop_size: 5 }"), ("TEST", transform))
    )
    last = "prob" if softmax else "relu" if v1 else "conv"
    ends = (
        f"\n{key} {{ name: 'drop' type: {kinds[1]} bottom: '{last}' top: 'dropped' "
        f"include {{ phase: TRAIN }} }}"
        f"\n{key} {{ name: 'loss' type: {kinds[2]} bottom: '{last}' bottom: 'label' top: 'loss' }}"
        f"\n{key} {{ name: 'acc' type: {kinds[3]} bottom: '{last}' bottom: 'label' top: 'acc' "
        "exclude { phase: TRAIN } }"
    )
    return save(tmp_path, data + text[first:] + ends, caffemodel.read_bytes())


@pytest.mark.parametrize("v1", [False, True])
@pytest.mark.parametrize("softmax", [False, True])
def test_a_prototxt_for_training_is_the_net_between_data_and_loss(
    tmp_path: Path, v1: bool, softmax: bool
) -> None:
    transform = "transform_param { crop_size: 8 mirror: true }"
    net = read_net(*for_training(tmp_path, transform, v1, softmax))
    assert [type(step) for step in net.steps] == [Convolution, ReLU]
    assert net.side == 8


def test_mean_and_scale_of_the_data_layer_are_a_step(tmp_path: Path) -> None:
    means = "mean_value: 104 mean_value: 117 mean_value: 123"
    net = read_net(*for_training(tmp_path, f"transform_param {{ scale: 0.5 {means} }}"))
    step = net.steps[0]
    assert isinstance(step, Scaling)
    scale, shift = compose([step], 3)
    np.testing.assert_array_equal(scale, [0.5] * 3)
    np.testing.assert_array_equal(shift, [-52, -58.5, -61.5])


def test_a_mean_in_another_file_is_named(tmp_path: Path) -> None:
    files = for_training(tmp_path, "transform_param { mean_file: 'mean.binaryproto' }")
    message = r"layer 'data': subtracts the mean in mean\.binaryproto, .* mean_value: BLUE"
    with pytest.raises(InputError, match=message):
        read_net(*files)


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    prototxt, caffemodel = write_caffe(tmp_path, [CONV], 8)
    prototxt.write_text(f"\ufeff{prototxt.read_text()}")
    assert read_net(prototxt, caffemodel).side == 8


@pytest.mark.parametrize("content", [b"", b"\xff\xff", b"hello", b"\x12\xff\xff\xff\xff\x07"])
def test_a_file_that_is_not_a_caffemodel(tmp_path: Path, content: bytes) -> None:
    prototxt, caffemodel = write_caffe(tmp_path, [CONV], 8)
    caffemodel.write_bytes(content)
    with pytest.raises(InputError, match=r"net.caffemodel: not a caffemodel"):
        read_net(prototxt, caffemodel)


def test_defaults_equal_caffes() -> None:
    layer = new("LayerParameter")
    assert layer.power_param.scale == layer.power_param.power == 1
    assert layer.convolution_param.bias_term
    assert not layer.scale_param.bias_term
    assert layer.batch_norm_param.eps == pytest.approx(1e-5)
