"""Released checkpoints: every layout is read, and described in the log."""

import io
import logging
import pickle
import pickletools
import tarfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from conftest import tiny
from old_torch import optimizer_of_2018, save_as_2018
from torch import Tensor, nn

from checkpoints.checkpoint import load_model, read_checkpoint, save_checkpoint
from checkpoints.released import as_checkpoint
from checkpoints.torch_file import ZIP, Loaded, load_torch_file
from models import MODELS, untrained
from models.sobel import sobel_filters
from system.errors import InputError

Weights = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _tiny_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "tiny", tiny)


def weights_of(sobel: bool = True, arch: str = "tiny", out: int = 7) -> Weights:
    """Weights that all differ from those of a new network."""
    torch.manual_seed(5)
    weights = untrained(arch, sobel, out, seed=1).state_dict()
    for weight in weights.values():
        weight.copy_(torch.rand_like(weight) if weight.is_floating_point() else weight + 3)
    return weights


def of_2018(weights: Weights) -> Weights:
    """The released files' layout: `features` in DataParallel, no counts of batches."""
    kept = {n: w for n, w in weights.items() if not n.endswith("num_batches_tracked")}
    return OrderedDict((n.replace("features.", "features.module."), w) for n, w in kept.items())


def checkpoint_of_2018(weights: Weights, arch: str = "tiny") -> dict[str, Any]:
    trained = [w for n, w in weights.items() if n.startswith("classifier")]
    optimizer = optimizer_of_2018(trained)
    return {"epoch": 500, "arch": arch, "state_dict": of_2018(weights), "optimizer": optimizer}


def assert_same(found: Any, expected: Weights) -> None:
    for name, weight in expected.items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(found[name], weight), name


def opcodes_of(path: Path) -> set[str]:
    """The opcodes of the five pickles before the storages."""
    with path.open("rb") as file:
        return {opcode.name for _ in range(5) for opcode, *_ in pickletools.genops(file)}


@pytest.mark.parametrize("rebuild", ["_rebuild_tensor", "_rebuild_tensor_v2"])
@pytest.mark.parametrize("sobel", [False, True])
def test_a_file_of_2018_by_python_2_loads(tmp_path: Path, sobel: bool, rebuild: str) -> None:
    path, weights = tmp_path / "checkpoint.pth.tar", weights_of(sobel)
    save_as_2018(checkpoint_of_2018(weights), path, rebuild)
    assert {"SHORT_BINSTRING", "INT", "BINPERSID"} <= opcodes_of(path)
    state = read_checkpoint(path)
    assert (state["epoch"], state["arch"]) == (500, "tiny")
    assert_same(state["state_dict"], weights)
    group = state["optimizer"]["param_groups"][0]
    assert group["params"][0] == 140_234_866_532_368
    assert state["optimizer"]["state"][group["params"][0]]["momentum_buffer"].shape == (32, 144)
    model = load_model(path)
    assert (model.sobel is not None) == sobel
    assert_same(model.state_dict(), weights)
    assert {p.device.type for p in model.parameters()} == {"cpu"}


def test_attributes_and_long_strings_by_python_2_load(tmp_path: Path) -> None:
    """A state dict of torch 0.4 has an attribute, `_metadata`."""
    weights = of_2018(weights_of())
    weights._metadata = OrderedDict([("", {"version": 1})])  # type: ignore[attr-defined]
    note = "caf\xe9 " * 100
    save_as_2018({"arch": "tiny", "note": note, "state_dict": weights}, tmp_path / "c.pth.tar")
    assert {"BINSTRING", "BUILD"} <= opcodes_of(tmp_path / "c.pth.tar")
    content, *_ = load_torch_file(tmp_path / "c.pth.tar")
    assert content["note"] == note
    assert_same(content["state_dict"], weights)


@torch.inference_mode()
def test_alexnet_in_the_released_layout_computes_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    original = untrained("alexnet", sobel=True, out=12, seed=0).eval()
    path = tmp_path / "checkpoint.pth.tar"
    save_as_2018(checkpoint_of_2018(original.state_dict(), "alexnet") | {"optimizer": {}}, path)
    x = torch.randn(1, 3, 224, 224)
    model = load_model(path).eval()
    path.unlink()  # 234 MB
    assert torch.equal(model(x), original(x))


@pytest.mark.parametrize("wrapped", ["as they are", "features", "all", "both"])
@pytest.mark.parametrize("top_layer", [True, False])
@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
def test_every_mixture_of_layouts_loads(
    tmp_path: Path, wrapped: str, top_layer: bool, alone: bool, zipped: bool
) -> None:
    weights = weights_of()
    if not top_layer:
        weights = OrderedDict((n, w) for n, w in weights.items() if not n.startswith("top_layer"))
    named = weights
    if wrapped in ("features", "both"):
        named = OrderedDict(
            (n.replace("features.", "features.module."), w) for n, w in named.items()
        )
    if wrapped in ("all", "both"):
        named = OrderedDict((f"module.{n}", w) for n, w in named.items())
    path = tmp_path / "c.pth.tar"
    content = named if alone else {"epoch": 1, "state_dict": named}  # neither names the network
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    model = load_model(path)
    assert model.arch == "tiny"
    assert (model.top_layer is not None) == top_layer
    assert_same(model.state_dict(), weights)


def test_a_loaded_checkpoint_can_be_saved_again(tmp_path: Path) -> None:
    path = tmp_path / "c.pth.tar"
    save_as_2018(checkpoint_of_2018(weights_of()), path)
    first = read_checkpoint(path)
    save_checkpoint(path, first)
    second = read_checkpoint(path)
    assert_same(second["state_dict"], first["state_dict"])
    assert second["optimizer"]["param_groups"] == first["optimizer"]["param_groups"]
    assert (first["layout"]["wrappers"], second["layout"]["wrappers"]) == (["features.module."], [])
    assert second["layout"]["container"] == "zip"


def test_a_description_of_the_checkpoint_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "deepcluster")
    path = tmp_path / "c.pth.tar"
    save_as_2018(checkpoint_of_2018(weights_of()), path)
    load_model(path)
    torch.save({f"module.{n}": w for n, w in weights_of(sobel=False).items()}, path)
    load_model(path)
    first, second = (record.getMessage() for record in caplog.records)
    assert first == (
        f"{path}: tiny with Sobel filters, 7 outputs, epoch 500; not zip, written by Python 2, "
        "names with features.module., no num_batches_tracked"
    )
    assert second == (
        f"{path}: tiny without Sobel filters, 7 outputs, no epoch; zip of torch 1.6 or later, "
        "a state dict alone, architecture recognised by the weights, names with module."
    )


@pytest.mark.parametrize("arch", list(MODELS))
@pytest.mark.parametrize("sobel", [False, True])
def test_an_architecture_is_recognised_by_names_and_shapes(arch: str, sobel: bool) -> None:
    with torch.device("meta"):
        shapes = {n: w.shape for n, w in MODELS[arch](sobel=sobel, out=3).state_dict().items()}
    state = as_checkpoint(Loaded({n: torch.zeros(s) for n, s in shapes.items()}, ZIP, []), "c.pth")
    assert state["arch"] == arch
    assert not state["layout"]["named"]


@torch.inference_mode()
@pytest.mark.parametrize(
    ("prefix", "sobel", "head"),
    [
        ("", None, None),
        ("", "sobel.", "fc."),
        ("backbone.", None, "fc."),
        ("backbone.", "sobel_layer.", "head.fc_cls."),
        ("backbone.", "sobel_layer.sobel.", None),
    ],
)
def test_residual_networks_of_the_model_zoos_load(
    tmp_path: Path, prefix: str, sobel: str | None, head: str | None
) -> None:
    theirs = torchvision.models.resnet18(weights=None, num_classes=7).eval()
    filters = sobel_filters()
    if sobel is not None:
        theirs.conv1 = nn.Conv2d(2, 64, 7, stride=2, padding=3, bias=False)
    weights = {}
    for name, weight in theirs.state_dict().items():
        if not name.startswith("fc."):
            weights[prefix + name] = weight
        elif head is not None:
            weights[name.replace("fc.", head)] = weight
    if sobel is not None:
        weights |= {prefix + sobel + name: w for name, w in filters.state_dict().items()}
    torch.save({"state_dict": weights, "meta": {"epoch": 200}}, tmp_path / "zoo.pth")
    ours = load_model(tmp_path / "zoo.pth").eval()
    assert ours.arch == "resnet18"
    x = torch.randn(2, 3, 64, 64)
    seen = x if sobel is None else filters(x)
    if head is None:
        theirs.fc = nn.Identity()
    torch.testing.assert_close(ours(x), theirs(seen))


def test_a_few_bytes_that_claim_terabytes_raise(tmp_path: Path) -> None:
    weights = weights_of()
    weights["top_layer.weight"] = torch.zeros(1).expand(2**40, 32)
    torch.save(weights, tmp_path / "c.pth")
    with pytest.raises(InputError, match="other than weights: 'top_layer"):
        load_model(tmp_path / "c.pth")


def nested(depth: int) -> list[Any]:
    """A list that is a few bytes as a pickle, but has 2^depth entries as text."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value, value]
    return value


@pytest.mark.parametrize("place", ["arch", "epoch", "settings"])
def test_nested_values_do_not_fill_the_memory(tmp_path: Path, place: str) -> None:
    odd = {"k": nested(60)} if place == "settings" else nested(60)
    weights = weights_of()
    if place == "arch":
        del weights["features.0.bias"]
    torch.save({"arch": "tiny", "state_dict": weights, place: odd}, tmp_path / "c.pth")
    if place == "epoch":
        load_model(tmp_path / "c.pth")
    else:
        with pytest.raises(InputError) as error:
            load_model(tmp_path / "c.pth")
        assert len(str(error.value)) < 1000


def test_an_unknown_name_of_a_known_network_is_recognised(tmp_path: Path) -> None:
    torch.save({"arch": "tiny_bn", "state_dict": weights_of()}, tmp_path / "c.pth")
    assert load_model(tmp_path / "c.pth").arch == "tiny"


def test_weights_that_fit_nothing_are_compared_with_the_nearest(tmp_path: Path) -> None:
    weights = dict(weights_of())
    weights["fc8.weight"] = weights.pop("classifier.1.weight")
    weights["features.0.weight"] = torch.zeros(8, 2, 3, 3)
    torch.save(weights, tmp_path / "c.pth")
    with pytest.raises(InputError) as error:
        load_model(tmp_path / "c.pth")
    assert str(error.value) == (
        f"{tmp_path / 'c.pth'}: its architecture is not named, and its weights fit none of "
        f"{', '.join(MODELS)}; tiny is nearest: missing: classifier.1.weight; unexpected: "
        "fc8.weight; of another shape: features.0.weight"
    )


def test_messages_name_at_most_20_weights(tmp_path: Path) -> None:
    weights = weights_of() | {f"features.x\n.{n}": torch.zeros(1) for n in range(300)}
    torch.save({"arch": "tiny", "state_dict": weights}, tmp_path / "c.pth")
    with pytest.raises(InputError, match=r"'features\.x\\n\.19' and 280 more$"):
        load_model(tmp_path / "c.pth")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"module.features.0.bias": torch.zeros(8)}, "features.0.bias twice"),
        ({"top_layer.bias": torch.zeros(2).to_sparse()}, "than weights: 'top_layer.bias'"),
        ({"top_layer.bias": torch.zeros(2, device="meta")}, "than weights: 'top_layer.bias'"),
        ({"top_layer.weight": torch.zeros(())}, "of another shape: top_layer.weight"),
    ],
)
@pytest.mark.filterwarnings("ignore:Validating sparse")
def test_weights_of_an_odd_kind_raise(
    tmp_path: Path, wrong: dict[str, Tensor], message: str
) -> None:
    torch.save({"arch": "tiny", "state_dict": weights_of() | wrong}, tmp_path / "c.pth")
    with pytest.raises(InputError, match=message):
        load_model(tmp_path / "c.pth")


def tar_of(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    return path


def test_the_message_for_a_tar_says_how_to_convert_it(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "c.pth.tar", "sys_info", "pickle", "tensors", "storages")
    with pytest.raises(InputError, match=r"c\.pth\.tar: a tar archive of torch's first versions"):
        load_model(path)
    path = tar_of(
        tmp_path / "alexnet.tar", "alexnet/checkpoint.pth.tar", "alexnet/model.caffemodel"
    )
    with pytest.raises(
        InputError, match=r"a tar archive of 'alexnet/checkpoint\.pth\.tar' and the"
    ):
        load_model(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_the_name_that_a_hostile_file_refers_to_is_in_the_message(
    tmp_path: Path, zipped: bool
) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[bytes]]:
            return pickle.loads, (b"N.",)

    path = tmp_path / "c.pth.tar"
    torch.save({"state_dict": Hostile()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"it refers to pickle\.loads, which might run$"):
        load_model(path)
