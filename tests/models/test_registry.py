"""The networks: layers, names, shapes and initial weights."""

import math

import numpy as np
import pytest
import torch
import torchvision
from scipy import ndimage
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from models import MODELS, ConvNet, accepts_size, untrained
from models.resnet import wide_resnet50
from models.sobel import sobel_filters

CONV_LAYERS = {"alexnet": 5, "vgg16": 13, "convnet_small": 4} | {
    arch: 5 for arch in MODELS if "resnet" in arch
}
DIMENSIONS = {
    "alexnet": 4096,
    "vgg16": 4096,
    "resnet50": 2048,
    "resnet18": 512,
    "resnet18_small": 512,
    "convnet_small": 128,
}
SMALLEST = {"alexnet": 63, "vgg16": 32, "resnet18_small": 9, "convnet_small": 15}
LARGE = {"resnet50w2", "resnet50w4", "resnet50w5"}  # slow to make; tested by their shapes


@pytest.fixture(params=[arch for arch in MODELS if arch not in LARGE])
def model(request: pytest.FixtureRequest) -> ConvNet:
    return untrained(request.param, sobel=True, out=10, seed=0).eval()


@torch.inference_mode()
def test_every_model_gives_logits_embedding_and_conv_features(model: ConvNet) -> None:
    x = torch.randn(2, 3, *[64 if model.arch == "resnet18_small" else 224] * 2)
    assert model(x).shape == (2, 10)
    dim = DIMENSIONS[model.arch]
    assert model.embedding(x).shape == (2, model.embedding_dim) == (2, dim)
    for layer in range(1, CONV_LAYERS[model.arch] + 1):
        activations = model.conv_features(x, layer)
        assert activations.ndim == 4
        assert activations.min() == 0, "post-ReLU"


@torch.inference_mode()
@pytest.mark.parametrize("arch", ["alexnet", "vgg16"])
def test_embedding_is_the_last_hidden_layer_before_its_relu(arch: str) -> None:
    model = untrained(arch, sobel=True, out=10, seed=0).eval()
    x = torch.randn(2, 3, 224, 224)
    embedding = model.embedding(x)
    assert (embedding < 0).any()
    model.top_layer = None
    torch.testing.assert_close(model(x), embedding.relu())


@torch.inference_mode()
@pytest.mark.parametrize(("arch", "blocks"), [("resnet50", [3, 4, 6, 3]), ("resnet18", [2] * 4)])
def test_a_resnet_computes_the_same_as_torchvisions(arch: str, blocks: list[int]) -> None:
    ours = untrained(arch, sobel=False, out=7, seed=0).eval()
    theirs = torchvision.models.get_model(arch, weights=None, num_classes=7).eval()
    weights = {n.removeprefix("features."): w for n, w in ours.state_dict().items()}
    theirs.load_state_dict({n.replace("top_layer", "fc"): w for n, w in weights.items()})
    assert [len(getattr(ours.features, f"layer{stage}")) for stage in range(1, 5)] == blocks
    x = torch.randn(2, 3, 96, 96)
    torch.testing.assert_close(ours(x), theirs(x))
    stages = {"relu": 1, "layer1": 2, "layer2": 3, "layer3": 4, "layer4": 5, "flatten": None}
    reference = create_feature_extractor(theirs, list(stages))(x)
    torch.testing.assert_close(ours.embedding(x), reference.pop("flatten"))
    for layer, maps in ours.each_conv_features(x, range(1, 6)):
        torch.testing.assert_close(maps, reference[list(stages)[layer - 1]])


@pytest.mark.parametrize(
    ("arch", "stem", "dim", "millions"),
    [
        ("resnet50", 64, 2048, 23.508),
        ("resnet50w2", 128, 4096, 93.907),
        ("resnet50w4", 256, 8192, 375.378),
        ("resnet50w5", 320, 10240, 586.450),
    ],
)
def test_a_wide_resnet_has_the_published_number_of_parameters(
    arch: str, stem: int, dim: int, millions: float
) -> None:
    with torch.device("meta"):
        model = MODELS[arch](sobel=False)
        assert model.embedding(torch.empty(2, 3, 96, 96)).shape == (2, dim)
    assert model.embedding_dim == dim
    assert model.get_parameter("features.conv1.weight").shape == (stem, 3, 7, 7)
    assert sum(p.numel() for p in model.body()) / 1e6 == pytest.approx(millions, abs=5e-4)


@torch.inference_mode()
def test_a_wide_resnet_of_width_one_is_resnet50() -> None:
    wide = wide_resnet50("width one", 1, sobel=False, out=7).eval()
    plain = untrained("resnet50", sobel=False, out=7, seed=0).eval()
    wide.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(wide(x), plain(x))


@torch.inference_mode()
def test_the_stem_for_small_images_keeps_their_size() -> None:
    model = untrained("resnet18_small", sobel=True, out=7, seed=0).eval()
    sides = [
        maps.shape[-1]
        for _, maps in model.each_conv_features(torch.zeros(1, 3, 32, 32), range(1, 6))
    ]
    assert sides == [32, 32, 16, 8, 4]


@torch.inference_mode()
@pytest.mark.parametrize("arch", ["alexnet", "vgg16"])
def test_conv_features_agree_with_a_hook_on_the_full_network(arch: str) -> None:
    model = untrained(arch, sobel=True, out=10, seed=0).eval()
    seen: list[torch.Tensor] = []
    relus = [m for m in model.features if isinstance(m, nn.ReLU)]
    relus[2].register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    x = torch.randn(1, 3, 96, 96)
    model(x)
    torch.testing.assert_close(model.conv_features(x, 3), seen[0])


def test_alexnet_has_the_released_checkpoints_names_and_shapes() -> None:
    shapes = {name: tuple(p.shape) for name, p in MODELS["alexnet"](True, 10000).named_parameters()}
    weights = {name: shape for name, shape in shapes.items() if name.endswith("weight")}
    assert weights == {
        "sobel.0.weight": (1, 3, 1, 1),
        "sobel.1.weight": (2, 1, 3, 3),
        "features.0.weight": (96, 2, 11, 11),
        "features.1.weight": (96,),
        "features.4.weight": (256, 96, 5, 5),
        "features.5.weight": (256,),
        "features.8.weight": (384, 256, 3, 3),
        "features.9.weight": (384,),
        "features.11.weight": (384, 384, 3, 3),
        "features.12.weight": (384,),
        "features.14.weight": (256, 384, 3, 3),
        "features.15.weight": (256,),
        "classifier.1.weight": (4096, 9216),
        "classifier.4.weight": (4096, 4096),
        "top_layer.weight": (10000, 4096),
    }
    biases = {name.removesuffix(".bias") for name in shapes if name.endswith("bias")}
    assert biases == {name.removesuffix(".weight") for name in weights}


def test_vgg16_has_torchvisions_features_and_the_released_classifier() -> None:
    with torch.device("meta"):
        ours = MODELS["vgg16"](sobel=False, out=7).state_dict()
        theirs = torchvision.models.vgg16_bn(weights=None).state_dict()
    for name, value in theirs.items():
        if name.startswith("features."):
            assert ours[name].shape == value.shape, name
    assert [tuple(ours[f"classifier.{i}.weight"].shape) for i in (0, 3)] == [
        (4096, 25088),
        (4096, 4096),
    ]


def test_sobel_is_the_derivative_of_the_grey_image() -> None:
    x = torch.randn(1, 3, 9, 11, dtype=torch.float64)
    grey = x[0].mean(0).numpy()
    ours = sobel_filters().double()(x)[0].numpy()
    # convolution layers correlate, and SciPy's Sobel points the other way
    for channel, axis in ((0, 1), (1, 0)):
        reference = -ndimage.sobel(grey, axis=axis, mode="constant")
        np.testing.assert_allclose(ours[channel], reference, atol=1e-6)


def test_sobel_is_not_trained() -> None:
    parameters = dict(MODELS["alexnet"](sobel=True).named_parameters())
    assert {name for name, p in parameters.items() if not p.requires_grad} == {
        "sobel.0.weight", "sobel.0.bias", "sobel.1.weight", "sobel.1.bias",
    }  # fmt: skip


def test_initial_weights_have_the_stated_distributions(model: ConvNet) -> None:
    for name, module in model.named_modules():
        if name.startswith("sobel") or not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        if isinstance(module, nn.Conv2d):
            deviation = math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
        else:
            deviation = 0.01
        count = module.weight.numel()
        assert module.weight.std().item() == pytest.approx(deviation, rel=4 / math.sqrt(count))
        assert abs(module.weight.mean().item()) < 5 * deviation / math.sqrt(count)
        assert module.bias is None or not module.bias.any()


def test_initial_weights_depend_on_the_seed_alone() -> None:
    first, second = (untrained("alexnet", True, out, seed=5) for out in (3, 9))
    torch.randn(3)
    other = untrained("alexnet", True, 3, seed=6)
    for part in ("features.0.weight", "classifier.4.weight"):
        assert torch.equal(first.get_parameter(part), second.get_parameter(part))
        assert not torch.equal(first.get_parameter(part), other.get_parameter(part))


@torch.inference_mode()
@pytest.mark.parametrize("size", [224, 160])
def test_the_pool_is_the_identity_at_224_pixels(size: int) -> None:
    model = untrained("alexnet", False, 5, 0).eval()
    maps = model.features(torch.randn(1, 3, size, size))
    assert torch.equal(model.pool(maps), maps) == (size == 224)


@pytest.mark.parametrize("arch", list(MODELS))
def test_the_smallest_size(arch: str) -> None:
    """By hand for AlexNet: conv1 and the three pools map 63 → 15 → 7 → 3 → 1, and 62 to 0."""
    assert accepts_size(arch, SMALLEST.get(arch, 33))
    assert not accepts_size(arch, SMALLEST.get(arch, 33) - 1)
