"""hubconf.py: `torch.hub.load`, also in a program with modules of the same names."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny

import hubconf
from checkpoints.checkpoint import load_model, save_checkpoint
from models import MODELS, untrained

ROOT = Path(__file__).parents[1]


def load(name: str, **options: object) -> torch.nn.Module:
    return torch.hub.load(str(ROOT), name, source="local", **options)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of a small network with the name of AlexNet."""

    def alexnet(sobel: bool = False, out: int = 1000) -> torch.nn.Module:
        model = tiny(sobel, out)
        model.arch = "alexnet"
        return model

    monkeypatch.setitem(MODELS, "alexnet", alexnet)
    path = tmp_path / "checkpoint.pth.tar"
    weights = alexnet(sobel=True, out=7).state_dict()
    save_checkpoint(path, {"arch": "alexnet", "state_dict": weights})
    return path


def test_the_entry_points_are_the_networks() -> None:
    listed = [
        name for name in dir(hubconf) if callable(getattr(hubconf, name))
    ]  # as torch.hub does
    assert {name for name in listed if not name.startswith("_")} == set(MODELS)


def test_a_checkpoint_determines_the_network(small: Path) -> None:
    model = load("alexnet", checkpoint=small)
    for name, weight in load_model(small).state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    load("alexnet", checkpoint=str(small), sobel=True, out=7)


@pytest.mark.parametrize("sobel", [True, False])
def test_without_a_checkpoint_it_is_untrained(small: Path, sobel: bool) -> None:
    model = load("alexnet", sobel=sobel, out=5)
    assert (model.sobel is not None) == sobel
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    assert load("alexnet")(torch.zeros(2, 3, 32, 32)).shape == (2, 1000)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vgg16", {}, r"checkpoint.pth.tar: its arch is alexnet, not vgg16$"),
        ("alexnet", {"sobel": False}, r"checkpoint.pth.tar: its sobel is True, not False$"),
        ("alexnet", {"out": 9}, r"checkpoint.pth.tar: its out is 7, not 9$"),
        ("alexnet", {"checkpoint": "gone.pth"}, r"^gone.pth: cannot read this checkpoint"),
    ],
)
def test_a_checkpoint_of_another_network_raises(
    small: Path, name: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load(name, **{"checkpoint": small, **options})


USERS_PROGRAM = """
import sys
import models, util  # the user's
import numpy as np
import torch

def load(name):
    return torch.hub.load(sys.argv[1], name, source="local", checkpoint=sys.argv[2])

path, before = list(sys.path), set(sys.modules)
model = load("alexnet").eval()
try:
    load("vgg16")
except ValueError as error:
    print(error)
assert sys.path == path
assert sys.modules["models"] is models and sys.modules["util"] is util
assert not {"checkpoint", "files", "errors", "models.convnet"} & (set(sys.modules) - before)
import data, errors, models.own  # the user's, imported only now
assert (models.whose, util.whose, data.whose, errors.whose, models.own.whose) == ("user",) * 5

torch.manual_seed(0)
x = torch.randn(2, 3, 64, 64)
with torch.no_grad():
    maps = {f"conv{layer}": y.numpy() for layer, y in model.each_conv_features(x, [1, 5])}
    np.savez("found.npz", embedding=model.embedding(x), logits=model(x), **maps)
"""


def test_a_program_keeps_its_own_modules_of_the_same_names(tmp_path: Path) -> None:
    """Some of the user's modules are imported before, some after."""
    for name in ("models/__init__.py", "models/own.py", "data.py", "util.py", "errors.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("whose = 'user'\n")
    (tmp_path / "program.py").write_text(USERS_PROGRAM)
    weights = untrained("alexnet", sobel=True, out=5, seed=0).state_dict()
    # large weights repeat one number: kilobytes instead of 250 MB
    few = {n: w if w.numel() < 1e6 else w.flatten()[0].expand(w.shape) for n, w in weights.items()}
    torch.save({"arch": "alexnet", "state_dict": few}, tmp_path / "c.pth.tar")
    done = subprocess.run(
        [sys.executable, "program.py", str(ROOT), "c.pth.tar"],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "c.pth.tar: its arch is alexnet, not vgg16\n"

    model = load_model(tmp_path / "c.pth.tar").eval()
    torch.manual_seed(0)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad(), np.load(tmp_path / "found.npz") as found:
        truth = {"embedding": model.embedding(x), "logits": model(x)}
        truth |= {f"conv{layer}": model.conv_features(x, layer) for layer in (1, 5)}
        for name, array in truth.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-6, err_msg=name)
