"""`--exif`: whether images are turned as their EXIF says, and where the choice is kept."""

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_zoo import JPEG_DECODERS
from PIL import ExifTags, Image, ImageOps
from torch import Tensor
from torchvision.datasets.folder import pil_loader

import data.decode
import main
from checkpoints.checkpoint import read_checkpoint
from checkpoints.safetensors_file import read_weights
from data.decode import MAX_PIXELS, exif_choice, orient_by_exif, read_image, read_pixels
from data.images import find_images
from data.loading import EpochBatches, ImageDataset, make_loader, set_decoding
from data.transforms import warped
from system.errors import InputError
from tools import export, prepare_data

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


def both(content: bytes) -> tuple[Tensor, Tensor]:
    """The pixels of `--decode pil` and of `--decode auto`."""
    return as_tensor(read_image(io.BytesIO(content))), read_pixels(io.BytesIO(content))


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
    orient_by_exif("apply")
    content = encoded(orientation, kind, mode)
    expected = upright(content)
    assert expected.shape == ((3, 24, 40) if orientation < 5 else (3, 40, 24))
    for pixels in both(content):
        assert torch.equal(pixels, expected)


@pytest.mark.parametrize("choice", data.decode.EXIF)
def test_a_tiff_is_turned_once_with_either_choice(choice: str) -> None:
    """Pillow turns it while it loads."""
    orient_by_exif(choice)
    for pixels in both(encoded(6, "TIFF")):
        assert torch.equal(pixels, upright(encoded(6, "TIFF")))


@pytest.mark.parametrize("choice", data.decode.EXIF)
def test_damaged_exif_turns_nothing_that_pillow_would_not(decoder: str, choice: str) -> None:
    """TorchCodec looks for an orientation where Pillow sees no EXIF."""
    orient_by_exif(choice)
    rng = np.random.default_rng(0)
    for number in range(300):
        content = bytearray(encoded(2 + number % 7))
        exif = content.index(b"Exif")
        for place in rng.integers(exif, exif + 28, size=2):
            content[place] = rng.choice([0, 1, 2, 3, 6, 18, 255])
        slow, quick = both(bytes(content))
        assert torch.equal(slow, quick), bytes(content[: exif + 28])


def test_exif_that_cannot_be_rewritten_does_not_make_an_image_unreadable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    orient_by_exif("apply")
    expected = upright(ON_ITS_SIDE)

    def fail(exif: Image.Exif, offset: int = 8) -> bytes:
        raise ValueError("damaged")

    monkeypatch.setattr(Image.Exif, "tobytes", fail)
    for pixels in both(ON_ITS_SIDE):
        assert torch.equal(pixels, expected)
    monkeypatch.setattr(Image.Image, "getexif", fail)
    for pixels in both(ON_ITS_SIDE):
        assert pixels.shape == (3, 24, 40)


def test_torchvision_decodes_if_there_is_no_torchcodec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    assert data.decode._jpeg_decoder() is JPEG_DECODERS["torchvision"]


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.long)])
def test_the_choice_holds_in_workers(tmp_path: Path, start: str) -> None:
    (tmp_path / "photo.jpg").write_bytes(ON_ITS_SIDE)
    orient_by_exif("apply")
    batches = EpochBatches(1)
    batches.start_epoch(0, np.arange(1))
    dataset = ImageDataset(find_images(tmp_path), warped(8))
    loader = make_loader(dataset, batches, 1, torch.device("cpu"))
    loader.multiprocessing_context = start
    (batch,) = loader
    assert torch.equal(batch.pixels[0], warped(8)(upright(ON_ITS_SIDE)))


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
    set_decoding(argparse.Namespace(max_pixels=MAX_PIXELS, exif=flag), settings)
    assert exif_choice() == choice


def test_a_checkpoint_with_an_unknown_choice() -> None:
    flags = argparse.Namespace(max_pixels=MAX_PIXELS, exif=None)
    with pytest.raises(InputError, match=r"^exif is 7; give --exif ignore or --exif apply$"):
        set_decoding(flags, {"exif": 7})


def test_a_run_keeps_the_choice_for_its_resume_and_for_its_checkpoint(
    tree: Path, train: Train, tmp_path: Path
) -> None:
    file = train(tree, "--exif", "apply") / "checkpoint.pth.tar"
    assert read_checkpoint(file)["settings"]["exif"] == "apply"
    resume = [str(tree), "--resume", str(file)]
    assert main.parse_args(resume).exif == "apply"
    assert main.parse_args([*resume, "--exif", "ignore"]).exif == "ignore"
    out = tmp_path / "network.safetensors"
    export.main(export.parse_args([str(file), str(out)]))
    assert read_weights(out)["settings"] == {"size": 32, "exif": "apply"}


def test_a_checkpoint_from_before_there_was_a_choice_resumes_with_ignore(
    tree: Path, train: Train
) -> None:
    file = train(tree) / "checkpoint.pth.tar"
    state = read_checkpoint(file)
    del state["settings"]["exif"]
    torch.save(state, file)
    assert main.parse_args([str(tree), "--resume", str(file)]).exif == "ignore"


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
