"""timm's networks as ours, against timm's own forward pass, hooks and transforms."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor

from checkpoints.checkpoint import digest_of
from data.transforms import central_crop, to_input
from models import fit_size
from models.layers import layers_of, layers_or_avgpool
from models.timm_names import DEFAULT, TimmName, timm_name, weights_of
from models.timm_network import TimmNetwork, timm_network
from system.errors import InputError

SMALL = ["test_vit", "test_convnext", "test_efficientnet"]  # timm's own for its tests


def network(name: str, size: int | None = 64, seed: int = 0) -> TimmNetwork:
    model = timm_network(TimmName(name, "none"), seed=seed)
    fit_size(model, size or model.size)
    return model


def translated(weights: dict[str, Tensor], target: Any) -> dict[str, Tensor]:
    """As timm translates weights for another size."""
    return timm.models.vision_transformer.checkpoint_filter_fn(weights, target)


def twin(model: TimmNetwork, name: str, **options: Any) -> torch.nn.Module:
    """timm's own network with the same weights."""
    theirs = timm.create_model(name, num_classes=0, **options).eval()
    theirs.load_state_dict(model.body.state_dict())
    return theirs


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("timm:resnet18", TimmName("resnet18", None)),
        ("timm:resnet18.a1_in1k@none", TimmName("resnet18.a1_in1k", "none")),
        ("timm:resnet18@w/a@b.pth", TimmName("resnet18", "w/a@b.pth")),
        ("resnet18", None),
        ("dir/timm:resnet18", None),
    ],
)
def test_names(text: str, name: TimmName | None) -> None:
    assert timm_name(text) == timm_name(Path(text)) == name
    if name is not None:
        assert name.untrained == (name.weights == "none")
        assert name.file == (Path("w/a@b.pth") if "pth" in text else None)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("size", [160, 64])
def test_the_embedding_is_timms_on_timms_own_view(name: str, size: int) -> None:
    """From the same PIL image: resized, cut and normalised by timm's transform, and by ours."""
    model = network(name, size)
    theirs = twin(model, name, **({"img_size": size} if name == "test_vit" else {}))
    config = resolve_model_data_config(theirs) | {"input_size": (3, size, size)}
    pixels = np.random.default_rng(0).integers(256, size=(90, 130, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((260, 180), Image.Resampling.BICUBIC)
    seen = create_transform(**config)(image)
    view = central_crop(size, model.crop)
    ours = to_input(view(image)[None], torch.device("cpu"), model.std)
    with torch.inference_mode():
        expected, found = theirs(seen[None]), model.embedding(ours)
        assert found.shape == (1, model.embedding_dim)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    tensor = view(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    gaps = (tensor.int() - view(image).int()).abs()
    assert gaps.max() <= 2, "as decoded images are tensors"
    assert gaps.float().mean() < 0.1


def test_a_squashed_view_shows_the_whole_image() -> None:
    body = timm.create_model("test_vit", pretrained_cfg_overlay={"crop_mode": "squash"})
    model = TimmNetwork("test_vit", body)
    assert model.crop.squash
    pixels = np.random.default_rng(0).integers(256, size=(40, 90, 3), dtype=np.uint8)
    config = resolve_model_data_config(body) | {"input_size": (3, 32, 32)}
    mean, std = (torch.tensor(config[each]).view(3, 1, 1) for each in ("mean", "std"))
    expected = (create_transform(**config)(Image.fromarray(pixels)) * std + mean) * 255
    found = central_crop(32, model.crop)(Image.fromarray(pixels))
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.01)
    body = timm.create_model("test_vit", pretrained_cfg_overlay={"crop_mode": "border"})
    with pytest.raises(InputError, match="timm:test_vit: its crop mode border is not supported"):
        TimmNetwork("test_vit", body)


@pytest.mark.parametrize("name", SMALL)
def test_conv_layers_are_timms_blocks_or_stages(name: str) -> None:
    model = network(name)
    modules = [info["module"] for info in model.body.feature_info]
    seen: list[Tensor] = []
    for module in modules:
        hook = lambda _, __, out: seen.append(out)  # noqa: E731
        model.body.get_submodule(module).register_forward_hook(hook)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        model.embedding(x)
        expected = list(seen)
        assert model.conv_layers == len(modules) == len(expected)
        layers = layers_of(model, ["all"])
        found = dict(model.each_conv_features(x, layers))
    for layer in layers:
        there = expected[layer - 1]
        if there.ndim == 3:  # a class token, then the patches
            side = int((there.shape[1] - 1) ** 0.5)
            there = there[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        torch.testing.assert_close(found[layer], there)
    assert torch.equal(model.conv_features(x, 2), found[2])
    for wrong in (0, len(modules) + 1):
        with pytest.raises(ValueError, match=f"conv layers 1 to {len(modules)}, not {wrong}"):
            model.conv_features(x, wrong)


def test_looking_at_a_network_leaves_it_as_it_is() -> None:
    model = network("test_efficientnet").train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    assert model.conv_layers > 0
    model.take_size(96)
    assert model.training
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_a_network_without_maps() -> None:
    model = network("test_vit")
    model.body = torch.nn.Sequential(model.body)
    for words, layers in (("all", layers_of), ("avgpool", layers_or_avgpool)):
        with pytest.raises(InputError, match="timm:test_vit gives no maps of its layers"):
            layers(model, [words])


def test_a_networks_size_is_timms_or_the_one_that_is_asked_for() -> None:
    """Embeddings of positions are interpolated as by timm."""
    own = network("test_vit", None)
    assert own.size == 160
    smaller = network("test_vit", 96)
    theirs = timm.create_model("test_vit", num_classes=0, img_size=96).eval()
    loaded = translated(own.body.state_dict(), theirs)
    theirs.load_state_dict(loaded)
    x = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(smaller.body(x), theirs(x))
    with pytest.raises(InputError, match=r"--size 64: timm:mixer_s32_224 does not .*224"):
        network("mixer_s32_224", 64)


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    one = digest_of(network("test_vit"))
    torch.manual_seed(2)
    assert digest_of(network("test_vit")) == one != digest_of(network("test_vit", seed=1))


def test_the_digest_depends_on_the_preprocessing() -> None:
    model = network("test_vit")
    before = digest_of(model)
    model.crop = central = type(model.crop)(1.0)
    changed = digest_of(model)
    assert changed != before
    model.mean = (0.1, 0.1, 0.1)
    assert (model.crop, digest_of(model)) == (central, digest_of(model))
    assert digest_of(model) not in (before, changed)


def state_of(name: str) -> dict[str, Tensor]:
    torch.manual_seed(3)
    return timm.create_model(name).state_dict()


def test_weights_of_a_file_are_loaded_without_the_last_layer() -> None:
    state = state_of("test_efficientnet")
    for prefix in ("", "module.", "body."):
        wrapped = {prefix + name: weight for name, weight in state.items()}
        model = timm_network(TimmName("test_efficientnet", "file"), wrapped)
        own = model.body.state_dict()
        assert own
        assert all(torch.equal(weight, state[name]) for name, weight in own.items())


def test_weights_for_another_size_are_translated_by_timm() -> None:
    torch.manual_seed(3)
    larger = timm.create_model("test_vit", img_size=96).state_dict()
    model = timm_network(TimmName("test_vit", "file"), dict(larger))
    target = timm.create_model("test_vit")
    expected = translated(dict(larger), target)
    assert torch.equal(model.body.pos_embed, expected["pos_embed"])
    assert torch.equal(model.body.patch_embed.proj.weight, larger["patch_embed.proj.weight"])


@pytest.mark.parametrize("problem", ["missing", "unexpected", "of another shape", "not finite"])
def test_weights_that_do_not_fit(problem: str) -> None:
    state = state_of("test_efficientnet")
    name = "conv_stem.weight"
    if problem == "missing":
        del state[name]
    elif problem == "unexpected":
        state[name := "more.weight"] = torch.ones(2)
    else:
        state[name] = torch.ones(2) if "shape" in problem else state[name] * torch.nan
    with pytest.raises(InputError, match=f"^x.pth: does not fit timm:test.*{problem}: {name}"):
        timm_network(TimmName("test_efficientnet", "x.pth"), state)


def test_weights_of_another_network() -> None:
    with pytest.raises(InputError) as caught:
        timm_network(TimmName("test_vit", "x.pth"), state_of("test_efficientnet"))
    message = str(caught.value)
    assert message.startswith("x.pth: does not fit timm:test_vit: missing: cls_token")
    assert "unexpected: conv_stem.weight" in message
    assert len(message) < 700
    assert "\n" not in message


def test_unknown_names() -> None:
    with pytest.raises(InputError, match=r"resnet19: timm .* no such network.* resnet18"):
        timm_network(TimmName("resnet19", "none"))
    with pytest.raises(InputError, match=r"resnet18\.a9: timm has no weights a9 .* a1_in1k, "):
        timm_network(TimmName("resnet18.a9", "none"))


def test_without_a_network_one_line_names_the_file_that_would_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("Name or service not known\nmore")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    with pytest.raises(InputError) as caught:
        timm_network(TimmName(DEFAULT.removeprefix("timm:"), None))
    message = str(caught.value)
    assert "cannot fetch its weights (Name or service not known)" in message
    assert f"{DEFAULT}@FILE, FILE being model.safetensors of timm/vit_small_patch14_din" in message
    assert "\n" not in message


def test_weights_are_announced_with_size_and_licence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import huggingface_hub

    make = timm.create_model
    calls = []

    def offline(name: str, pretrained: bool = False, **options: Any) -> torch.nn.Module:
        calls.append(pretrained)
        return make(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: None)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    timm_network(TimmName("test_vit.r160_in1k", None))
    said = capsys.readouterr().err
    assert said.startswith("note: timm:test_vit.r160_in1k: fetching timm/test_vit.r160_in1k: ")
    assert said.endswith("licence: apache-2.0\n")
    assert calls == [False, True]
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: "/there")
    timm_network(TimmName("test_vit.r160_in1k", None))
    assert capsys.readouterr().err == "", "from the cache"


def test_weights_and_licence_for_results() -> None:
    known = {"weights": "timm/test_vit.r160_in1k", "licence": "apache-2.0"}
    assert weights_of(TimmName("test_vit.r160_in1k", None)) == known
    assert weights_of(TimmName("test_vit", "none")) == {"weights": "random"}
    of_file = weights_of(TimmName("test_vit", "a.pth"))
    assert of_file["weights"] == "a.pth"
    assert of_file["licence"] == "not known (timm's own weights: apache-2.0)"


def test_timm_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(InputError, match=r"timm:NAME: .*run: \./setup\.sh images, or: .*timm"):
        timm_network(TimmName("resnet18", "none"))
