"""Small image trees that the tests make, and ways to run the scripts without a subprocess."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import numpy as np
import pytest
from browser import browser
from PIL import Image
from run_folder import finished
from runs import server
from torch import nn

import main
from data.decode import EXIF, MAX_PIXELS, limit_pixels, orient_by_exif
from data.folder import Files
from data.images import ImageList
from models import MODELS
from models.convnet import ConvNet, conv_layers
from system import cli

__all__ = [
    "ErrorLine",
    "browser",
    "error_line",
    "finished",
    "image_list",
    "read_file",
    "server",
    "tiny",
    "train",
    "tree",
    "write_images",
]

T = TypeVar("T")
ErrorLine = Callable[..., str]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long campaigns, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="takes many minutes; give --long"))


def pytest_runtest_teardown() -> None:
    limit_pixels(MAX_PIXELS)  # a test's `--max-pixels` and `--exif` end with the test
    orient_by_exif(EXIF[0])


def write_images(folder: Path, count: int, seed: int = 0, side: int = 40) -> list[Path]:
    """Write `count` PNG files, each a few random squares on a random ground."""
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
    """Image files in one folder, by their paths."""
    return ImageList(Files(Path(), list(map(str, paths)), ["."] * len(paths)))


def read_file(read: Callable[..., T], path: str | Path) -> T:
    """A file, opened as an image of a data set, and read by a function of `data.decode`."""
    with image_list(path).open(0) as file:
        return read(file)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """40 images in three folders."""
    for label, count in (("a", 10), ("b", 20), ("c", 10)):
        write_images(tmp_path / "images" / label, count, seed=ord(label))
    return tmp_path / "images"


def tiny(sobel: bool = False, out: int = 1000) -> ConvNet:
    """A network of AlexNet's make, small enough to train many in a test run."""
    features = conv_layers(2 if sobel else 3, [(8, 5, 2, 2), "pool 3/2", (16, 3, 1, 1), "pool 3/2"])
    hidden = [nn.Dropout(0.5), nn.Linear(16 * 9, 32), nn.ReLU(inplace=True)]
    last = [nn.Dropout(0.5), nn.Linear(32, 32), nn.ReLU(inplace=True)]
    return ConvNet("tiny", features, 3, nn.Sequential(*hidden, *last), 32, out, sobel)


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Run `main.py` with the tiny network on CPU in float32; returns the experiment folder."""
    monkeypatch.setitem(MODELS, "tiny", tiny)

    def run(data: Path, *flags: str, exp: str = "exp") -> Path:
        folder = tmp_path / exp
        base = "--arch tiny --sobel --k 4 --batch 8 --lr 0.01 --size 32 --epochs 1 --workers 0"
        device = "--device cpu --precision fp32"
        command = [str(data), *base.split(), *device.split(), "--exp", str(folder), *flags]
        main.main(main.parse_args(command))
        return folder

    return run


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
