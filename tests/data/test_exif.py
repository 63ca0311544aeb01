"""`--exif`: whether images are turned as their EXIF says, and where the choice is kept."""

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from image_zoo import JPEG_DECODERS
from PIL import ExifTags, Image, ImageOps
from torch import Tensor
from torchvision.datasets.folder import pil_loader
from torchvision.io import decode_jpeg

import assign
import data.decode
import main
from checkpoints.checkpoint import read_checkpoint
from checkpoints.safetensors_file import read_weights
from data.decode import read_image, read_pixels
from data.images import find_images
from data.loading import Draw, ImageDataset
from data.reading import EXIF, Reading, chosen_reading
from data.transforms import warped
from features.network import open_inputs
from system.errors import InputError
from tools import export, prepare_data
from training.finished_run import read_run

ORIENTATIONS = range(1, 9)
Train = Callable[..., Path]


@pytest.fixture(params=JPEG_DECODERS)
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(data.decode, "decode_jpeg", JPEG_DECODERS[request.param])
    return str(request.param)


def picture() -> Image.Image:
    """All of its turned and mirrored versions differ."""
    y, x = np.mgrid[:24, :40]
    return Image.fromarray(np.stack([x * 6, y * 10, (x + 2 * y) * 2], axis=2).astype(np.uint8))


def encoded(orientation: int, kind: str = "JPEG", mode: str = "RGB") -> bytes:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Orientation] = orientation
    picture().convert(mode).save(buffer, kind, exif=exif)
    return buffer.getvalue()


ON_ITS_SIDE = encoded(6)


def both(content: bytes, exif: str = "ignore") -> tuple[Tensor, Tensor]:
    """The pixels of `--decode pil` and of `--decode auto`."""
    reading = Reading(exif)
    return as_tensor(read_image(io.BytesIO(content), reading)), read_pixels(
        io.BytesIO(content), reading
    )


def as_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def upright(content: bytes) -> Tensor:
    with Image.open(io.BytesIO(content)) as image:
        return as_tensor(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_ignore_keeps_the_stored_pixels(
    tmp_path: Path, decoder: str, orientation: int, mode: str
) -> None:
    content = encoded(orientation, mode=mode)
    (tmp_path / "photo.jpg").write_bytes(content)
    stored = as_tensor(pil_loader(tmp_path / "photo.jpg"))
    assert stored.shape == (3, 24, 40)
    for pixels in both(content):
        assert torch.equal(pixels, stored)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("WEBP", "RGB"),
     ("TIFF", "RGB")],
)  # fmt: skip
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_apply_turns_as_pillow_does(decoder: str, orientation: int, kind: str, mode: str) -> None:
    content = encoded(orientation, kind, mode)
    expected = upright(content)
    assert expected.shape == ((3, 24, 40) if orientation < 5 else (3, 40, 24))
    for pixels in both(content, "apply"):
        assert torch.equal(pixels, expected)


@pytest.mark.parametrize("choice", EXIF)
def test_a_tiff_is_turned_once_with_either_choice(choice: str) -> None:
    """Pillow turns it while it loads."""
    for pixels in both(encoded(6, "TIFF"), choice):
        assert torch.equal(pixels, upright(encoded(6, "TIFF")))


@pytest.mark.parametrize("choice", EXIF)
def test_damaged_exif_gives_pillows_pixels(decoder: str, choice: str) -> None:
    """TorchCodec looks for an orientation where Pillow sees no EXIF."""
    rng = np.random.default_rng(0)
    for number in range(300):
        content = bytearray(encoded(2 + number % 7))
        exif = content.index(b"Exif")
        for place in rng.integers(exif, exif + 28, size=2):
            content[place] = rng.choice([0, 1, 2, 3, 6, 18, 255])
        slow, quick = both(bytes(content), choice)
        assert torch.equal(slow, quick), bytes(content[: exif + 28])


def test_an_empty_segment_leaves_the_rest_of_the_file_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The bytes of an empty APP1 segment may also occur in a comment."""
    empty, comment = b"\xff\xe1\x00\x02", b"\xff\xfe\x00\x08ab\xff\xe1\x00\x02"
    jpeg = encoded(1)
    content = jpeg[:2] + empty + comment + jpeg[2:]
    decoded: list[bytes] = []

    def decode(encoded: Tensor, mode: str) -> Tensor:
        decoded.append(encoded.numpy().tobytes())
        return torch.zeros(3, 1, 1)

    monkeypatch.setattr(data.decode, "decode_jpeg", decode)
    read_pixels(io.BytesIO(content))
    assert decoded[0].startswith(jpeg[:2] + empty + comment)
    assert b"Exif" not in decoded[0]


def test_exif_that_cannot_be_rewritten_does_not_make_an_image_unreadable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = upright(ON_ITS_SIDE)

    def fail(exif: Image.Exif, offset: int = 8) -> bytes:
        raise ValueError("damaged")

    monkeypatch.setattr(Image.Exif, "tobytes", fail)
    for pixels in both(ON_ITS_SIDE, "apply"):
        assert torch.equal(pixels, expected)
    monkeypatch.setattr(Image.Image, "getexif", fail)
    for pixels in both(ON_ITS_SIDE, "apply"):
        assert pixels.shape == (3, 24, 40)


class Failing(ModuleType):
    """A TorchCodec that raises when its decoder is imported."""

    def __init__(self, error: Exception) -> None:
        super().__init__("torchcodec.decoders")
        self.error = error

    def __getattr__(self, name: str) -> Any:
        raise self.error if name == "decode_jpeg" else AttributeError(name)


@pytest.mark.parametrize(
    "module",
    [None, ModuleType("torchcodec.decoders"), Failing(RuntimeError("another torch")),
     Failing(OSError("a library is missing"))],
    ids=["missing", "older than 0.16", "RuntimeError", "OSError"],
)  # fmt: skip
def test_torchvision_decodes_if_torchcodec_cannot(
    module: ModuleType | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", module)
    assert data.decode._jpeg_decoder() is decode_jpeg


@pytest.mark.parametrize(("decode", "read"), [("auto", read_pixels), ("pil", read_image)])
@pytest.mark.parametrize("choice", EXIF)
def test_a_data_set_is_read_with_its_choice(
    tmp_path: Path, choice: str, decode: str, read: Callable[..., Tensor | Image.Image]
) -> None:
    (tmp_path / "photo.jpg").write_bytes(ON_ITS_SIDE)
    images = find_images(tmp_path, Reading(choice)).take([0])
    _, pixels = ImageDataset(images, warped(8), decode=decode)[Draw(0, 0, 0)]
    assert isinstance(pixels, Tensor)
    assert torch.equal(pixels, warped(8)(read(io.BytesIO(ON_ITS_SIDE), Reading(choice))))


@pytest.mark.parametrize(
    ("flag", "settings", "choice"),
    [
        (None, {}, "ignore"), (None, {"exif": "ignore"}, "ignore"),
        (None, {"exif": "apply"}, "apply"), ("apply", {}, "apply"),
        ("ignore", {"exif": "apply"}, "ignore"),
    ],
)  # fmt: skip
def test_the_flag_wins_over_the_checkpoint(
    flag: str | None, settings: dict[str, Any], choice: str
) -> None:
    args = argparse.Namespace(exif=flag, range=None, channels=None)
    assert chosen_reading(args, settings, Path("network")) == Reading(choice)


def test_a_checkpoint_with_an_unknown_choice() -> None:
    message = "^network: its exif is 7; give --exif ignore or --exif apply$"
    with pytest.raises(InputError, match=message):
        chosen_reading(
            argparse.Namespace(exif=None, range=None, channels=None), {"exif": 7}, Path("network")
        )


def test_resume_and_export_keep_exif(tree: Path, train: Train, tmp_path: Path) -> None:
    exp = train(tree, "--exif", "apply")
    file = exp / "checkpoint.pth.tar"
    assert read_checkpoint(file)["settings"]["exif"] == "apply"
    resume = [str(tree), "--resume", str(file)]
    assert main.parse_args(resume).exif == "apply"
    assert main.parse_args([*resume, "--exif", "ignore"]).exif == "ignore"
    assert read_run(exp).images.reading.exif == "apply"
    assert (
        read_run(
            exp, args=argparse.Namespace(exif="ignore", range=None, channels=None)
        ).images.reading.exif
        == "ignore"
    )
    flags = [str(file), str(tree), "--device", "cpu"]
    assert open_inputs(assign.parse_args(flags)).images.reading.exif == "apply"
    assert (
        open_inputs(assign.parse_args([*flags, "--exif", "ignore"])).images.reading.exif == "ignore"
    )
    out = tmp_path / "network.safetensors"
    export.main(export.parse_args([str(file), str(out)]))
    assert read_weights(out)["settings"] == {"size": 32, "exif": "apply"}


def test_resume_without_a_saved_exif_ignores_it(tree: Path, train: Train) -> None:
    exp = train(tree)
    file = exp / "checkpoint.pth.tar"
    state = read_checkpoint(file)
    del state["settings"]["exif"]
    torch.save(state, file)
    assert main.parse_args([str(tree), "--resume", str(file)]).exif == "ignore"
    train(tree, "--resume", str(file), "--epochs", "2", "--exif", "apply")
    assert "exif ignore → apply" in (exp / "log.txt").read_text()


def test_a_copy_is_turned_if_asked_for(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "photo.png").write_bytes(encoded(6, "PNG"))
    for choice, size in (("ignore", (20, 12)), ("apply", (12, 20))):
        target = tmp_path / choice
        flags = [str(tmp_path / "source"), str(target), "--size", "12", "--exif", choice]
        prepare_data.main(prepare_data.parse_args(flags))
        with Image.open(target / "photo.png") as copy:
            assert copy.size == size
    with pytest.raises(InputError, match=r"was made with other settings \(exif apply → None\)"):
        prepare_data.main(prepare_data.parse_args([*flags[:4], "--exif", "ignore"]))
