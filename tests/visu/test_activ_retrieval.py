"""The images that filters respond to most."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import image_list, read_file, tiny, write_images
from networks import alexnet_features, network
from PIL import Image
from torch import nn

from checkpoints.checkpoint import save_checkpoint
from data.decode import read_image
from data.images import find_images
from data.transforms import central_crop, to_input
from models import MODELS
from system.errors import InputError
from visu import activ_retrieval
from visu.activ_retrieval import SIDE, Places
from visu.receptive_field import ReceptiveField, map_side, receptive_field
from visu.top_images import TopImages

CPU = torch.device("cpu")
SIZE = 32
SILENT = 5  # a filter of conv2


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of the tiny network, whose conv1 has 8 filters and conv2 16."""
    monkeypatch.setitem(MODELS, "tiny", tiny)
    path = tmp_path / "checkpoint.pth.tar"
    save_checkpoint(path, {"arch": "tiny", "state_dict": network((SILENT,)).state_dict()})
    return path


def run(saved: Path, data: Path, *flags: str) -> Path:
    """Run the script; returns its folder."""
    exp = saved.parent / "exp"
    base = f"--model {saved} --data {data} --exp {exp} --size {SIZE} --workers 0 --decode pil"
    device = "--device cpu --precision fp32"
    command = [*base.split(), *device.split(), *flags]
    activ_retrieval.main(activ_retrieval.parse_args(command))
    return exp


def by_hand(data: Path, layer: int) -> np.ndarray:
    """`(N, C)` mean activations, one image at a time, in `find_images`' order."""
    model, images, rows = network((SILENT,)), find_images(data), []
    for index in range(len(images)):
        pixels = central_crop(SIZE)(read_file(read_image, images.where(index)))
        with torch.no_grad():
            rows.append(model.conv_features(to_input(pixels[None], CPU), layer)[0].mean((1, 2)))
    return torch.stack(rows).numpy()


def test_the_top_images_of_each_filter_are_copied_best_first(tree: Path, saved: Path) -> None:
    exp, images = run(saved, tree, "--conv", "1", "2", "--batch", "7"), find_images(tree)
    for layer, channels in ((1, 8), (2, 16)):
        means = by_hand(tree, layer)
        for number in range(channels):
            order = np.argsort(-means[:, number], kind="stable")[:9]
            expected = [
                f"{rank}_{Path(images.where(image)).name}"
                for rank, image in enumerate(order, start=1)
                if means[image, number] > 0
            ]
            folder = exp / f"conv{layer}" / f"layer{layer}-channel{number}"
            assert sorted(path.name for path in folder.iterdir()) == expected
            for name, image in zip(expected, order, strict=False):
                assert (folder / name).read_bytes() == Path(images.where(image)).read_bytes()


def test_equal_names_in_different_folders_get_their_own_copies(tmp_path: Path, saved: Path) -> None:
    for seed, folder in enumerate("abc"):
        write_images(tmp_path / "images" / folder, 1, seed=seed)  # 000.png in each
    exp = run(saved, tmp_path / "images", "--count", "10")
    copies = sorted((exp / "conv1" / "layer1-channel0").iterdir())
    assert [path.name for path in copies] == ["01_000.png", "02_000.png", "03_000.png"]
    originals = {path.read_bytes() for path in (tmp_path / "images").rglob("*.png")}
    assert {path.read_bytes() for path in copies} == originals


def test_a_filter_that_never_fires_has_no_images(
    tree: Path, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exp = run(saved, tree, "--conv", "2")
    assert list((exp / "conv2" / f"layer2-channel{SILENT}").iterdir()) == []
    silent = np.flatnonzero(by_hand(tree, 2).max(axis=0) == 0)
    assert SILENT in silent
    said = f"filters that respond to no image: {', '.join(map(str, silent))}\n"
    assert said in capsys.readouterr().out


def test_a_second_call_replaces_the_images_of_the_first(tree: Path, saved: Path) -> None:
    exp = run(saved, tree)
    own = exp / "conv1" / "layer1-channel0"
    (own / "notes.txt").touch()
    run(saved, tree / "a", "--count", "2")
    assert sorted(path.name[:2] for path in own.iterdir()) == ["1_", "2_", "no"]


def test_unreadable_images_are_left_out_by_name(
    tree: Path, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exp = run(saved, tree, "--count", "1")
    (best,) = (exp / "conv1" / "layer1-channel2").iterdir()
    broken = next(p for p in tree.rglob("*.png") if p.read_bytes() == best.read_bytes())
    broken.write_bytes(b"no image")
    run(saved, tree, "--count", "1")
    assert f"left out, unreadable: {broken}: " in capsys.readouterr().err
    (second,) = (exp / "conv1" / "layer1-channel2").iterdir()
    broken.unlink()
    expected = find_images(tree).where(int(by_hand(tree, 1)[:, 2].argmax()))
    assert second.read_bytes() == Path(expected).read_bytes()


def test_an_image_that_vanishes_before_its_copy_is_an_error_in_one_line(
    tree: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = activ_retrieval.top_images

    def pass_and_remove(*args: Any) -> Any:
        found = passed(*args)
        shutil.rmtree(tree)
        return found

    monkeypatch.setattr(activ_retrieval, "top_images", pass_and_remove)
    with pytest.raises(InputError, match=rf"^{tree}/\w/\d+\.png: No such file or directory$"):
        run(saved, tree)


@pytest.mark.parametrize("batch", [1, 4, 60])
def test_images_in_any_order_and_batches_give_the_same_ranks(batch: int) -> None:
    rng = np.random.default_rng(batch)
    means = rng.integers(0, 6, (60, 5)).astype(np.float32)  # many ties, and zeros
    means[:, 4] = 0
    means[7:, 3] = 0
    peaks = rng.integers(100, size=(60, 5))
    top, order = TopImages.none(5, 9), rng.permutation(60)
    for start in range(0, 60, batch):
        some = order[start : start + batch]
        top = top.with_more(some, means[some], peaks[some])
    for number in range(5):
        expected = np.argsort(-means[:, number], kind="stable")[:9]
        expected = expected[means[expected, number] > 0]
        there = top.images[number] >= 0
        assert top.images[number][there].tolist() == expected.tolist()
        np.testing.assert_array_equal(top.means[number][there], means[expected, number])
        np.testing.assert_array_equal(top.peaks[number][there], peaks[expected, number])


def linear(modules: list[nn.Module]) -> nn.Sequential:
    """Modules of the same geometry; the slope of an output is positive in its receptive field."""
    same: list[nn.Module] = []
    for module in modules:
        if isinstance(module, nn.Conv2d):
            kernel, stride, padding = module.kernel_size[0], module.stride[0], module.padding[0]
            convolution = nn.Conv2d(1, 1, kernel, stride, int(padding))
            nn.init.ones_(convolution.weight)
            same.append(convolution)
        elif isinstance(module, nn.ZeroPad2d):
            same.append(module)
        elif isinstance(module, nn.MaxPool2d):
            same.append(nn.AvgPool2d(module.kernel_size, module.stride, module.padding))
    return nn.Sequential(*same).double()


def vgg_like() -> list[nn.Module]:
    table: list[nn.Module] = [nn.ZeroPad2d(1)]
    for _ in range(3):
        table += [nn.Conv2d(1, 1, 3, 1, 1), nn.Conv2d(1, 1, 3, 1, 1), nn.MaxPool2d(2, 2)]
    return [*table, nn.Conv2d(1, 1, 3, 1, 1)]


@pytest.mark.parametrize("layer", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("sobel", [True, False])
def test_the_receptive_field_is_where_the_gradient_is_not_zero(layer: int, sobel: bool) -> None:
    """Layer 0 means VGG's, with a margin."""
    modules = alexnet_features(sobel).modules_before_relu(layer) if layer else vgg_like()
    field, side = receptive_field(modules), 160
    x = torch.ones(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    maps = linear(modules)(x)
    last = maps.shape[2] - 1
    assert map_side(modules, side) == maps.shape[2] == maps.shape[3]
    for row, column in ((0, 0), (last, last // 2), (last // 2, last // 3), (1, last)):
        (slope,) = torch.autograd.grad(maps[0, 0, row, column], x, retain_graph=True)
        rows, columns = np.nonzero(slope[0, 0].numpy())
        left, top, right, bottom = field.box(row, column)
        assert (rows.min(), rows.max() + 1) == (max(top, 0), min(bottom, side))
        assert (columns.min(), columns.max() + 1) == (max(left, 0), min(right, side))
        assert (slope > 0).sum() == len(set(rows)) * len(set(columns)), "all of the box"


def test_a_box_shows_the_receptive_field_and_grey_beyond_the_border(tmp_path: Path) -> None:
    pixels = np.zeros((256, 256, 3), np.uint8)
    pixels[16:240, 16:240] = 60  # the view at 224
    pixels[16 : 16 + 28, 16 : 16 + 14] = (0, 200, 0)  # its upper left
    Image.fromarray(pixels).save(tmp_path / "image.png")
    places = Places(ReceptiveField(start=-14, stride=14, size=28), map_side=8, size=224)
    view, seen = places.draw(image_list(tmp_path / "image.png"), 0, place=8)  # row 1, column 0
    assert view.size == seen.size == (SIDE, SIDE)
    left, right = SIDE // 4, 3 * SIDE // 4
    assert seen.getpixel((left, SIDE // 2)) == (200, 200, 200), "beyond the border"
    assert seen.getpixel((right, SIDE // 2)) == (0, 200, 0)
    assert view.getpixel((0, 4)) == activ_retrieval.BOX
    assert view.getpixel((SIDE - 2, SIDE - 2)) == (60, 60, 60)


def test_a_sheet_has_a_row_for_each_filter(tree: Path, saved: Path) -> None:
    exp = run(saved, tree, "--conv", "all", "--count", "4")
    for layer, channels in ((1, 8), (2, 16)):
        with Image.open(exp / f"conv{layer}" / f"images-0-{channels - 1}.jpeg") as sheet:
            assert sheet.width == 4 + 2 * 4 * (SIDE + 4)
            assert sheet.height > channels * SIDE


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--conv 3", "--conv 3: tiny has conv layers 1 to 2; give some of them, or all"),
        ("--data gone", "gone: no such folder or file"),
        ("--exp {model}/e", "--exp {model}/e/conv1: cannot write there: Not a directory"),
        ("--size 3", "--size 3: too small for tiny; give 13 or more"),
        (
            "--count 100000",
            "--count 100000: a contact sheet of 13,600,004 × 772 pixels is too large; ask for "
            "fewer pictures",
        ),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    tree: Path, saved: Path, flags: str, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        run(saved, tree, *flags.format(model=saved).split())
    assert str(caught.value) == message.format(model=saved)
    assert not (saved.parent / "exp").exists()


def test_a_data_set_without_a_readable_image_is_an_error(tmp_path: Path, saved: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="none of the 1 images can be read"):
        run(saved, tmp_path / "images")
