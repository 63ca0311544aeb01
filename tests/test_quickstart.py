"""The notebook runs from its first cell to its last, on few steps."""

import subprocess
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

TINY = "--k 10 --reassign 0.1 --precision fp32 --epochs 1 --no-report"
FEWER = "\n    digits.images, digits.target = digits.images[:300], digits.target[:300]"


def test_the_notebook_clones_trains_shows_clusters_and_assigns_a_picture(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (clone / "tools/eval_quick.py").write_text("")  # tests/test_scripts.py runs it
    digits = clone / "tools/make_digits.py"
    digits.write_text(digits.read_text().replace("load_digits()", f"load_digits(){FEWER}"))
    for command in ("init -q", "add .", "-c user.name=a -c user.email=a@b commit -q -m a"):
        subprocess.run(["git", *command.split()], cwd=clone, check=True)
    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    for variable in ("DIR", "EPOCHS", "METHOD"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PROCESSES", "1")
    notebook = nbformat.read(clone / "docs/quickstart.ipynb", as_version=4)
    (parameters,) = (
        cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())
    )
    parameters.source += f"\nREPOSITORY, INSTALL, FLAGS = {str(clone)!r}, False, {TINY!r}"
    here = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=here).execute()

    shown = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    text = "".join(out.text for out in shown if out.output_type == "stream")
    assert "NMI to the labels" in text
    assert " training images" in text
    pictures = [out for out in shown if "data" in out and {"image/png", "image/jpeg"} & {*out.data}]
    assert len(pictures) >= 3, "the sheet, the picture, and one beside it at least"
    assert (tmp_path / "deepcluster/exp/quickstart/clusters.csv").exists()
    assert not (tmp_path / "deepcluster/.venv").exists()


def test_the_notebook_has_pins_that_leave_torch_alone(clone: Path) -> None:
    """Its install cell asks pip for nothing that is not in requirements-cpu.txt."""
    notebook = nbformat.read(clone / "docs/quickstart.ipynb", as_version=4)
    (install,) = (cell.source for cell in notebook.cells if "pip install" in cell.source)
    command = install.split("-m pip install ")[1].split()
    assert command == ["--quiet", "--no-deps", "--require-hashes", "-r", "requirements-cpu.txt"]
    pinned = (clone / "requirements-cpu.txt").read_text()
    assert "\ntorch" not in pinned
