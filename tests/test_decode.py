"""Every file that Pillow reads becomes RGB."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from torchvision.datasets.folder import pil_loader

from data.decode import UnreadableImageError, read_image


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
        ("F", "tif"), ("RGB", "ppm"),
    ],
)  # fmt: skip
def test_every_mode_decodes_as_torchvisions_loader_does(
    tmp_path: Path, mode: str, extension: str
) -> None:
    path = str(tmp_path / f"image.{extension}")
    gradient(mode).save(path)
    image = read_image(path)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), np.asarray(pil_loader(path)))
    if extension != "gif" and mode not in ("1", "P"):
        reference = np.asarray(gradient("L" if mode in ("L", "LA", "F") else "RGB").convert("RGB"))
        difference = np.abs(np.asarray(image).astype(int) - reference)
        assert difference.mean() < 16, "and looks like what was saved"


@pytest.mark.parametrize("extension", ["png", "tif", "pgm"])
def test_sixteen_bit_grey_keeps_its_upper_byte(tmp_path: Path, extension: str) -> None:
    wide = (np.arange(30 * 50).reshape(30, 50) * 43).astype(np.uint16)
    path = tmp_path / f"wide.{extension}"
    Image.fromarray(wide).save(path)
    decoded = np.asarray(read_image(str(path)))
    np.testing.assert_array_equal(decoded, np.repeat((wide >> 8)[:, :, None], 3, axis=2))


def test_lab(tmp_path: Path) -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(gradient(), srgb, lab, outputMode="LAB")
    assert converted is not None
    converted.save(tmp_path / "lab.tif")
    decoded = np.asarray(read_image(str(tmp_path / "lab.tif"))).astype(int)
    assert np.abs(decoded - np.asarray(gradient())).mean() < 4


def test_orientation_is_left_alone_as_by_torchvisions_loader(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to show
    gradient().save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(str(tmp_path / "turned.jpg")).size == (50, 30)


def test_transparent_palette_makes_no_noise(tmp_path: Path) -> None:
    image = gradient("P")
    image.info["transparency"] = bytes(range(256))
    image.save(tmp_path / "p.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(str(tmp_path / "p.png"))


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "garbage", "folder"])
def test_what_cannot_be_decoded_says_why(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "image.jpg"
    gradient().save(path)
    content = path.read_bytes()
    if damage in ("missing", "folder"):
        path.unlink()
    if damage == "folder":
        path.mkdir()
    if damage in ("empty", "cut", "garbage"):
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 2]}.get(damage, b"x" * 99))
    with pytest.raises(UnreadableImageError, match=r".+") as error:
        read_image(str(path))
    assert "\n" not in str(error.value)
    assert str(path) not in str(error.value), "the log names the file itself"
