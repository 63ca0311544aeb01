"""A source of images in memory works like a folder of files everywhere."""

import hashlib
import io
import pickle
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import tiny, write_images
from PIL import Image
from runs import assert_same_weights

import assign
import extract_features
from data.decode import UnreadableImageError
from data.images import ImageList, find_all_images, find_images
from data.loading import Draw, ImageDataset, load_in_order
from data.resized import ResizedImages
from data.source import Joined, Source, join
from data.transforms import central_crop, random_crop
from features.forward import compute_features
from system.device import select_compute
from system.names import digest_of_names
from visu import activ_retrieval, clusters, feature_map
from visu.gallery import make_gallery

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Memory:
    """Images in memory."""

    root: Path
    names: Sequence[str]
    folders: Sequence[str]
    contents: list[bytes]

    def open(self, index: int) -> io.BytesIO:
        return io.BytesIO(self.contents[index])

    @property
    def digest(self) -> str:
        return digest_of_names(self.names)

    @property
    def checksum(self) -> str:
        return self.digest

    def content_digest(self) -> str:
        return hashlib.sha256(b"\0".join(self.contents)).hexdigest()

    def reads_anew(self, indices: np.ndarray) -> np.ndarray:
        return np.ones(len(indices), np.bool_)

    def take(self, indices: Sequence[int] | np.ndarray) -> "Memory":
        names, folders = ([each[i] for i in indices] for each in (self.names, self.folders))
        return Memory(self.root, names, folders, [self.contents[i] for i in indices])


@pytest.fixture
def both(tree: Path) -> tuple[ImageList, ImageList]:
    """The same images in files and in memory; one is damaged, one is empty, one is a JPEG."""
    (tree / "a" / "003.png").write_bytes(b"no image")
    (tree / "b" / "001.png").write_bytes(b"")
    Image.new("RGB", (50, 40), "red").save(tree / "c" / "000.png", "JPEG")
    return find_images(tree), ImageList(in_memory(tree))


def in_memory(root: Path) -> Memory:
    files = find_images(root)
    contents = [(root / name).read_bytes() for name in files.names]
    return Memory(root, files.names, files.folders, contents)


@pytest.mark.parametrize("decode", ["auto", "pil"])
def test_images_and_reasons_equal_those_of_files(
    both: tuple[ImageList, ImageList], decode: str
) -> None:
    files, memory = (ImageDataset(each, random_crop(32), 7, decode) for each in both)
    for index in range(40):
        (_, expected), (_, found) = (each[Draw(index, 1, index)] for each in (files, memory))
        assert type(found) is type(expected)
        if isinstance(found, str):
            assert found == expected
        else:
            assert torch.equal(torch.as_tensor(found), torch.as_tensor(expected))
    assert memory[Draw(3, 0, 0)] == (Draw(3, 0, 0), "cannot identify image file")
    assert memory[Draw(11, 0, 0)] == (Draw(11, 0, 0), "the file is empty")


def test_features_equal_those_of_files(both: tuple[ImageList, ImageList]) -> None:
    model, rows = tiny().eval(), []
    for images in both:
        unreadable: dict[int, str] = {}
        loader = load_in_order(ImageDataset(images, central_crop(32)), 7, 1, CPU)
        compute = select_compute("cpu", "fp32")
        found = compute_features(loader, model, range(40), compute, unreadable.update)
        assert np.flatnonzero(~found.present).tolist() == sorted(unreadable) == [3, 11]
        rows.append(found.rows)
    np.testing.assert_array_equal(rows[0], rows[1])


def test_resized_images_equal_those_of_files(both: tuple[ImageList, ImageList]) -> None:
    boxes = [(2.0, 3.0, 30.0, 35.0)] * 40
    files, memory = (ResizedImages(images, 64, boxes) for images in both)
    for index in (0, 39):
        a, b = (torch.as_tensor(each[Draw(index, 0, 0)][1]) for each in (files, memory))
        assert torch.equal(a, b)
    assert memory[Draw(3, 0, 0)] == files[Draw(3, 0, 0)]


def test_any_error_of_a_source_is_a_reason(tmp_path: Path) -> None:
    class Broken(Memory):
        def open(self, index: int) -> io.BytesIO:
            raise KeyError("no such\nmember")

    images = ImageList(Broken(tmp_path, ["x"], ["."], [b""]))
    with pytest.raises(UnreadableImageError, match=r"^'no such\\nmember'$"):
        images.open(0)
    draw = Draw(0, 0, 0)
    assert ImageDataset(images, central_crop(32))[draw] == (draw, "'no such\\nmember'")


def test_sources_of_different_kinds_are_joined(tree: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "more" / "d", 3)
    joined = join([in_memory(tree), find_images(tmp_path / "more").source])
    shutil.rmtree(tree)
    assert isinstance(joined, Joined)
    images = ImageList(pickle.loads(pickle.dumps(joined)))
    assert len(images) == 43
    assert list(images.names[39:41]) == [f"{tree}/c/009.png", f"{tmp_path}/more/d/000.png"]
    assert images.labels is not None
    assert images.labels[37:42].tolist() == [2, 2, 2, 3, 3]
    few = images.take([42, 0, 41])
    assert list(few.names) == [images.names[index] for index in (42, 0, 41)]
    for index, whole in enumerate((42, 0, 41)):
        with few.open(index) as file, images.open(whole) as same:
            assert file.read() == same.read()
    with few.open(0) as file:
        assert file.read() == (tmp_path / "more" / "d" / "002.png").read_bytes()


def outputs(exp: Path, data: Path) -> dict[str, bytes]:
    """The outputs of the scripts for a run and its images."""
    model, cpu = (
        exp / "checkpoint.pth.tar",
        ["--device", "cpu", "--precision", "fp32", "--workers", "0"],
    )
    call(extract_features, model, data, "--out", exp / "features", *cpu)
    files = ["--out", exp / "assigned.csv", "--contact-sheet", exp / "sheet.png"]
    call(assign, model, data, *files, *cpu)
    call(clusters, exp, *cpu)
    call(feature_map, exp, "--points", 30, "--method", "pca", *cpu)
    flags = ["--model", model, "--data", data, "--exp", exp / "visu", "--count", 2]
    call(activ_retrieval, *flags, *cpu)
    names = [
        "images.txt", "features/features.npy", "features/images.txt", "features/bad_images.txt",
        "assigned.csv", "sheet.png", "clusters_epoch_0001/largest.jpg",
        "clusters_epoch_0001/clusters.json", "feature_map.html", "visu/conv1/images-0-7.jpeg",
    ]  # fmt: skip
    copies = sorted((exp / "visu" / "conv1").glob("*/*.png"))
    assert len(copies) > 8
    names += [str(path.relative_to(exp)) for path in copies]
    return {name: (exp / name).read_bytes() for name in names}


def call(script: ModuleType, *command: object) -> None:
    script.main(script.parse_args([str(part) for part in command]))


def test_scripts_work_without_image_files(
    both: tuple[ImageList, ImageList],
    tree: Path,
    train: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.unreadable.MOST_UNREADABLE", 0.1)
    by_files = train(tree, exp="files/run/exp")
    expected = outputs(by_files, tree)
    galleries = [make_gallery(feature_map.read_run(by_files), 1, 10, 10)]

    memory = in_memory(tree)
    shutil.rmtree(tree)
    monkeypatch.setattr("data.images.find_source", lambda path: memory)
    monkeypatch.setattr("training.finished_run.images_of_listing", lambda *found: ImageList(memory))
    exp = train(tree, exp="memory/run/exp")
    assert_same_weights(*(each / "checkpoint.pth.tar" for each in (exp, by_files)))
    assert outputs(exp, tree) == expected
    galleries.append(make_gallery(feature_map.read_run(exp), 1, 10, 10))
    assert galleries[0] == galleries[1]
    assert sum(picture.webp is not None for picture in galleries[0].pictures) > 8


def test_messages_name_the_image_and_where_it_is(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory: Source = in_memory(tree)
    monkeypatch.setattr("data.images.find_source", lambda path: memory)
    assert find_images("anything").where(0) == f"{tree}/a/000.png"
    assert find_all_images(["anything"]).names[0] == f"{tree}/a/000.png"
