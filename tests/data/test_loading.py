"""From files to batches: pixels, indices, and randomness that does not depend on workers."""

import functools
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_images
from PIL import Image
from reference_numbers import DEEPER
from sklearn.datasets import load_sample_images
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import v2

from data import loading
from data.batch import Batch
from data.images import find_images
from data.loading import Draw, EpochBatches, ImageDataset, Sample, make_loader
from data.transforms import (
    apply_seeded,
    central_crop,
    object_crop,
    probe_crop,
    random_crop,
    rotated,
    ten_crops,
    to_input,
    warped,
)
from system.normalisation import IMAGENET_MEAN, IMAGENET_STD

CPU = torch.device("cpu")


def test_the_central_crop_is_the_papers(tmp_path: Path) -> None:
    (path,) = write_images(tmp_path, 1, side=300)
    reference = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    image = Image.open(path).convert("RGB")
    pixels = central_crop(224)(image)
    assert pixels.dtype == torch.uint8
    ours = to_input(pixels[None], CPU)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours[0], reference(image), atol=1e-5, rtol=1e-5)


def test_other_sizes_are_resized_in_proportion() -> None:
    image = Image.new("RGB", (100, 50))
    assert central_crop(96)(image).shape == random_crop(96)(image).shape == (3, 96, 96)


@pytest.mark.parametrize("form", ["PIL", "tensor"])
def test_random_crops_are_torchvisions(form: str) -> None:
    photo = load_sample_images().images[0][:100, :140]
    image = Image.fromarray(photo) if form == "PIL" else torch.from_numpy(photo).permute(2, 0, 1)
    two = v2.Compose([v2.RandomResizedCrop(32), v2.RandomHorizontalFlip(), v2.PILToTensor()])
    crops = [apply_seeded(random_crop(32), image, seed) for seed in range(40)]
    assert len({crop.numpy().tobytes() for crop in crops}) == 40
    for seed, crop in enumerate(crops):
        assert torch.equal(crop, apply_seeded(two, image, seed))


def test_small_images_stay_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "ALL_SMALL", 2 * 3 * 8 * 8)
    for number, side in enumerate((8, 65, 8, 8)):
        noise = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    dataset = ImageDataset(find_images(tmp_path), central_crop(8))
    draws = [Draw(image, 0, position) for position, image in enumerate(range(4))]
    before = [dataset[draw][1] for draw in draws]
    for file in tmp_path.iterdir():
        file.write_bytes(b"no image")
    after = [dataset[draw][1] for draw in draws]
    for number in (0, 2):
        np.testing.assert_array_equal(after[number], before[number])
    assert [type(after[number]) for number in (1, 3)] == [str, str], "too large, and no room"


def epoch(
    tree: Path, workers: int, epoch_number: int = 3, seed: int = 1
) -> tuple[Tensor, list[int]]:
    images = find_images(tree)
    batches = EpochBatches(7)
    batches.start_epoch(epoch_number, np.array([5, 5, 0, 39, 12, 5, 8, 7, 30, 31]))
    dataset = ImageDataset(images, random_crop(32), seed=seed)
    loaded = list(make_loader(dataset, batches, workers, CPU))
    assert len(loaded) == 2
    pixels = torch.cat([batch.pixels for batch in loaded])
    return pixels, torch.cat([batch.index for batch in loaded]).tolist()


def test_crops_do_not_depend_on_the_workers(tree: Path) -> None:
    pixels, index = epoch(tree, workers=0)
    assert index == [5, 5, 0, 39, 12, 5, 8, 7, 30, 31]
    for workers in (1, 3):
        again, _ = epoch(tree, workers)
        assert torch.equal(pixels, again)


def test_crops_depend_on_epoch_seed_and_place_in_the_epoch(tree: Path) -> None:
    pixels, _ = epoch(tree, workers=0)
    assert not torch.equal(pixels[0], pixels[1]), "the same image, drawn twice"
    assert not torch.equal(pixels, epoch(tree, workers=0, epoch_number=4)[0])
    assert not torch.equal(pixels, epoch(tree, workers=0, seed=2)[0])


def test_reading_leaves_torchs_generator_alone(tree: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    epoch(tree, workers=0)
    epoch(tree, workers=1)
    assert torch.equal(torch.rand(3), expected)


def test_an_epoch_can_start_in_the_middle() -> None:
    batches = EpochBatches(4)
    order = np.arange(10) * 10
    batches.start_epoch(2, order)
    whole = list(batches)
    batches.start_epoch(2, order, first_batch=1)
    assert list(batches) == whole[1:]
    assert len(batches) == 2
    assert whole[1][0] == Draw(image=40, epoch=2, position=4)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_view_is_turned_after_its_crop(tree: Path, workers: int) -> None:
    """Each draw has its quarter turns; the crop and the flip are those of the draw without."""
    (tree / "a" / "003.png").write_bytes(b"no image")
    loader_of = functools.partial(loaded, tree, workers)
    images, turns = np.array([5, 3, 0, 5, 7]), np.array([1, 2, 0, 3, 2])
    plain, turned = loader_of(images), loader_of(np.stack([images, turns], axis=1))
    assert plain.index.tolist() == turned.index.tolist() == [5, 0, 5, 7]
    assert plain.turns.tolist() == [0, 0, 0, 0]
    assert turned.turns.tolist() == [1, 0, 3, 2]
    for before, after, quarters in zip(plain.pixels, turned.pixels, turned.turns, strict=True):
        expected = np.rot90(before.numpy(), int(quarters), axes=(1, 2))
        np.testing.assert_array_equal(after.numpy(), expected)


def loaded(tree: Path, workers: int, order: np.ndarray) -> Batch:
    batches = EpochBatches(5)
    batches.start_epoch(1, order)
    dataset = ImageDataset(find_images(tree), random_crop(32), seed=3)
    (batch,) = make_loader(dataset, batches, workers, CPU)
    return batch


def test_rotations_are_the_released_ones() -> None:
    image = torch.from_numpy(DEEPER["rot_image"]).permute(2, 0, 1)
    for quarters, expected in zip(DEEPER["rot_labels"], DEEPER["rot_images"], strict=True):
        turned = rotated(image, int(quarters))
        np.testing.assert_array_equal(turned.permute(1, 2, 0).numpy(), expected)
    oblong = torch.from_numpy(DEEPER["rot_rect"]).permute(2, 0, 1)
    for quarters, angle in enumerate((0, 90, 180, 270)):
        turned = rotated(oblong, quarters).permute(1, 2, 0)
        np.testing.assert_array_equal(turned.numpy(), DEEPER[f"rot_rect_{angle}"])
    assert torch.equal(rotated(oblong[None], -1)[0], rotated(oblong, 3))


def test_workers_outlive_the_epoch(tree: Path) -> None:
    batches = EpochBatches(8)
    loader = make_loader(ImageDataset(find_images(tree), central_crop(32)), batches, 1, CPU)
    others = set(multiprocessing.active_children())  # those of tests before
    seen, workers = [], []
    for number, order in enumerate((np.arange(8), np.arange(20, 28))):
        batches.start_epoch(number, order)
        seen.append(next(iter(loader)).index.tolist())
        workers.append([w.pid for w in multiprocessing.active_children() if w not in others])
    assert seen == [list(range(8)), list(range(20, 28))]
    assert len(workers[0]) == 1
    assert workers[0] == workers[1]


def test_unreadable_images_are_separated(tree: Path) -> None:
    (tree / "a" / "003.png").write_bytes(b"no image")
    batches = EpochBatches(4)
    dataset = ImageDataset(find_images(tree), central_crop(32))
    loader = make_loader(dataset, batches, 0, CPU)
    batches.start_epoch(0, np.array([2, 3, 4, 5, 3]))
    first, second = list(loader)
    assert first.index.tolist() == [2, 4, 5]
    assert len(first.pixels) == 3
    assert list(first.unreadable) == list(second.unreadable) == [3]
    assert len(second.pixels) == len(second.index) == 0


def test_the_ways_of_decoding_give_the_same_crops(tmp_path: Path) -> None:
    for number, photo in enumerate(load_sample_images().images):
        Image.fromarray(photo).save(tmp_path / f"{number}.jpg")
    pixels: dict[str, list[Tensor]] = {}
    for decode in ("auto", "pil"):
        dataset = ImageDataset(find_images(tmp_path), random_crop(96), seed=4, decode=decode)
        draws = [Draw(image, 1, position) for position, image in enumerate((0, 1, 0, 1))]
        crops = [dataset[draw][1] for draw in draws]
        pixels[decode] = [crop for crop in crops if isinstance(crop, Tensor)]
        assert len(pixels[decode]) == 4
    for quick, slow in zip(pixels["auto"], pixels["pil"], strict=True):
        assert int((quick.int() - slow.int()).abs().max()) == 1, "two resizes, one crop"


class ThreadsOfTheWorker(ImageDataset):
    def __getitem__(self, draw: Draw) -> Sample:
        threads = torch.get_num_threads()
        return draw._replace(image=threads), torch.zeros(3, 1, 1, dtype=torch.uint8)


def test_a_worker_has_one_thread_and_a_few_batches_are_ahead(tree: Path) -> None:
    batches = EpochBatches(2)
    batches.start_epoch(0, np.arange(4))
    dataset = ThreadsOfTheWorker(find_images(tree), central_crop(32))
    loader = make_loader(dataset, batches, 1, CPU)
    assert [batch.index.tolist() for batch in loader] == [[1, 1], [1, 1]]
    ahead = [
        make_loader(dataset, batches, workers, CPU).prefetch_factor for workers in (0, 1, 3, 9)
    ]
    assert ahead == [None, 8, 3, 2]


def test_the_views_of_the_transfer_protocols() -> None:
    """Against torchvision's chains on Pillow images, to the pixel."""
    photo = Image.fromarray(load_sample_images().images[0])
    resize, square = transforms.Resize(256), transforms.CenterCrop(256)
    flip = transforms.RandomHorizontalFlip()
    expected = transforms.Compose(
        [resize, square, transforms.RandomCrop(224), flip, transforms.PILToTensor()]
    )
    for seed in range(3):
        found = apply_seeded(probe_crop(224), photo, seed)
        torch.manual_seed(seed)
        assert torch.equal(found, expected(photo))
    crops = [transforms.PILToTensor()(crop) for crop in transforms.TenCrop(224)(resize(photo))]
    assert torch.equal(ten_crops(224)(photo), torch.stack(crops))
    assert torch.equal(ten_crops(224)(photo)[4], central_crop(224)(photo))
    warp = transforms.Compose([resize, transforms.Resize((224, 224)), transforms.PILToTensor()])
    assert torch.equal(warped(224)(photo), warp(photo))
    squares = transforms.RandomResizedCrop(224, scale=(0.1, 0.5), ratio=(1, 1))
    cropped = transforms.Compose([squares, flip, transforms.PILToTensor()])
    found = apply_seeded(object_crop(224, 0.1, 0.5), photo, 7)
    torch.manual_seed(7)
    assert torch.equal(found, cropped(photo))
