"""Data that nobody has cleaned: every kind of file is read as what it shows, or left out with its
name and the reason."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import image_list, read_file
from image_zoo import HEIGHT, WIDTH, kinds
from torchvision.transforms.v2 import functional as F

from data.decode import (
    MAX_PIXELS,
    UnreadableImageError,
    count_pixels,
    limit_pixels,
    pixel_limit,
    read_image,
    read_pixels,
)
from data.images import find_images
from data.loading import Draw, EpochBatches, ImageDataset, make_loader
from data.transforms import (
    NARROWEST,
    ShortSide,
    apply_seeded,
    central_crop,
    modelzoo_crop,
    probe_crop,
    random_crop,
    resized_crop,
    warped,
)

ZOO = kinds()
READABLE = {name: kind for name, kind in ZOO.items() if not kind.reason}
UNREADABLE = {name: kind for name, kind in ZOO.items() if kind.reason}


@pytest.mark.parametrize("name", READABLE)
def test_a_readable_kind_has_the_pixels_that_it_shows(tmp_path: Path, name: str) -> None:
    kind, path = ZOO[name], tmp_path / name
    path.write_bytes(kind.content)
    assert kind.pixels is not None
    image, quick = np.asarray(read_file(read_image, path)), read_file(read_pixels, path)
    assert image.shape == kind.pixels.shape
    difference = np.abs(image.astype(int) - kind.pixels)
    assert difference.mean() <= kind.tolerance
    assert difference.max() <= 20 * kind.tolerance
    np.testing.assert_array_equal(quick.permute(1, 2, 0).numpy(), image)
    assert read_file(count_pixels, path) == image.shape[0] * image.shape[1]


@pytest.mark.parametrize("decode", ["auto", "pil"])
@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_kind_says_why(tmp_path: Path, name: str, decode: str) -> None:
    (tmp_path / name).write_bytes(ZOO[name].content)
    images = image_list(tmp_path / name)
    _, reason = ImageDataset(images, central_crop(32), decode=decode)[Draw(0, 0, 0)]
    assert isinstance(reason, str)
    assert reason.startswith(ZOO[name].reason)
    assert "\n" not in reason
    assert str(tmp_path) not in reason


SPECIAL = {
    "gone.png": "No such file or directory",
    "pipe.png": "is a pipe, a socket or a device, not a file",
    "socket.png": "is a pipe, a socket or a device, not a file",
    "zeros.png": "is a pipe, a socket or a device, not a file",
    "circle.png": "Too many levels of symbolic links",
    "folder.png": "is a folder",
    "closed.png": "Permission denied",
}


def make_special(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a link, pipe, socket, device, folder or closed file, by the name of `path`."""
    match path.stem:
        case "gone":
            path.symlink_to("nowhere")
        case "pipe":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as made:
                monkeypatch.chdir(path.parent)  # since a socket's path must be short
                made.bind(path.name)
        case "zeros":
            path.symlink_to("/dev/zero")
        case "circle":
            path.symlink_to(path.name)
        case "folder":
            path.mkdir()
        case "closed":
            path.write_bytes(ZOO["plain.png"].content)
            path.chmod(0)


@pytest.mark.parametrize("name", SPECIAL)
def test_pipes_and_devices_are_skipped(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_special(tmp_path / name, monkeypatch)
    if name == "closed.png" and os.access(tmp_path / name, os.R_OK):
        pytest.skip("nothing is closed to root")
    for read in (read_image, read_pixels):
        with pytest.raises(UnreadableImageError, match=f"^{SPECIAL[name]}$"):
            read_file(read, tmp_path / name)


@pytest.mark.parametrize("read", [read_image, read_pixels])
def test_a_file_that_may_not_be_read_or_fails_says_so(
    tmp_path: Path, read: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "image.png").write_bytes(ZOO["plain.png"].content)

    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UnreadableImageError, match=r"^Permission denied$"):
        read_file(read, tmp_path / "image.png")


def test_the_limit_of_pixels_can_be_lowered_and_raised(tmp_path: Path) -> None:
    count = HEIGHT * WIDTH
    assert pixel_limit() == MAX_PIXELS
    readers: list[Callable[..., object]] = [read_image, read_pixels]
    for name in ("plain.png", "plain.jpg"):
        path = tmp_path / name
        path.write_bytes(ZOO[name].content)
        for read in readers:
            for limit in (count - 1, count // 2 - 1, 1):
                limit_pixels(limit)
                message = f"^{count} pixels, more than --max-pixels {limit}$"
                with pytest.raises(UnreadableImageError, match=message):
                    read_file(read, path)
            limit_pixels(count)
            read_file(read, path)


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.long)])
def test_the_limit_holds_in_forked_and_spawned_workers(tmp_path: Path, start: str) -> None:
    (tmp_path / "plain.png").write_bytes(ZOO["plain.png"].content)
    (tmp_path / "one.png").write_bytes(ZOO["one pixel.png"].content)
    limit_pixels(100)
    batches = EpochBatches(2)
    batches.start_epoch(0, np.arange(2))
    dataset = ImageDataset(find_images(tmp_path), central_crop(32))
    loader = make_loader(dataset, batches, 1, torch.device("cpu"))
    limit_pixels(MAX_PIXELS)  # so that a forked worker does not inherit the limit
    loader.multiprocessing_context = start
    (batch,) = loader
    assert batch.index.tolist() == [0]
    assert batch.unreadable == {1: "864 pixels, more than --max-pixels 100"}


def test_a_narrow_image_is_cut_before_it_grows() -> None:
    """The central crop shows the same; 60,000 × 1 pixels resized whole would take 12 GB."""
    row = torch.from_numpy(np.random.default_rng(0).integers(256, size=(3, 1, 301), dtype=np.uint8))
    column = row.transpose(1, 2).clone(memory_format=torch.contiguous_format)
    for pixels in (row, column):
        whole = F.center_crop(F.resize(pixels, [64]), [56])
        assert (central_crop(56)(pixels).int() - whole.int()).abs().max() <= 1
        image = F.to_pil_image(pixels)
        assert (central_crop(56)(image).int() - whole.int()).abs().max() <= 1
    long = torch.zeros(3, 60_000, 1, dtype=torch.uint8)
    assert ShortSide(256)(long).shape == (3, 256 * NARROWEST, 256)
    for view in (random_crop, probe_crop, resized_crop, warped, modelzoo_crop):
        assert apply_seeded(view(32), long, 0).shape == (3, 32, 32)
    wide = torch.zeros(3, 10, 10 * NARROWEST, dtype=torch.uint8)
    assert ShortSide(20)(wide).shape == (3, 20, 20 * NARROWEST), "as wide as may be, it stays whole"
