"""Multi-crop: several crops of one decoded image, and SwAV's augmentations."""

import argparse
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from sklearn.datasets import load_sample_images
from torch import Tensor
from torchvision.transforms import v2

from data import multicrop
from data.images import ImageList, find_images
from data.loading import ImageDataset, load_in_order
from data.multicrop import (
    Crops,
    KernelBlur,
    MultiCrop,
    PillowBlur,
    add_crop_flags,
    crops_of,
    unpack,
)
from data.transforms import apply_seeded
from system.errors import InputError

PUBLISHED = Crops((2, 6), (224, 96), (0.14, 0.05), (1.0, 0.14))
SMALL = Crops((2, 3), (24, 12), (0.3, 0.05), (1.0, 0.3))
PHOTO = Image.fromarray(load_sample_images().images[0])


def colours(*wanted: tuple[int, int, int]) -> list[Image.Image]:
    return [Image.new("RGB", (40, 30), colour) for colour in wanted]


def without_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out everything random but the crop and the flip."""
    for name in ("RandomApply", "RandomGrayscale"):
        monkeypatch.setattr(v2, name, lambda *args, **options: torch.nn.Identity())


def test_an_image_becomes_one_row_of_bytes() -> None:
    row = MultiCrop(PUBLISHED)(PHOTO)
    assert row.dtype == torch.uint8
    assert row.shape == (PUBLISHED.packed,) == (2 * 3 * 224 * 224 + 6 * 3 * 96 * 96,)


def test_rows_are_unpacked_crop_after_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three images of one colour: each crop has its image's."""
    without_jitter(monkeypatch)
    images = colours((9, 8, 7), (60, 50, 40), (100, 200, 250))
    large, small = unpack(torch.stack([MultiCrop(SMALL)(image) for image in images]), SMALL)
    assert (large.shape, small.shape) == ((2 * 3, 3, 24, 24), (3 * 3, 3, 12, 12))
    assert large.is_contiguous(memory_format=torch.channels_last)
    for crops, number in ((large, 2), (small, 3)):
        expected = torch.tensor([(9, 8, 7), (60, 50, 40), (100, 200, 250)] * number)
        assert torch.equal(crops[:, :, 0, 0].long(), expected)
        assert torch.equal(crops, crops[:, :, :1, :1].expand_as(crops))


def test_each_pixel_comes_back_to_its_place() -> None:
    """Packed by hand: two groups of one crop, one image after the other."""
    crops = Crops((1, 1), (2, 1), (1.0, 1.0), (1.0, 1.0))
    large = torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2)
    small = torch.arange(100, 106, dtype=torch.uint8).view(2, 3, 1, 1)
    parts = [each.permute(0, 2, 3, 1).flatten(1) for each in (large, small)]
    found = unpack(torch.cat(parts, dim=1), crops)
    assert [each.tolist() for each in found] == [large.tolist(), small.tolist()]


def test_adjacent_groups_of_equal_size_are_one_resolution() -> None:
    """Groups of equal size that are not adjacent stay apart."""
    crops = Crops((1, 2, 3, 1), (8, 8, 4, 8), (0.5,) * 4, (1.0,) * 4)
    assert crops.resolutions == [(3, 8), (3, 4), (1, 8)]
    rows = torch.stack([MultiCrop(crops)(PHOTO) for _ in range(2)])
    shapes = [tuple(each.shape) for each in unpack(rows, crops)]
    assert shapes == [(6, 3, 8, 8), (6, 3, 4, 4), (2, 3, 8, 8)]


def test_crops_are_a_function_of_the_seed() -> None:
    view = MultiCrop(SMALL)
    first, again, other = (apply_seeded(view, PHOTO, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    crops = unpack(first[None], SMALL)[0]
    assert not torch.equal(crops[0], crops[1]), "each crop is drawn anew"


def test_pillow_and_tensor_give_the_same_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two resizes that round differently, one crop; jitter can enlarge the difference."""
    pixels = torch.from_numpy(np.array(PHOTO)).permute(2, 0, 1)
    for seed in range(4):
        found, expected = (apply_seeded(MultiCrop(SMALL), each, seed) for each in (pixels, PHOTO))
        assert (found.float() - expected.float()).abs().mean() < 2
    without_jitter(monkeypatch)
    for seed in range(4):
        found, expected = (apply_seeded(MultiCrop(SMALL), each, seed) for each in (pixels, PHOTO))
        assert (found.int() - expected.int()).abs().max() <= 1


def test_areas_are_within_the_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels that hold their own coordinates show which part of the image a crop is."""
    without_jitter(monkeypatch)
    side = 250
    rows, columns = np.mgrid[:side, :side].astype(np.uint8)
    image = Image.fromarray(np.dstack([rows, columns, columns]))
    crops = Crops((40, 40), (64, 32), (0.4, 0.05), (0.9, 0.14))
    torch.manual_seed(0)
    for group, least, most in zip(
        unpack(MultiCrop(crops)(image)[None], crops), (0.4, 0.05), (0.9, 0.14), strict=True
    ):
        edges = group[:, :2].flatten(2).float()
        # The outermost pixels' centres lie half a pixel inside
        spans = (edges.amax(2) - edges.amin(2)) * group.shape[-1] / (group.shape[-1] - 1)
        areas = spans.prod(dim=1) / side**2
        assert areas.min() > least - 0.02
        assert areas.max() < most + 0.02
        assert areas.max() - areas.min() > 0.6 * (most - least), "they vary"


def sigma_of(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    monkeypatch.setattr(multicrop, "_uniform", lambda low, high: value)


def test_the_kernel_blur_is_a_gaussian_of_23_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a sum over the 529 weights in float64, with mirrored borders."""
    sigma = 1.7
    sigma_of(monkeypatch, sigma)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    offsets = range(-11, 12)
    weights = {
        (y, x): math.exp(-(y * y + x * x) / (2 * sigma**2)) for y in offsets for x in offsets
    }
    around = np.pad(pixels.astype(float), ((11, 11), (11, 11), (0, 0)), mode="reflect")
    expected = sum(
        weight * around[11 + y : 31 + y, 11 + x : 41 + x] for (y, x), weight in weights.items()
    ) / sum(weights.values())
    found = np.asarray(KernelBlur()(Image.fromarray(pixels)), float)
    assert np.abs(found - expected).max() < 0.501


def test_the_pillow_blur_is_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    sigma_of(monkeypatch, 0.8)
    expected = PHOTO.filter(ImageFilter.GaussianBlur(radius=0.8))
    assert PillowBlur()(PHOTO).tobytes() == expected.tobytes()


@pytest.mark.parametrize("blur", ["pillow", "gaussian"])
def test_the_radius_of_the_blur_is_uniform(blur: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A point of light: the more it is blurred, the darker its centre."""
    seen = []
    uniform = multicrop._uniform

    def remember(low: float, high: float) -> float:
        seen.append(uniform(low, high))
        return seen[-1]

    monkeypatch.setattr(multicrop, "_uniform", remember)
    point = np.zeros((31, 31, 3), np.uint8)
    point[15, 15] = 255
    torch.manual_seed(0)
    blurred = multicrop.BLURS[blur]()
    centres = [np.asarray(blurred(Image.fromarray(point)))[15, 15, 0] for _ in range(400)]
    assert 0.1 <= min(seen) < 0.15
    assert 1.95 < max(seen) <= 2.0
    # Mean of 400 draws from U(0.1, 2): 1.05 ± 4 standard errors
    assert abs(np.mean(seen) - 1.05) < 4 * (1.9 / math.sqrt(12)) / 20
    assert centres[int(np.argmax(seen))] < centres[int(np.argmin(seen))]


def test_augmentations_have_their_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 crops of an image with colour and sides: each count within 4 standard deviations."""
    calls = {"jitter": 0, "blur": 0}

    class Jitter(v2.Transform):
        def __init__(self, *strengths: float) -> None:
            super().__init__()
            assert strengths == (0.8, 0.8, 0.8, 0.2)

        def forward(self, image: Image.Image) -> Image.Image:
            calls["jitter"] += 1
            return image

    class Blur(v2.Transform):
        def forward(self, image: Image.Image) -> Image.Image:
            calls["blur"] += 1
            return image

    monkeypatch.setattr(v2, "ColorJitter", Jitter)
    monkeypatch.setitem(multicrop.BLURS, "pillow", Blur)
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, :8], pixels[:, 8:] = (200, 0, 0), (0, 0, 0)  # red on the left
    crops = Crops((2000,), (4,), (1.0,), (1.0,))
    torch.manual_seed(0)
    (found,) = unpack(MultiCrop(crops)(Image.fromarray(pixels))[None], crops)
    grey = (found[:, 0] == found[:, 1]).flatten(1).all(1)
    assert torch.equal(found[grey, 1], found[grey, 2])
    flipped = found[:, 0, 0, -1] > found[:, 0, 0, 0]
    counts = {**calls, "grey": int(grey.sum()), "flip": int(flipped.sum())}
    for name, p in {"jitter": 0.8, "grey": 0.2, "blur": 0.5, "flip": 0.5}.items():
        assert abs(counts[name] - 2000 * p) < 4 * math.sqrt(2000 * p * (1 - p)), name


def test_the_augmentations_come_in_the_papers_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against torchvision's chain on a Pillow image, to the pixel."""
    sigma_of(monkeypatch, 1.2)
    chain = v2.Compose(
        [
            v2.RandomResizedCrop(32, scale=(0.14, 1)),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.Lambda(lambda im: im.filter(ImageFilter.GaussianBlur(1.2)))], 0.5),
            v2.PILToTensor(),
        ]
    )
    crops = Crops((1,), (32,), (0.14,), (1.0,))
    for seed in range(12):
        (found,) = unpack(apply_seeded(MultiCrop(crops), PHOTO, seed)[None], crops)
        assert torch.equal(found[0], apply_seeded(chain, PHOTO, seed))


def test_the_loader_decodes_an_image_once_for_all_crops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        PHOTO.resize((60, 40)).save(tmp_path / f"{number}.jpg")
    images, opened = find_images(tmp_path), []
    read = ImageList.read_pixels

    def remember(self: ImageList, number: int) -> Tensor:
        opened.append(number)
        return read(self, number)

    monkeypatch.setattr(ImageList, "read_pixels", remember)
    dataset = ImageDataset(images, MultiCrop(SMALL))
    (batch,) = load_in_order(dataset, 3, 0, torch.device("cpu"))
    assert opened == [0, 1, 2]
    assert [len(each) for each in unpack(batch.pixels, SMALL)] == [6, 9]
    (sent,) = load_in_order(dataset, 3, 1, torch.device("cpu"))
    assert torch.equal(sent.pixels, batch.pixels), "the same from a worker"


def parsed(flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_crop_flags(parser)
    return parser.parse_args(flags.split())


def test_flags_give_the_crops() -> None:
    assert crops_of(parsed("")) == PUBLISHED
    given = "--nmb_crops 2 --size_crops 160 --min_scale_crops 0.08 --max_scale_crops 1"
    assert crops_of(parsed(given)) == Crops((2,), (160,), (0.08,), (1.0,))
    assert parsed("").blur == "pillow"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("--nmb_crops 2", "--nmb_crops 2, --size_crops 224 96, "),
        ("--max_scale_crops 1 0.14 0.1", "--max_scale_crops 1.0 0.14 0.1: "),
        ("--min_scale_crops 0 0.05", "--min_scale_crops 0.0 0.05: "),
        ("--max_scale_crops 1.5 0.14", "--max_scale_crops 1.5 0.14: "),
        ("--min_scale_crops 0.14 0.2", "--min_scale_crops 0.14 0.2, --max_scale_crops 1.0 0.14: "),
    ],
)
def test_wrong_lists_are_named(flags: str, named: str) -> None:
    with pytest.raises(InputError, match=named.replace(".", r"\.")) as raised:
        crops_of(parsed(flags))
    assert "\n" not in str(raised.value)
