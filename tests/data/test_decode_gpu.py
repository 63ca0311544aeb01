"""JPEGs that are decoded where the network is. On the CPU the same code runs with its decoder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor

from data.batch import Batch
from data.decode_gpu import GpuDecodingLoader, check_decode
from data.images import find_images
from data.loading import EpochBatches, ImageDataset, make_loader
from data.transforms import random_crop
from system.errors import InputError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Nine images: sound JPEGs (0, 1, 2, 8), other kinds (3, 4), and damaged ones."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    for number in (0, 1, 2, 5, 6, 8):
        photos[number % 2].resize((90 + number, 70)).save(folder / f"{number}.jpg")
    photos[0].resize((64, 64)).save(folder / "3.png")
    photos[0].resize((64, 64)).convert("CMYK").save(folder / "4.jpg")
    (folder / "5.jpg").write_bytes((folder / "5.jpg").read_bytes()[:900])
    content = bytearray((folder / "6.jpg").read_bytes())
    scan = content.index(b"\xff\xda")
    content[scan + 4] = 9  # more channels in the scan than the header has: the end is still there
    (folder / "6.jpg").write_bytes(content)
    (folder / "7.jpg").write_bytes(b"nothing")
    return folder


def load(folder: Path, decode: str, device: torch.device, order: list[int]) -> list[Batch]:
    batches = EpochBatches(9)
    batches.start_epoch(2, np.array(order))
    dataset = ImageDataset(find_images(folder), random_crop(48), seed=5, decode=decode)
    return list(make_loader(dataset, batches, 1, device))


def by_image(batch: Batch) -> dict[int, Tensor]:
    return dict(zip(batch.index.tolist(), batch.pixels.cpu(), strict=True))


def test_images_crops_and_reasons_are_those_of_the_workers(mixed: Path) -> None:
    (reference,) = load(mixed, "auto", CPU, list(range(9)))
    (batch,) = load(mixed, "gpu", CPU, list(range(9)))
    assert sorted(batch.index.tolist()) == [0, 1, 2, 3, 4, 8]
    assert batch.unreadable == reference.unreadable
    assert sorted(batch.unreadable) == [5, 6, 7]
    for image, pixels in by_image(reference).items():
        assert torch.equal(by_image(batch)[image], pixels)


@pytest.mark.parametrize("order", [[0, 1, 8], [3, 4], [7], [6, 5]])
def test_batches_of_one_kind(mixed: Path, order: list[int]) -> None:
    (reference,) = load(mixed, "auto", CPU, order)
    (batch,) = load(mixed, "gpu", CPU, order)
    assert torch.equal(batch.pixels, reference.pixels)
    assert torch.equal(batch.index, reference.index)
    assert batch.unreadable == reference.unreadable


def test_the_loader_goes_through_many_epochs(mixed: Path) -> None:
    batches = EpochBatches(2)
    dataset = ImageDataset(find_images(mixed), random_crop(32), decode="gpu")
    loader = make_loader(dataset, batches, 0, CPU)
    assert isinstance(loader, GpuDecodingLoader)
    for epoch in range(2):
        batches.start_epoch(epoch, np.array([0, 1, 2]))
        assert [batch.index.tolist() for batch in loader] == [[0, 1], [2]]


def test_without_a_gpu_it_is_refused() -> None:
    for device in ("cpu", "mps"):
        with pytest.raises(InputError, match=f"^--decode gpu: needs a CUDA GPU.* is on {device};"):
            check_decode("gpu", torch.device(device))
    check_decode("auto", CPU)
    check_decode("pil", CPU)


def test_a_gpu_that_cannot_decode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("no nvJPEG\nstack of calls")

    monkeypatch.setattr("data.decode_gpu.decode_jpeg", fail)
    with pytest.raises(
        InputError, match=r"cannot decode on cuda \(no nvJPEG\); give --decode auto"
    ):
        check_decode("gpu", CUDA)
    monkeypatch.setattr("data.decode_gpu.decode_jpeg", lambda *args, **options: args)
    check_decode("gpu", CUDA)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_the_gpu_shows_the_same_pictures(mixed: Path) -> None:
    (reference,) = load(mixed, "auto", CPU, list(range(9)))
    (batch,) = load(mixed, "gpu", CUDA, list(range(9)))
    assert batch.pixels.device.type == "cuda"
    assert batch.unreadable == reference.unreadable
    for image, pixels in by_image(reference).items():
        difference = (by_image(batch)[image].int() - pixels.int()).abs().float()
        assert difference.mean() < 4, "nvJPEG repeats the colours of 4:2:0 where libjpeg blends"
