"""Every format that Pillow reads becomes RGB, the same by all decoders."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import read_file
from image_zoo import JPEG_DECODERS
from PIL import Image, ImageCms
from sklearn.datasets import load_sample_images
from torch import Tensor
from torchvision.datasets.folder import pil_loader
from torchvision.transforms import v2

import data.decode
from data.decode import (
    EMPTY,
    UnreadableImageError,
    image_extensions,
    read_image,
    read_pixels,
)
from data.transforms import apply_seeded, central_crop, random_crop


def as_tensor(image: Image.Image | np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def gradient(mode: str = "RGB") -> Image.Image:
    y, x = np.mgrid[:30, :50]
    rgb = np.stack([x * 5, y * 8, (x + y) * 3], axis=2).astype(np.uint8)
    return Image.fromarray(rgb).convert(mode)


@pytest.mark.parametrize(
    ("mode", "extension"),
    [
        ("RGB", "jpg"), ("L", "jpg"), ("CMYK", "jpg"), ("RGB", "png"), ("L", "png"), ("1", "png"),
        ("P", "png"), ("RGBA", "png"), ("LA", "png"), ("P", "gif"), ("RGB", "webp"),
        ("RGBA", "webp"), ("RGB", "bmp"), ("RGB", "tif"), ("CMYK", "tif"),
        ("RGB", "ppm"),
    ],
)  # fmt: skip
def test_every_mode_decodes_as_torchvisions_loader_does(
    tmp_path: Path, mode: str, extension: str
) -> None:
    path = str(tmp_path / f"image.{extension}")
    gradient(mode).save(path)
    image = read_file(read_image, path)
    assert image.mode == "RGB"
    assert torch.equal(read_file(read_pixels, path), as_tensor(image))
    np.testing.assert_array_equal(np.asarray(image), np.asarray(pil_loader(path)))
    if extension != "gif" and mode not in ("1", "P"):
        reference = np.asarray(gradient("L" if mode in ("L", "LA") else "RGB").convert("RGB"))
        difference = np.abs(np.asarray(image).astype(int) - reference)
        assert difference.mean() < 16, "and looks like what was saved"


@pytest.mark.parametrize("extension", ["png", "tif", "pgm"])
def test_sixteen_bit_grey_keeps_its_upper_byte(tmp_path: Path, extension: str) -> None:
    wide = (np.arange(30 * 50).reshape(30, 50) * 43).astype(np.uint16)
    path = tmp_path / f"wide.{extension}"
    Image.fromarray(wide).save(path)
    decoded = np.asarray(read_file(read_image, path))
    np.testing.assert_array_equal(decoded, np.repeat((wide >> 8)[:, :, None], 3, axis=2))
    assert torch.equal(read_file(read_pixels, path), as_tensor(decoded))


def test_lab(tmp_path: Path) -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(gradient(), srgb, lab, outputMode="LAB")
    assert converted is not None
    converted.save(tmp_path / "lab.tif")
    decoded = np.asarray(read_file(read_image, tmp_path / "lab.tif")).astype(int)
    assert np.abs(decoded - np.asarray(gradient())).mean() < 4


def test_transparent_palette_makes_no_noise(tmp_path: Path) -> None:
    image = gradient("P")
    image.info["transparency"] = bytes(range(256))
    image.save(tmp_path / "p.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_file(read_image, tmp_path / "p.png")
        read_file(read_pixels, tmp_path / "p.png")


def test_images_in_memory_are_read_like_files() -> None:
    whole = encoded(gradient())
    assert read_image(io.BytesIO(whole)).size == (50, 30)
    assert read_pixels(io.BytesIO(whole)).shape == (3, 30, 50)
    for content, reason in ((b"", EMPTY), (b"x" * 99, "cannot identify image file")):
        for read in (read_image, read_pixels):
            with pytest.raises(UnreadableImageError, match=f"^{reason}$"):
                read(io.BytesIO(content))


def test_a_file_stays_open_and_can_be_read_again() -> None:
    for kind in ("JPEG", "PNG", "TIFF", "GIF"):
        file = io.BytesIO(encoded(gradient(), kind))
        first = read_pixels(file)
        assert torch.equal(as_tensor(read_image(file)), first)
        assert torch.equal(read_pixels(file), first)


def test_extensions_are_those_that_pillow_reads() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp", ".tif", ".bmp", ".gif", ".ppm"} <= image_extensions()
    assert not {".pdf", ".txt", ".mpg", ".h5"} & image_extensions()


def assert_close(ours: Tensor, expected: Tensor) -> None:
    """Up to one grey level, or two in one of 10,000 values."""
    difference = (ours.int() - expected.int()).abs()
    assert int(difference.max()) <= 2
    assert int((difference == 2).sum()) <= max(1, difference.numel() // 10000)


PHOTOS = [Image.fromarray(photo) for photo in load_sample_images().images]
JPEGS: dict[str, dict[str, Any]] = {
    "quality 30": {"quality": 30},
    "quality 75": {"quality": 75},
    "quality 95": {"quality": 95},
    "progressive": {"progressive": True},
    "4:4:4": {"subsampling": "4:4:4"},
    "4:2:2": {"subsampling": "4:2:2"},
    "4:2:0, progressive": {"subsampling": "4:2:0", "progressive": True, "quality": 90},
    "RGB without transform": {"keep_rgb": True},
    "restart markers": {"restart_marker_blocks": 3},
}
SIZES = [(640, 427), (333, 501), (61, 45), (8, 8), (7, 9), (1, 50), (50, 1), (1, 1), (300, 20)]


@pytest.mark.parametrize("decoder", JPEG_DECODERS)
@pytest.mark.parametrize("options", JPEGS.values(), ids=list(JPEGS))
def test_fast_jpegs_have_pillows_pixels(
    tmp_path: Path, options: dict[str, Any], decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data.decode, "decode_jpeg", JPEG_DECODERS[decoder])
    path = str(tmp_path / "photo.jpg")
    for number, size in enumerate(SIZES):
        for mode in ("RGB", "L"):
            photo = PHOTOS[number % 2].resize(size).convert(mode)
            if mode == "RGB" or "keep_rgb" not in options:
                photo.save(path, **options)
                assert torch.equal(
                    read_file(read_pixels, path), as_tensor(read_file(read_image, path))
                ), (size, mode)


@pytest.mark.parametrize(
    ("mode", "extension", "options"),
    [
        ("RGB", "jpg", {"quality": 40}), ("RGB", "jpg", {"quality": 95}), ("L", "jpg", {}),
        ("CMYK", "jpg", {}), ("RGB", "png", {}), ("RGBA", "png", {}), ("P", "png", {}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", SIZES)
def test_transforms_of_tensors_and_images_agree_up_to_rounding(
    tmp_path: Path, mode: str, extension: str, options: dict[str, Any], size: tuple[int, int]
) -> None:
    path = str(tmp_path / f"photo.{extension}")
    PHOTOS[sum(size) % 2].resize(size).convert(mode).save(path, **options)
    image, pixels = read_file(read_image, path), read_file(read_pixels, path)
    narrow = max(size) / min(size) > 20  # resized whole, it would be very long
    views = [(random_crop(s), seed) for s in (224, 65) for seed in range(6)]
    views += [] if narrow else [(central_crop(s), 0) for s in (224, 96, 33)]
    for transform, seed in views:
        expected = apply_seeded(transform, image, seed)
        ours = apply_seeded(transform, pixels, seed)
        assert ours.dtype == torch.uint8
        assert_close(ours, expected)


def test_a_resized_checkerboard_agrees_too(tmp_path: Path) -> None:
    """It has the most to average, and the most ties in rounding."""
    y, x = np.mgrid[:301, :407]
    for kind in ((x + y) % 2 * 255, np.random.default_rng(0).integers(256, size=(301, 407))):
        image = Image.fromarray(kind.astype(np.uint8)).convert("RGB")
        for transform in (central_crop(224), random_crop(96), v2.Resize(31)):
            expected = apply_seeded(transform, image, 3)
            expected = expected if isinstance(expected, Tensor) else as_tensor(expected)
            ours = apply_seeded(transform, as_tensor(image), 3)
            assert_close(ours, expected)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def outcome(read: Callable[..., Any], path: Path) -> Tensor | str:
    try:
        image = read_file(read, path)
    except UnreadableImageError as error:
        return str(error)
    return image if isinstance(image, Tensor) else as_tensor(image)


@pytest.mark.parametrize("decoder", JPEG_DECODERS)
@pytest.mark.parametrize("kind", ["JPEG", "progressive JPEG", "PNG"])
def test_damaged_files_are_unreadable_or_read_as_by_pillow(
    tmp_path: Path, kind: str, decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data.decode, "decode_jpeg", JPEG_DECODERS[decoder])
    options = {"progressive": True} if kind.startswith("progressive") else {}
    whole = encoded(PHOTOS[0].resize((61, 45)), kind.split()[-1], **options)
    rng = np.random.default_rng(0)
    cases = [whole[:length] for length in (*range(0, len(whole), 97), len(whole) - 1)]
    for place in rng.integers(len(whole), size=60):
        cases.append(whole[:place] + bytes([rng.integers(256)]) + whole[place + 1 :])
    path = tmp_path / "damaged"
    unreadable = 0
    for content in cases:
        path.write_bytes(content)
        slow, quick = outcome(read_image, path), outcome(read_pixels, path)
        unreadable += isinstance(slow, str)
        if isinstance(slow, Tensor) and isinstance(quick, Tensor):
            assert torch.equal(quick, slow)
        else:
            assert quick == slow
    assert unreadable > len(whole) // 97 - 1


def test_plain_jpegs_are_decoded_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.decode, "_to_rgb", None)
    for mode in ("RGB", "L"):
        gradient(mode).save(tmp_path / "image.jpg")
        assert read_file(read_pixels, tmp_path / "image.jpg").shape == (3, 30, 50)
