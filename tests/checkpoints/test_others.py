"""Checkpoints of other programs: the network is found, the rest is named, and nothing is run."""

import argparse
import collections
import gzip
import importlib
import io
import pathlib
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny, write_images
from hostile import archive_of, old_file_of
from retrieval_layout import write_oxford, write_paris
from torch import Tensor, nn

import hubconf
from checkpoints.checkpoint import load_model, read_checkpoint
from checkpoints.folder import place_of
from checkpoints.search import Contents, networks_in
from checkpoints.torch_file import load_torch_file
from checkpoints.weights import our_name
from models import MODELS
from system import cli
from system.errors import InputError

Weights = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _only_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for arch in reversed(list(MODELS)):  # which is undone in the order of the names
        monkeypatch.delitem(MODELS, arch)
    monkeypatch.setitem(MODELS, "tiny", tiny)


def weights_of(seed: int) -> Weights:
    torch.manual_seed(seed)
    return tiny(sobel=True, out=5).state_dict()


ONE, TWO = weights_of(1), weights_of(2)
BODY = {name: weight for name, weight in ONE.items() if not name.startswith("top_layer.")}
HEAD = {"projection_head.0.weight": torch.ones(8, 32), "projection_head.0.bias": torch.ones(8)}
HEADS = HEAD | {"prototypes.weight": torch.ones(7, 8)}


def under(prefix: str, weights: Weights = ONE) -> Weights:
    return {prefix + name: weight for name, weight in weights.items()}


def saved(tmp_path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, tmp_path / "c.pth", **options)
    return tmp_path / "c.pth"


def remarks(path: Path, errors: str) -> str:
    """The warning about a file."""
    return errors.removeprefix(f"warning: {path}: ").removesuffix("\n")


COMPLETE = {
    "torch.compile": (under("_orig_mod."), ""),
    "compiled, in DDP": ({"state_dict": under("module._orig_mod."), "epoch": 3}, ""),
    "FSDP": ({"state_dict": under("_fsdp_wrapped_module.")}, ""),
    "Lightning": ({"state_dict": under("model."), "global_step": 9}, "took state_dict.model"),
    "any other prefix": (under("a.b.c."), "took a.b.c"),
    "model": ({"model": ONE, "epoch": 3}, "took model"),
    "model_state_dict": ({"model_state_dict": ONE}, "took model_state_dict"),
    "average": ({**under("module."), "n_averaged": torch.tensor(7)}, "left out n_averaged"),
    "MoCo": (
        {"state_dict": {**under("module.encoder_q."), **under("module.encoder_k.", TWO),
                        "module.queue": torch.ones(8, 4)}},
        f"took state_dict.module.encoder_q; left out encoder_k ({len(TWO)}), queue",
    ),
    "teacher": ({"student": TWO, "teacher": under("module.")}, "took teacher; left out student"),
    "its average": ({"model": ONE, "model_ema": TWO}, "took model; left out model_ema"),
    "a momentum encoder": (
        {"state_dict": {**under("net."), **under("momentum_net.", TWO)}},
        f"took state_dict.net; left out momentum_net ({len(TWO)})",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", COMPLETE)
def test_the_network_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    content, remark = COMPLETE[kind]
    path = saved(tmp_path, content)
    model = load_model(path)
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in ONE.items())
    assert remarks(path, capsys.readouterr().err) == remark


@pytest.mark.parametrize(
    ("content", "remark"),
    [
        (
            {**under("module.", BODY), **under("module.", HEADS)},
            "left out projection_head (2), prototypes",
        ),
        ({"state_dict": {**BODY, "fc.weight": torch.ones(4, 32)}}, "left out fc"),
        ({"state_dict": {**BODY, "fc.0.weight": torch.ones(4, 32)}}, "left out fc"),
        (
            {"classy_state_dict": {"base_model": {"model": {"trunk": under("_blocks.", BODY)}}}},
            "took classy_state_dict.base_model.model.trunk._blocks",
        ),
    ],
    ids=["SwAV's heads", "a head without bias", "a head of two layers", "VISSL"],
)
def test_heads_are_left_out_of_a_complete_body(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: Any, remark: str
) -> None:
    path = saved(tmp_path, content)
    model = load_model(path)
    assert model.top_layer is None
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in BODY.items())
    assert remarks(path, capsys.readouterr().err) == remark


@pytest.mark.parametrize("wrong", ["missing", "of another shape", "unexpected"])
def test_a_body_is_read_strictly_after_a_prefix(tmp_path: Path, wrong: str) -> None:
    weights = under("net.")
    if wrong == "missing":
        del weights["net.classifier.1.bias"]
    else:
        name = "classifier.1.bias" if wrong == "of another shape" else "features.9.bias"
        weights[f"net.{name}"] = torch.ones(3)
    name = "features.9.bias" if wrong == "unexpected" else "classifier.1.bias"
    with pytest.raises(InputError, match=rf"fit none of tiny; tiny is nearest: {wrong}: {name}$"):
        load_model(saved(tmp_path, {"model": weights}))


def test_a_key_chooses_among_networks(tmp_path: Path) -> None:
    path = saved(tmp_path, {"student": TWO, "teacher": ONE})
    found = {key: read_checkpoint(path, key)["state_dict"] for key in ("student", "teacher")}
    name = "classifier.1.weight"
    assert torch.equal(found["student"][name], TWO[name])
    assert torch.equal(found["teacher"][name], ONE[name])
    with pytest.raises(InputError, match=r"--key nobody: it has no such network, but student, t"):
        load_model(path, "nobody")


def test_several_networks_without_a_known_name_need_a_key(tmp_path: Path) -> None:
    path = saved(tmp_path, {"left": ONE, "right": TWO})
    with pytest.raises(InputError, match=r"holds several networks: left, right; .* --key NAME$"):
        load_model(path)
    assert load_model(path, "right").arch == "tiny"


COMMANDS = {
    "eval_linear": "--data d --model {} --workers 0",
    "eval_semisup": "--data d --model {}",
    "eval_knn": "--data d --model {}",
    "eval_svm": "--vocdir v --model {}",
    "eval_voc_classif": "--vocdir v --model {}",
    "eval_retrieval": "--dataset o --train_dataset p --dataset_name Oxford --temp_dir t --model {}",
    "extract_features": "{} d --out o",
    "assign": "{} d --out o.csv",
    "tools.export": "{} o.onnx",
    "tools.inspect_checkpoint": "{}",
    "visu.activ_retrieval": "--model {} --data d --conv 1 --exp e",
    "visu.gradient_ascent": "--model {} --conv 1 --exp e",
    "visu.feature_map": "{} d",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_script_for_networks_of_others_takes_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "d", 30, side=16)
    write_oxford(tmp_path / "o")
    write_paris(tmp_path / "p")
    path = saved(tmp_path, {"student": TWO, "teacher": ONE})
    script = importlib.import_module(name)
    command = [*COMMANDS[name].format(path).split(), "--key", "nobody"]
    assert cli.run(script.main, script.parse_args, command) == 2
    assert f"{path}: --key nobody: it has no such network, but student" in capsys.readouterr().err


def test_torch_hub_takes_a_key(tmp_path: Path) -> None:
    path = saved(tmp_path, {"student": TWO, "teacher": ONE})
    found = hubconf._entry_point("tiny")(path, key="student")
    assert torch.equal(found.state_dict()["features.0.weight"], TWO["features.0.weight"])


class RanError(Exception):
    """Code of a file was run."""


class Canary:
    """Complains whenever anything of it is run."""

    def __reduce__(self) -> Any:
        return Canary, (1,), {"state": 1}, iter([1]), iter([("key", 1)])

    def __init__(self, *args: Any) -> None:
        if args:
            raise RanError

    def __setstate__(self, state: Any) -> None:
        raise RanError


def canaries() -> tuple[Any, str]:
    """Objects of a module with side effects, and its name."""
    module = types.ModuleType("a_module_with_side_effects")
    kind = type("Buffer", (), {"__module__": module.__name__})
    module.Buffer = kind  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    return {"plain": kind(), "reduced": Canary()}, module.__name__


@pytest.mark.parametrize("zipped", [True, False])
def test_unknown_objects_beside_weights_are_named_and_not_run(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    zipped: bool,
) -> None:
    objects, module = canaries()
    content = {"epoch": 3, "state_dict": ONE, "hub": objects}
    path = saved(tmp_path, content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(RanError):
        torch.load(path, weights_only=False)
    del sys.modules[module]
    (tmp_path / f"{module}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_model(path).arch == "tiny"
    warned = remarks(path, capsys.readouterr().err)
    assert warned == f"did not load objects of {module}.Buffer, {__name__}.Canary"
    assert not (tmp_path / "imported").exists()
    assert module not in sys.modules
    assert place_of(path) == ((3, 0) if zipped else None)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_plain_values_beside_weights_are_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], zipped: bool, protocol: int
) -> None:
    content = {
        "state_dict": ONE,
        "epoch": np.int64(3),
        "accuracy": np.float64(0.5),
        "losses": np.arange(4.0),
        "args": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("/x/y")),
        "states": collections.defaultdict(collections.Counter, {1: collections.Counter("aab")}),
        "folder": pathlib.PureWindowsPath(r"C:\x\y"),
        "device": torch.device("cuda:1"),
        "kinds": {1, 2},
        "dtype": torch.float32,
    }
    path = saved(tmp_path, content, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    state = read_checkpoint(path)
    assert (state["epoch"], state["accuracy"], state["losses"].tolist()) == (3, 0.5, [0, 1, 2, 3])
    assert state["args"] == {"lr": 0.1, "out": "/x/y"}
    assert state["states"] == {1: {"a": 2, "b": 1}}
    assert (state["folder"], state["device"], state["kinds"]) == (r"C:\x\y", "cuda", {1, 2})
    assert capsys.readouterr().err == ""


def test_arrays_of_objects_are_named_and_stay_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = {"objects": np.array([ONE, None]), "date": np.datetime64("2020-01-01")}
    path = saved(tmp_path, {"state_dict": ONE, **odd})
    assert read_checkpoint(path)["objects"].size == 0
    assert "did not load objects of numpy.dtype('O8'), numpy.dtype('M8')" in capsys.readouterr().err


@pytest.mark.parametrize("wrap", [archive_of, old_file_of])
@pytest.mark.parametrize(
    "attack",
    [
        b"cmodule\nThing\n}X\x01\x00\x00\x00aK\x01sb",  # state for the class itself
        b"cmodule\nThing\nX\x01\x00\x00\x00aK\x01s",  # an item for it
        b"cargparse\nNamespace\n}X\x01\x00\x00\x00aK\x01sb",
        b"cargparse\nNamespace\n)\x81K\x01b",
    ],
)
def test_classes_cannot_be_changed(
    tmp_path: Path, wrap: Callable[[bytes], bytes], attack: bytes
) -> None:
    path = tmp_path / "c.pth"
    path.write_bytes(wrap(b"\x80\x02" + attack + b"."))
    with pytest.raises(InputError, match=r"not a checkpoint, or a damaged one$"):
        load_torch_file(path)


def test_a_whole_model_says_how_to_save_its_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"but a whole object; .*torch.save its state_dict"):
        load_model(saved(tmp_path, nn.Linear(2, 2)))


def test_numbers_of_the_other_byte_order_load(tmp_path: Path) -> None:
    weight = torch.tensor([1.0, -2.5, 3e10])
    path, swapped = saved(tmp_path, {"w": weight}), tmp_path / "big.pth"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(swapped, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            content = b"big" if name.endswith("byteorder") else content
            is_weight = "/data/" in name
            new.writestr(name, weight.numpy().astype(">f4").tobytes() if is_weight else content)
    assert torch.equal(load_torch_file(swapped).content["w"], weight)


def other_files() -> dict[str, tuple[bytes, str]]:
    """Files that are no checkpoint, and a part of the message."""
    archive, script = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model/notes.txt", b"x" * 100)
    torch.jit.save(torch.jit.script(nn.ReLU()), script)
    pointer = b"version https://git-lfs.example/spec/v1\noid sha256:1\nsize 9\n"
    return {
        "LFS": (pointer, "a Git LFS pointer to the file; fetch it with git lfs pull"),
        "HTML": (b"\n<!DOCTYPE html><html>Sign in</html>", "a web page; the download needs"),
        "XML": (b"<?xml version='1.0'?><Error/>", "a web page; the download needs"),
        "gzip": (gzip.compress(b"x"), "a file packed by gzip; unpack it with gunzip"),
        "xz": (b"\xfd7zXZ\x00", "a packed file; unpack it"),
        "zip": (archive.getvalue(), "a zip archive of 'model/notes.txt' and the like; unpack it"),
        "TorchScript": (script.getvalue(), "a TorchScript program.* torch.save its state_dict"),
        "empty": (b"", "an empty file; download it again"),
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_files_that_are_no_checkpoint_say_what_they_are(tmp_path: Path) -> None:
    for kind, (content, message) in other_files().items():
        (tmp_path / kind).write_bytes(content)
        with pytest.raises(InputError, match=rf"/{kind}: not a checkpoint, but {message}"):
            load_model(tmp_path / kind)


@pytest.mark.parametrize("name", ["n{}.", "n{}module.", "n{}." + "a.module." * 100])
def test_the_search_takes_time_in_proportion_to_the_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    calls: list[str] = []

    def renamed(count: int) -> int:
        first = next(iter(BODY))
        hostile = {name.format(number) + first: torch.ones(1) for number in range(count)}
        calls.clear()
        with pytest.raises(InputError):
            load_model(saved(tmp_path, hostile))
        return len(calls)

    def counted(full: str) -> tuple[str, set[str]]:
        calls.append(full)
        return our_name(full)

    for module in ("search", "weights"):
        monkeypatch.setattr(f"checkpoints.{module}.our_name", counted)
    assert renamed(200) < 3 * renamed(100)


def test_a_network_and_its_copies_are_found_once_each() -> None:
    copies = Contents({f"copy{number}": {"module": dict(ONE)} for number in range(3)})
    found = networks_in(copies, list(MODELS))
    assert [network.prefix for network in found] == [f"copy{number}." for number in range(3)]
