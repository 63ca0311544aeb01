"""Without an extra of pyproject.toml, one line says how to install it."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ErrorLine, tiny

import assign
from checkpoints.checkpoint import save_checkpoint
from models import MODELS
from system import cli
from tools import cluster_features, export, export_clusters
from tools.caffe import import_model


@pytest.mark.parametrize(
    ("script", "arguments", "package", "purpose"),
    [
        (export, "c.pth.tar out.onnx", "onnxscript", "out.onnx"),
        (export, "c.pth.tar out.onnx", "onnxruntime", "out.onnx"),
        (assign, "c.pth.tar . --out o.parquet", "pyarrow", "--out o.parquet"),
        (export_clusters, "exp --out o.parquet", "pyarrow", "--out o.parquet"),
        (cluster_features, "f.npy --k 2 --names n.txt --out o.parquet", "pyarrow",
         "--out o.parquet"),
        (import_model, "n.prototxt n.caffemodel o.pth.tar", "protobuf", "n.prototxt"),
    ],
)  # fmt: skip
def test_a_missing_package_is_one_line_with_the_command_that_installs_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error_line: ErrorLine,
    script: ModuleType,
    arguments: str,
    package: str,
    purpose: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(MODELS, "tiny", tiny)
    save_checkpoint(Path("c.pth.tar"), {"arch": "tiny", "state_dict": tiny(out=3).state_dict()})
    for name in ("n.prototxt", "n.caffemodel", "n.txt", "f.npy"):
        Path(name).touch()
    Path("exp").mkdir()
    module = "google.protobuf" if package == "protobuf" else package
    monkeypatch.setitem(sys.modules, module, None)
    error = error_line(script, *arguments.split())
    install = f"{sys.executable} -m pip install {package}"
    assert error.endswith(f"{purpose}: needs packages that are not installed; run: {install}")


def test_safetensors_need_no_extras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(MODELS, "tiny", tiny)
    save_checkpoint(Path("c.pth.tar"), {"arch": "tiny", "state_dict": tiny(out=3).state_dict()})
    for module in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, module, None)
    arguments = ["c.pth.tar", "weights.safetensors"]
    assert cli.run(export.main, export.parse_args, arguments) == 0
