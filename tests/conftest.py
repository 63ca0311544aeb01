"""Small trees of images, a tiny network, and ways to run the scripts within this process."""

import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import numpy as np
import pytest
import torch
from browser import browser
from clones import clone
from PIL import Image
from run_folder import finished
from runs import server
from torch import nn

import main
from data.decode import MAX_PIXELS, limit_pixels
from data.folder import Files
from data.images import ImageList
from models import MODELS
from models.convnet import ConvNet, conv_layers
from system import cli

__all__ = [
    "ErrorLine",
    "browser",
    "clone",
    "error_line",
    "finished",
    "image_list",
    "read_file",
    "server",
    "tiny",
    "train",
    "train_tiny",
    "trained",
    "tree",
    "write_images",
]

# `nohup` ignores SIGHUP, and a shell SIGINT of its background jobs; the runs that tests send these
# signals to would ignore them, too
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

T = TypeVar("T")
ErrorLine = Callable[..., str]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long campaigns, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what can't run here. `gpu(2)` needs two GPUs."""
    gpus = torch.cuda.device_count()
    for item in items:
        if item.get_closest_marker("long") and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason="takes many minutes; give --long"))
        for mark in item.iter_markers("gpu"):
            needed = mark.args[0] if mark.args else 1
            if gpus < needed:
                item.add_marker(pytest.mark.skip(reason=f"needs {needed} GPU with CUDA"))


def pytest_runtest_teardown() -> None:
    limit_pixels(MAX_PIXELS)  # a test's `--max-pixels` ends with the test


def write_images(folder: Path, count: int, seed: int = 0, side: int = 40) -> list[Path]:
    """Write `count` PNG files of random squares on a random ground."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        pixels = np.full((side, side + number % 7, 3), rng.integers(256, size=3), np.uint8)
        for _ in range(4):
            top, left = rng.integers(side - 10, size=2)
            pixels[top : top + 12, left : left + 12] = rng.integers(256, size=3)
        paths.append(folder / f"{number:03d}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def image_list(*paths: str | Path) -> ImageList:
    """Image files by their paths, as a data set."""
    return ImageList(Files(Path(), list(map(str, paths)), ["."] * len(paths)))


def read_file(read: Callable[..., T], path: str | Path) -> T:
    """Apply a function of `data.decode` to a file, opened as an image of a data set."""
    with image_list(path).open(0) as file:
        return read(file)


def write_tree(root: Path) -> Path:
    """Write 40 images in three folders."""
    for label, count in (("a", 10), ("b", 20), ("c", 10)):
        write_images(root / label, count, seed=ord(label))
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """40 images in three folders."""
    return write_tree(tmp_path / "images")


def tiny(sobel: bool = False, out: int = 1000) -> ConvNet:
    """A network built like AlexNet, small enough to train in a second."""
    features = conv_layers(2 if sobel else 3, [(8, 5, 2, 2), "pool 3/2", (16, 3, 1, 1), "pool 3/2"])
    hidden = [nn.Dropout(0.5), nn.Linear(16 * 9, 32), nn.ReLU(inplace=True)]
    last = [nn.Dropout(0.5), nn.Linear(32, 32), nn.ReLU(inplace=True)]
    return ConvNet("tiny", features, 3, nn.Sequential(*hidden, *last), 32, out, sobel)


def train_tiny(data: Path, exp: Path, *flags: str, report: bool = False) -> Path:
    """Run `main.py` with the tiny network, which must be in `MODELS`, on CPU in float32. Returns
    the experiment folder. The report takes longer than the training."""
    base = "--arch tiny --sobel --k 4 --batch 8 --lr 0.01 --size 32 --epochs 1 --workers 0"
    device = "--device cpu --precision fp32"
    command = [str(data), *base.split(), *device.split(), "--exp", str(exp), *flags]
    command += [] if report else ["--no-report"]
    main.main(main.parse_args(command))
    return exp


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`train_tiny` into the folder `exp` of the test."""
    monkeypatch.setitem(MODELS, "tiny", tiny)

    def run(data: Path, *flags: str, exp: str = "exp", report: bool = False) -> Path:
        return train_tiny(data, tmp_path / exp, *flags, report=report)

    return run


@pytest.fixture(scope="session")
def _finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "tiny", tiny)
        flags = ["--epochs", "2", "--checkpoints", "7"]
        return train_tiny(write_tree(folder / "images"), folder / "exp", *flags, report=True)


@pytest.fixture
def trained(_finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The experiment folder of a run over `tree` with `--epochs 2 --checkpoints 7`; checkpoint_1 is
    from the middle of epoch 1. A copy, since the run is made only once."""
    monkeypatch.setitem(MODELS, "tiny", tiny)
    return shutil.copytree(_finished_run, tmp_path / "trained")


@pytest.fixture
def error_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> ErrorLine:
    """Run a script with bad arguments. It has to end with status 2 and one line on stderr, besides
    notes. Returns the line."""

    def run(script: ModuleType, *arguments: object) -> str:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [script.__file__])
            try:
                status: object = cli.run(script.main, script.parse_args, list(map(str, arguments)))
            except SystemExit as stop:  # from argparse
                status = stop.code
        assert status == 2
        said = capsys.readouterr().err.splitlines()
        (line,) = (line for line in said if not line.startswith("note: "))
        assert line.startswith(Path(str(script.__file__)).name)
        assert ": error: " in line
        return line

    return run
