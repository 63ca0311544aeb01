"""Passes in order over compressed pages: one worker decompresses each, and batches stay as they
are."""

import itertools
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny
from packed_files import write_as

from data.batch import Batch
from data.images import ImageList, find_all_images, find_images
from data.loading import ImageDataset, load_in_order
from data.order import MOST, EpochBatches, WholePages
from data.packed import packed
from data.source import Source
from data.transforms import central_crop
from features.forward import compute_features
from system.device import select_compute
from tools import prepare_data

CPU = torch.device("cpu")
PAGES = 6  # of 40 images in three files of 13 or 14 rows, 7 in a page
Count = Callable[[], int]  # of pages that were decompressed since the last call, by all processes


@pytest.fixture
def pages_read(monkeypatch: pytest.MonkeyPatch) -> Count:
    read, number = packed.read_page_values, multiprocessing.Value("i", 0)

    def counted(*args: Any) -> Any:
        with number.get_lock():
            number.value += 1
        return read(*args)

    def count() -> int:
        found, number.value = number.value, 0
        return found

    monkeypatch.setattr(packed, "read_page_values", counted)
    return count


def batches_of(images: ImageList, batch: int, workers: int, own: range) -> list[Batch]:
    dataset = ImageDataset(images, central_crop(16))
    return list(load_in_order(dataset, batch, workers, CPU, own))


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("batch", [1, 5, 7, 16, 40])
def test_a_page_is_decompressed_by_one_worker_and_batches_stay_the_same(
    tree: Path, tmp_path: Path, pages_read: Count, batch: int, workers: int
) -> None:
    for name in ("a/003", "b/001", "b/002", "b/003", "c/009"):
        (tree / f"{name}.png").write_bytes(b"no image")
    images = find_all_images([write_as("Parquet 2.13", tree, tmp_path / "x")])
    for own, pages in ((range(40), PAGES), (range(3, 31), PAGES - 1)):
        expected = batches_of(find_images(tree), batch, 0, own)
        found = batches_of(images, batch, workers, own)
        assert pages_read() == pages
        for one, other in zip(expected, found, strict=True):
            assert torch.equal(one.pixels, other.pixels)
            assert torch.equal(one.index, other.index)
            assert one.unreadable == other.unreadable
    batches_of(images, batch, 0, range(40))
    assert pages_read() == PAGES


def test_features_and_their_moments_have_the_same_bits(
    tree: Path, tmp_path: Path, pages_read: Count
) -> None:
    model, compute = tiny(out=8).eval(), select_compute("cpu", "fp32")
    images = find_images(write_as("Parquet 2.13", tree, tmp_path / "x"))
    found = []
    for workers in (0, 2, 4):
        loader = load_in_order(ImageDataset(images, central_crop(32)), 9, workers, CPU)
        whole = compute_features(loader, model, range(40), compute, dict[int, str]().update)
        assert whole.moments is not None
        _, mean, covariance = whole.moments.reduce()
        found.append((whole.rows, mean.numpy(), covariance.numpy()))
        assert pages_read() == PAGES
    for other in found[1:]:
        for one, same in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, same)


def test_copies_to_tars_decompress_each_page_once(
    tree: Path, tmp_path: Path, pages_read: Count, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_data, "warn_of_lost_levels", lambda images: None)  # reads a few
    data = write_as("Parquet 2.13", tree, tmp_path / "x")
    for workers in ("0", "2"):
        command = [str(data), str(tmp_path / f"{workers}.tar"), "--workers", workers]
        prepare_data.main(prepare_data.parse_args(command))
        assert pages_read() == PAGES
    assert (tmp_path / "0.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()


class Paged:
    """A source whose images are in pages of these lengths."""

    def __init__(self, *pages: int) -> None:
        self.page = np.repeat(np.arange(len(pages)), pages)

    def reads_anew(self, indices: np.ndarray) -> np.ndarray:
        return np.diff(self.page[indices], prepend=-1) != 0


def tasks_of(source: Any, batch: int, images: int, first: int = 0) -> list[list[tuple[int, bool]]]:
    """The number of images in each piece of each task, and whether it ends a batch."""
    batches = EpochBatches(batch)
    batches.start_epoch(3, np.arange(images), first)
    tasks = list(WholePages(batches, source))
    pieces = itertools.chain.from_iterable(tasks)
    draws = list(itertools.chain.from_iterable(piece.draws for piece in pieces))
    assert draws == list(itertools.chain.from_iterable(batches))
    assert len(WholePages(batches, source)) == len(batches)
    return [[(len(piece.draws), piece.last) for piece in task] for task in tasks]


def test_tasks_end_where_pages_do() -> None:
    assert tasks_of(Paged(3, 4, 5, 6), 8, 18) == [
        [(7, False)],
        [(1, True), (4, False)],
        [(4, True), (2, True)],
    ]
    assert tasks_of(Paged(10, 10), 4, 20, first=1) == [
        [(4, True), (2, False)],
        [(2, True), (4, True), (4, True)],
    ]


def test_images_that_are_read_one_by_one_come_in_batches() -> None:
    assert tasks_of(Paged(*[1] * 10), 4, 10) == [[(4, True)], [(4, True)], [(2, True)]]
    assert tasks_of(Paged(*[1] * 10), 4, 0) == []


def test_a_page_that_is_too_long_goes_to_several_workers() -> None:
    counts = [
        sum(images for images, _ in task) for task in tasks_of(Paged(2 * MOST + 5, 3), 64, 520)
    ]
    assert counts == [MOST, MOST, 8]
    counts = [sum(images for images, _ in task) for task in tasks_of(Paged(1000), 300, 1000)]
    assert counts == [300, 300, 300, 100]


def test_where_containers_of_several_sources_are_read_anew(tree: Path, tmp_path: Path) -> None:
    paged = write_as("Parquet 2.13", tree, tmp_path / "x")
    tar = write_as("pax", tree, tmp_path / "y")
    source: Source = find_all_images([paged, tar, tree]).source
    anew = source.reads_anew(np.arange(120))
    assert np.flatnonzero(anew[:40]).tolist() == [0, 7, 13, 20, 26, 33]
    assert anew[40:].all()
    assert source.reads_anew(np.array([0, 41, 1, 2, 7])).tolist() == [
        True, True, True, False, True
    ]  # fmt: skip
    assert source.take(np.arange(39, -1, -1)).reads_anew(np.arange(40)).sum() == PAGES
